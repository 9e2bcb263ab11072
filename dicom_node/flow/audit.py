"""Recording for the audit trail, away from whoever waits for an answer.

What happens is put into a queue in memory and written in batches by a thread: one record when the
transfer of a study begins on an association, one when it ends, none for each image. A node that is
killed loses the records of its last fraction of a second; the begin without an end shows it.
"""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import platform
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from dicom_node.clock import Clock
from dicom_node.config import AuditPatient, NodeConfig, PeerConfig
from dicom_node.domain.audit import (
    APPLICATION,
    DESTINATION,
    DESTINATION_MEDIA,
    LAUNCHER,
    SOURCE,
    AuditEvent,
    AuditMessage,
    Code,
    Outcome,
    Participant,
    StudyObject,
)
from dicom_node.errors import NodeError, StoreError
from dicom_node.store.store import Store

log = logging.getLogger(__name__)
_ACTING: ContextVar[tuple[str, str] | None] = ContextVar("acting", default=None)

QUEUE_LIMIT = 10_000
"""So many records wait for a database that does not answer; more are counted and lost (G5)."""
ALERT_EVERY_S = 60.0
"""The same refusal is recorded once in this time, with how often it came meanwhile."""
ALERT_KEYS = 200
"""So many different refusals are recorded in that time."""
_TICK_S = 0.5
_BATCH = 200
_STOP_S = 5.0


class Lives(Protocol):
    """An association: a thread that ends with it."""

    @property
    def is_released(self) -> bool:
        """Whether it ended in order."""

    def is_alive(self) -> bool:
        """Whether it goes on."""


@dataclass
class _Transfer:
    """What came of one study on one association."""

    association: Lives
    source: tuple[str, str]
    study_uid: str
    patient_id: str
    instances: Counter[str] = field(default_factory=Counter)


@dataclass
class _Alert:
    since_s: float
    suppressed: int = 0


