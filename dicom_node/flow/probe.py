"""The examination of a peer, step by step; what is found is kept and decides what it is sent.

Every wait is bounded: the steps up to the negotiation take seconds, the test study as long as its
transfer, the confirmation `KEPT_WAIT_S`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydicom.uid import generate_uid

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.domain.confirmation import PUSH_MODEL, SERVICES, STUDY_ROOT_FIND, Method, method
from dicom_node.domain.probing import (
    ClassAnswer,
    Finding,
    Profile,
    SentStudy,
    Step,
    StepOutcome,
    judge_objects,
)
from dicom_node.domain.profile import SOP_CLASSES, DeliveryPlan
from dicom_node.errors import NodeError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.confirm import take_report
from dicom_node.flow.connection_study import PATIENT_ID, SampleObject, unpacked
from dicom_node.flow.heard import heard_from
from dicom_node.flow.peers import address_of
from dicom_node.net import reach
from dicom_node.net.commitment import request_commitment
from dicom_node.net.contexts import examined_contexts
from dicom_node.net.negotiation import negotiate
from dicom_node.net.outcomes import InstanceStatus, Outcome
from dicom_node.net.query import Wanted, find_instances
from dicom_node.net.sender import EchoResult, Negotiated, echo, send
from dicom_node.store.store import Store

KEPT_WAIT_S = 30.0
"""So long a peer may take to index the test study, or to report on it."""
_POLL_S = 0.5
_QUERY_EACH_S = 3.0
_NEEDED = frozenset({Step.NAME, Step.PORT, Step.TLS, Step.ASSOCIATION})
"""Without these nothing that follows can be tried."""
_OK, _FAILED, _SKIPPED = StepOutcome.OK, StepOutcome.FAILED, StepOutcome.SKIPPED
Result = tuple[StepOutcome, str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What to examine. ``send``: store the packaged test study there, and look for it.

    ``tell`` hears each finding; ``stop``: ends between two steps and shortens waits.
    """

    peer: PeerConfig
    send: bool = False
    tell: Callable[[Finding], None] = lambda _finding: None
    stop: threading.Event | None = None


class Examination:
    """One examination of one peer; ``run`` once."""

    def __init__(self, store: Store, config: NodeConfig, clock: Clock, order: Order) -> None:
        self._store, self._config, self._clock = store, config, clock
        self._order, self._peer = order, order.peer
        self._stop = order.stop or threading.Event()
        self._echoed: EchoResult | None = None
        self._answer: Negotiated | None = None
        self._plan: DeliveryPlan | None = None
        self._study_uid = ""
        self._sent: list[SampleObject] = []

    def run(self) -> Profile:
        """Try every step, keep the profile and return it. What fails is in the profile.

        Raises:
            StoreError: the database refused.
        """
        findings: list[Finding] = []
        for step, find in self._steps().items():
            since_s = self._clock.monotonic_s()
            blocked = any(one.outcome is _FAILED and one.step in _NEEDED for one in findings)
            if self._stop.is_set():
                outcome, found, advice = _SKIPPED, "the examination was ended", ""
            elif blocked and step is not Step.RECEIVING:
                outcome, found, advice = _SKIPPED, "needs the steps before", ""
            else:
                outcome, found, advice = find()
            took_s = round(self._clock.monotonic_s() - since_s, 3)
            findings.append(Finding(step, outcome, found, advice, took_s))
            self._order.tell(findings[-1])
        profile = Profile(
            self._peer.name, address_of(self._peer), self._clock.now_s(), tuple(findings),
            self._classes(), self._sent_study(),
        )  # fmt: skip
        self._store.probe_keep(profile)
        return profile

    def _steps(self) -> Mapping[Step, Callable[[], Result]]:
        return {
            Step.NAME: self._name, Step.PORT: self._port, Step.TLS: self._tls,
            Step.ASSOCIATION: self._association, Step.ECHO: self._echo,
            Step.OBJECTS: self._objects, Step.SERVICES: self._services,
            Step.SEND: self._send, Step.KEPT: self._kept, Step.RECEIVING: self._receiving,
        }  # fmt: skip

    # the way there

    def _name(self) -> Result:
        return _result(reach.resolve(self._peer.host))

    def _port(self) -> Result:
        if not self._peer.port:
            return (
                _FAILED,
                "no port is given, so it cannot be called; it may still send",
                ("edit this peer and give its port"),
            )
        return _result(reach.connect(self._peer.host, self._peer.port))

    def _tls(self) -> Result:
        peer = self._peer
        if not peer.tls:
            return _SKIPPED, "not set for this peer: everything goes in the clear", ""
        return _result(reach.secure(peer.host, peer.port or 0, peer.identities, self._config.tls))

    def _association(self) -> Result:
        own = self._config.node.ae_title
        self._echoed = echo(self._peer, calling_ae=own, tls=self._config.tls)
        if not self._echoed.associated:
            return _FAILED, self._echoed.problem, self._echoed.advice
        return _OK, f"{own} may talk to {self._peer.ae_title}", ""

    def _echo(self) -> Result:
        assert self._echoed is not None  # noqa: S101 - the step before
        if self._echoed.ok:
            return _OK, "answered", ""
        words = self._echoed.problem or self._echoed.message
        return _FAILED, words, "have C-ECHO (Verification) allowed there for this AE title"

    # what it takes

    def _objects(self) -> Result:
        peer = self._peer
        try:
            self._answer = negotiate(
                peer, examined_contexts(), calling_ae=self._config.node.ae_title,
                tls=self._config.tls,
            )  # fmt: skip
        except NodeError as error:
            return _FAILED, error.message, error.advice
        self._store.learn(peer.name, address_of(peer), self._answer.accepted, self._answer.refused)
        self._plan, outcome, found, advice = judge_objects(peer.result_kinds, self._answer.refused)
        if not peer.receives_results:
            return _SKIPPED, f"it gets none by its settings; it would get {found}", ""
        return outcome, found, advice

    def _services(self) -> Result:
        if self._answer is None:
            return _SKIPPED, "needs the steps before", ""
        names = [words for uid, (words, _) in SERVICES.items() if uid in self._answer.accepted]
        if names:
            return _OK, ", ".join(names), ""
        return (
            _SKIPPED,
            "neither storage commitment nor a query is offered",
            ("results end as sent, not verified; have one of both allowed there if it has it"),
        )

    def _classes(self) -> tuple[ClassAnswer, ...]:
        answer = self._answer
        if answer is None:
            return ()
        return tuple(
            ClassAnswer(
                uid,
                "taken" if uid in answer.accepted
                else "not taken" if uid in answer.refused else "refused without a reason",
                tuple(sorted(syntax for sop, syntax in answer.syntaxes if sop == uid)),
            )
            for uid in (*SOP_CLASSES, *SERVICES)
        )  # fmt: skip

    # the test study

    def _send(self) -> Result:
        if not self._order.send:
            return _SKIPPED, "not asked for", ""
        if self._plan is None:
            return _SKIPPED, "needs the steps before", ""
        with unpacked() as study:
            self._study_uid = study.study_uid
            forms = self._plan.send
            chosen = [
                one for one in study.objects
                if one.form is None or (one.form.kind, one.form.variant) in forms
            ]  # fmt: skip
            statuses = send(
                self._peer, [one.item for one in chosen],
                calling_ae=self._config.node.ae_title, tls=self._config.tls,
            )  # fmt: skip
        pairs = list(zip(chosen, statuses, strict=True))
        self._sent = [one for one, status in pairs if status.outcome is Outcome.SENT]
        self._record(whole=len(self._sent) == len(chosen))
        refused = [(one, status) for one, status in pairs if status.outcome is not Outcome.SENT]
        self._learn_of(refused)
        return self._judge_sending(refused)

    def _learn_of(self, refused: Collection[tuple[SampleObject, InstanceStatus]]) -> None:
        classes = {one.item.sop_class_uid for one, status in refused if status.not_taken}
        if classes & set(SOP_CLASSES):
            self._store.learn(
                self._peer.name, address_of(self._peer), (), classes & set(SOP_CLASSES)
            )

    def _judge_sending(self, refused: list[tuple[SampleObject, InstanceStatus]]) -> Result:
        stored = f"{len(self._sent)} objects stored for patient {PATIENT_ID}"
        told = Counter(status.detail for _, status in refused)
        why = "; ".join(f"{words} ({count} objects)" for words, count in told.most_common(3))
        if any(one.form is not None for one, _ in refused) or not self._sent:
            return _FAILED, f"{stored}; not stored: {why}", "see the log of the peer"
        remove = f"delete patient {PATIENT_ID} there when you have looked at it"
        if refused:  # the images alone
            return _OK, f"{stored}, without the images: {why}", remove
        return _OK, stored, remove

    def _record(self, *, whole: bool) -> None:
        counted = Counter(one.item.sop_class_uid for one in self._sent)
        trail = AuditTrail(self._store, self._config, self._clock)
        trail.sent(self._peer, self._study_uid, counted, whole=whole)
        trail.flush()

    def _sent_study(self) -> SentStudy | None:
        if not self._sent:
            return None
        return SentStudy(self._study_uid, PATIENT_ID, len(self._sent))

    def _kept(self) -> Result:
        if not self._sent:
            return _SKIPPED, "nothing was sent", ""
        how = method(self._peer.verify, self._taken())
        before = ""
        if how is Method.COMMITMENT:
            outcome, found, advice = self._commit()
            by_query = self._taken().get(STUDY_ROOT_FIND) and self._peer.verify == "auto"
            if outcome is _OK or not by_query:
                return outcome, found, advice
            before, how = f"{found}; ", Method.QUERY
        if how is Method.QUERY:
            outcome, found, advice = self._query()
            return outcome, before + found, advice
        off = "verify is off for this peer" if self._peer.verify == "off" else "it cannot be asked"
        return _SKIPPED, f"{off}: look for patient {PATIENT_ID} there", ""

    def _taken(self) -> dict[str, bool]:
        known = self._store.acceptances(self._peer.name, address_of(self._peer))
        return {row["sop_class_uid"]: row["accepted"] for row in known}

    def _commit(self) -> Result:
        """Ask for storage commitment; the report comes here, or to the port of the node."""
        uid, peer = str(generate_uid(prefix=None)), self._peer
        self._store.open_commitment(uid, peer.name, [], 0.0)
        asked = request_commitment(
            peer, uid, [(one.item.sop_class_uid, one.item.sop_instance_uid) for one in self._sent],
            calling_ae=self._config.node.ae_title, tls=self._config.tls,
            take=lambda report: take_report(self._store, [peer.name], report),
        )  # fmt: skip
        if not asked.accepted:
            self._store.drop_commitment(uid)
            if not asked.offered:
                self._store.learn(peer.name, address_of(peer), (), {PUSH_MODEL})
            return _FAILED, asked.detail, "have storage commitment allowed there for this AE title"
        lost = self._wait(lambda: self._store.commitment_lost(uid))
        if lost is None:
            own = self._config.node
            return (
                _FAILED,
                f"it promised a report on what it keeps; none in {KEPT_WAIT_S:.0f} s",
                (
                    f"it must know {own.ae_title} with the address of this machine and port "
                    f"{own.port or 'of this node'}, and the node must run"
                ),
            )
        if lost:
            return _FAILED, f"it does not keep {lost} of {len(self._sent)} objects", _NOT_KEPT
        return _OK, f"storage commitment for all {len(self._sent)} objects", ""

    def _query(self) -> Result:
        wanted = [
            Wanted(self._study_uid, one.series_uid, one.item.sop_instance_uid) for one in self._sent
        ]
        detail, missing = "", len(wanted)

        def all_shown() -> bool | None:
            nonlocal detail, missing
            shown = find_instances(
                self._peer, wanted, calling_ae=self._config.node.ae_title, tls=self._config.tls
            )
            missing = sum(not one.found for one in shown)
            detail = next((one.detail for one in shown if one.found is None), "")
            if not missing or all(one.found is None for one in shown):
                return not missing  # who does not answer now will not in half a minute
            return None

        if self._wait(all_shown, _QUERY_EACH_S):
            return _OK, f"a query shows all {len(wanted)} objects", ""
        if detail:
            return (
                _FAILED,
                f"it cannot be asked: {detail}",
                (f"have {self._config.node.ae_title} entered there as one that may query (C-FIND)"),
            )
        return _FAILED, f"a query does not show {missing} of {len(wanted)} objects", _NOT_KEPT

    def _wait(self, ask: Callable[[], T | None], each_s: float = _POLL_S) -> T | None:
        """Ask until there is an answer, `KEPT_WAIT_S` at most."""
        until_s = self._clock.monotonic_s() + KEPT_WAIT_S
        while (answer := ask()) is None:
            if self._clock.monotonic_s() >= until_s or self._stop.wait(each_s):
                return None
        return answer

    def _receiving(self) -> Result:
        return heard_from(self._store, self._config, self._peer, self._clock.now_s())


_NOT_KEPT = "see its log: a quarantine, a routing rule or a full disk may hold them"


def examine(store: Store, config: NodeConfig, clock: Clock, order: Order) -> Profile:
    """Examine a peer and keep what was found.

    Raises:
        StoreError: the database refused.
    """
    return Examination(store, config, clock, order).run()


def _result(found: reach.Reached) -> Result:
    return (_OK if found.ok else _FAILED), found.found, found.advice