class AuditTrail:
    """Takes records from any thread. ``start`` begins to write them, ``close`` writes the rest."""

    def __init__(self, store: Store, config: NodeConfig, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._host = platform.node()
        self._source_id = f"{config.node.ae_title}@{self._host}"
        self._queue: deque[AuditMessage] = deque()
        self._lost = 0
        self._transfers: dict[tuple[int, str], _Transfer] = {}
        self._alerts: OrderedDict[tuple[str, ...], _Alert] = OrderedDict()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write in a thread from now on."""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Record the end of what goes on, and write everything that waits."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)
            self._thread = None
        self._sweep(ended=True)
        try:
            self.flush()
        except NodeError:
            log.exception("audit records could not be written", extra={"lost": len(self._queue)})

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StoreError: the database refused; what was not written waits still.
        """
        while batch := self._batch():
            try:
                self._store.audit_append(batch, self._source_id)
            except StoreError:
                with self._lock:
                    self._queue.extendleft(reversed(batch))
                raise

    def _run(self) -> None:
        while not self._stopping.wait(_TICK_S):
            try:
                self._sweep()
                self.flush()
            except Exception:  # nobody would start this thread again
                log.exception("audit records wait")

    def _batch(self) -> list[AuditMessage]:
        with self._lock:
            lost, self._lost = self._lost, 0
            found = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
        if lost:
            found.append(
                self._alert(AuditEvent.RECORDS_LOST, "audit", [("lost", str(lost))],
                            Outcome.SERIOUS_FAILURE)
            )  # fmt: skip
        return found

    def _put(self, message: AuditMessage) -> None:
        with self._lock:
            if len(self._queue) >= QUEUE_LIMIT:
                self._lost += 1
            else:
                self._queue.append(message)

    # the application

    def started(self) -> None:
        """Record that the node started, and whether its configuration is another than before."""
        self._put(self._activity(AuditEvent.APPLICATION_START))
        text = self._config.model_dump_json()
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self._store.audit_last(AuditEvent.SOFTWARE_CONFIGURATION) != digest:
            details = [("sha256 of the configuration", digest)]
            self._put(self._alert(AuditEvent.SOFTWARE_CONFIGURATION, digest, details))

    def stopped(self) -> None:
        """Record that the node stopped."""
        self._put(self._activity(AuditEvent.APPLICATION_STOP))

    def rebuilt(self, old_database: str) -> None:
        """Record that this trail begins anew, and where the one before it stands."""
        details = [("old database", old_database)]
        self._put(self._alert(AuditEvent.DATABASE_REBUILT, old_database or "none", details))

    def peer_changed(self, what: str, peer: str, detail: str) -> None:
        """Record that a peer was added or removed."""
        details = [("change", what), ("peer", detail)]
        self._put(self._alert(AuditEvent.NETWORK_CONFIGURATION, peer, details))

    def model_changed(self, what: str, subject: str, details: list[tuple[str, str]]) -> None:
        """Record that a release was added, activated, rolled back, or a key trusted."""
        told = [("change", what), *details]
        self._put(self._alert(AuditEvent.MODEL_CHANGED, subject, told))

    def drift(self, what: str, scanner: str, details: list[tuple[str, str]]) -> None:
        """Record that an alarm of a scanner began or ended, or its reference began anew."""
        self._put(self._alert(AuditEvent.DRIFT, scanner, [("change", what), *details]))

    def trail_read(self) -> None:
        """Record that a person read the audit trail (PS3.15 A.5.3.2)."""
        where = f"audit-trail:{self._source_id}"
        reader = _person(requestor=True)
        self._put(self._message(AuditEvent.AUDIT_LOG_USED, [reader], subject=where))

    # people

    def login(self, account: str, address: str, problem: str = "") -> None:
        """Record a login, or one that failed with the reason (PS3.15 A.5.3.12)."""
        outcome = Outcome.MINOR_FAILURE if problem else Outcome.SUCCESS
        suppressed = self._suppressed(("login", account, address, problem)) if problem else 0
        if suppressed is None:
            return
        words = f"{problem}, {suppressed} times before" if suppressed else problem
        who = [self._own(), Participant(account, None, True, address=address)]
        self._put(
            AuditMessage(
                AuditEvent.LOGIN, self._clock.now_s(), who, outcome=outcome, description=words
            )
        )

    def logout(self) -> None:
        """Record that a person logged out."""
        self._put(self._message(AuditEvent.LOGOUT, [self._own(), _person(requestor=True)]))

    def account_changed(self, what: str, subject: str, detail: str) -> None:
        """Record a change of an account or token of the console."""
        details = [("change", what), ("detail", detail)]
        self._put(self._alert(AuditEvent.ACCOUNT_CHANGED, subject, details))

    def study_changed(self, study_uid: str, what: str) -> None:
        """Record that a person had a study looked at or sent again."""
        self._put(self._of_study(AuditEvent.STUDY_CHANGED, study_uid, {}, what))

    def accessed(self, study_uid: str, instances: Mapping[str, int]) -> None:
        """Record that a person looked at instances of a study (PS3.15 A.5.3.6)."""
        self._put(self._of_study(AuditEvent.INSTANCES_ACCESSED, study_uid, instances, ""))

    def _of_study(
        self, event: AuditEvent, study_uid: str, instances: Mapping[str, int], words: str
    ) -> AuditMessage:
        study = self._study(study_uid, instances, self._store.patient_of(study_uid))
        who = [self._own(), _person(requestor=True)]
        return AuditMessage(event, self._clock.now_s(), who, description=words, study=study)

    # associations

    def rejected(self, calling_ae: str, called_ae: str, address: str, reason: str) -> None:
        """Record an association that was rejected; a flood of them makes few records (G5)."""
        suppressed = self._suppressed((calling_ae, called_ae, address, reason))
        if suppressed is None:
            return
        details = [("reason", reason), ("called AE title", called_ae)]
        if suppressed:
            details.append(("not recorded since the last record", str(suppressed)))
        who = Participant(calling_ae, None, True, calling_ae, address)
        self._put(
            self._message(
                AuditEvent.ASSOCIATION_REJECTED, [self._own(), who], subject=calling_ae or address,
                details=details, outcome=Outcome.MINOR_FAILURE,
            )
        )  # fmt: skip

    def _suppressed(self, key: tuple[str, ...]) -> int | None:
        """Return how many alerts of a kind were held back before this one; None: hold it back."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            known = self._alerts.get(key)
            if known is not None and now_s - known.since_s < ALERT_EVERY_S:
                known.suppressed += 1
                return None
            oldest = next(iter(self._alerts.values()), None)
            if known is None and len(self._alerts) >= ALERT_KEYS and oldest is not None:
                if now_s - oldest.since_s < ALERT_EVERY_S:
                    return None
                self._alerts.popitem(last=False)
            self._alerts.pop(key, None)
            self._alerts[key] = _Alert(now_s)
            return known.suppressed if known is not None else 0

    def received(
        self, association: Lives, source: tuple[str, str], sop_class_uid: str,
        study_uid: str, patient_id: str,
    ) -> None:  # fmt: skip
        """Count an instance that was stored; ``source``: calling AE title and address."""
        key = (id(association), study_uid)
        with self._lock:
            known = self._transfers.get(key)
            if known is None:
                known = _Transfer(association, source, study_uid, patient_id)
                self._transfers[key] = known
            known.instances[sop_class_uid] += 1
            begins = known.instances.total() == 1
        if begins:
            self._put(self._transferred(known, AuditEvent.BEGIN_TRANSFERRING, Outcome.SUCCESS))

    def _sweep(self, *, ended: bool = False) -> None:
        """Record the transfers whose association is over."""
        with self._lock:
            over = [
                key for key, one in self._transfers.items()
                if ended or not one.association.is_alive()
            ]  # fmt: skip
            done = [self._transfers.pop(key) for key in over]
        for one in done:
            outcome = Outcome.SUCCESS if one.association.is_released else Outcome.MINOR_FAILURE
            self._put(self._transferred(one, AuditEvent.INSTANCES_RECEIVED, outcome))

    def _transferred(
        self, transfer: _Transfer, event: AuditEvent, outcome: Outcome
    ) -> AuditMessage:
        calling_ae, address = transfer.source
        who = [
            Participant(calling_ae, SOURCE, True, calling_ae, address),
            self._own(DESTINATION),
        ]
        counted = {} if event is AuditEvent.BEGIN_TRANSFERRING else transfer.instances
        study = self._study(transfer.study_uid, counted, transfer.patient_id)
        return self._message(event, who, outcome=outcome, study=study)

    def sent(
        self, peer: PeerConfig, study_uid: str, instances: Mapping[str, int], *, whole: bool
    ) -> None:
        """Record result objects that a destination took; ``whole``: all that were offered."""
        who = [
            self._own(SOURCE, requestor=True),
            Participant(peer.ae_title, DESTINATION, False, peer.ae_title, peer.host),
        ]
        study = self._study(study_uid, instances, self._store.patient_of(study_uid))
        outcome = Outcome.SUCCESS if whole else Outcome.MINOR_FAILURE
        message = self._message(AuditEvent.INSTANCES_SENT, who, outcome=outcome, study=study)
        self._put(message)

    def deleted(self, study_uid: str, instances: Mapping[str, int], why: str) -> None:
        """Record that files of a study are deleted, and by which rule (PS3.15 A.5.3.10)."""
        self._put(self._of_study(AuditEvent.STUDY_DELETED, study_uid, instances, why))

    def backup(self, what: str, place: str, details: list[tuple[str, str]]) -> None:
        """Record that everything was copied to a place, or restored from one."""
        self._put(self._alert(AuditEvent.BACKUP, place, [("what", what), *details]))

    def exported(self, study_uid: str, instances: Mapping[str, int], target: str) -> None:
        """Record that a person wrote a study to files."""
        who = [
            _person(SOURCE, requestor=True, address=self._host),
            Participant(target, DESTINATION_MEDIA, False),
        ]
        study = self._study(study_uid, instances, self._store.patient_of(study_uid))
        self._put(self._message(AuditEvent.EXPORT, who, study=study))

    # parts of messages

    def _study(self, uid: str, instances: Mapping[str, int], patient_id: str) -> StudyObject:
        named = self._config.audit.patient is AuditPatient.ID
        return StudyObject(uid, dict(instances), patient_id if named else None)

    def _own(self, role: Code | None = None, *, requestor: bool = False) -> Participant:
        title = self._config.node.ae_title
        return Participant(str(os.getpid()), role, requestor, title, self._host)

    def _activity(self, event: AuditEvent) -> AuditMessage:
        who = [self._own(APPLICATION), _person(LAUNCHER, requestor=True)]
        return self._message(event, who)

    def _alert(
        self, event: AuditEvent, subject: str, details: list[tuple[str, str]],
        outcome: Outcome = Outcome.SUCCESS,
    ) -> AuditMessage:  # fmt: skip
        who = [self._own(), _person(requestor=True)]
        return self._message(event, who, subject=subject, details=details, outcome=outcome)

    def _message(
        self, event: AuditEvent, who: list[Participant], *, outcome: Outcome = Outcome.SUCCESS,
        study: StudyObject | None = None, subject: str = "",
        details: list[tuple[str, str]] | None = None,
    ) -> AuditMessage:  # fmt: skip
        return AuditMessage(
            event, self._clock.now_s(), who, outcome=outcome, study=study, subject=subject,
            details=tuple(details or ()),
        )  # fmt: skip


@contextmanager
def acting(user: str, address: str) -> Iterator[None]:
    """Record what is done inside as done by an account of the console, at an address."""
    before = _ACTING.set((user, address))
    try:
        yield
    finally:
        _ACTING.reset(before)


def _person(role: Code | None = None, *, requestor: bool, address: str = "") -> Participant:
    """Return who acts: an account of the console, else the user of this process."""
    user, where = _ACTING.get() or (_login(), address)
    return Participant(user, role, requestor, address=where)


def _login() -> str:
    """Return the user of this process; a process without one is named by its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
