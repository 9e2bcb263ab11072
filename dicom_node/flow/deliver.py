"""Delivery: result objects go to their destinations until they are taken or time is up.

Each destination has its own queue and thread, so that none waits for another. Within a revision
images go before the reports that refer to them. A destination that does not answer rests, longer
each time, up to a quarter of an hour; objects stay in the outbox until ``give_up_h``.
"""

from __future__ import annotations

import logging
import os
import platform
import random
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from dicom_node.clock import Clock, WallWatch
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.crash_points import fault
from dicom_node.domain.confirmation import SERVICES
from dicom_node.domain.policy import LEASE_S, backoff_s
from dicom_node.domain.profile import SOP_CLASSES
from dicom_node.errors import NodeError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.confirm import Confirmer
from dicom_node.flow.peers import address_of, all_peers, destination_of
from dicom_node.logs import pseudonym
from dicom_node.net.outcomes import InstanceStatus, Outcome
from dicom_node.net.sender import Inquiry, Negotiated, Outgoing, send_each
from dicom_node.store.rows import DeliveryClaim, StaleClaim
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

TICK_S = 0.5
HOUSEKEEPING_S = 5.0
STOP_GRACE_S = 10.0
TRIES_OF_UNKNOWN = 3
"""An answer outside the standard counts as refused after so many attempts."""
BREAKER_AT = 3
"""So many transient failures in a row let the whole destination rest."""
REFUSAL_HOLDS_S = 24 * 3600.0
"""So long a class refused to a C-STORE stays refused, whatever associations say of it."""
_HEARTBEAT_S = LEASE_S / 4

Send = Callable[[PeerConfig, Sequence[Outgoing]], Generator[InstanceStatus, None, None]]


class DeliveryLoop:
    """Sends what is due. ``run`` goes on until told to stop; ``deliver_once`` does one round.

    Args:
        store: the outbox.
        config: node and delivery settings; peers of the file.
        clock: the time.
        send: the sending side; None: C-STORE.
        confirmer: asks whether what was sent is kept; None: nothing is asked.
        audit: takes records of what was sent; None: nobody does.
        turned: called each time the loop turns.
    """

    def __init__(
        self,
        store: Store,
        config: NodeConfig,
        clock: Clock,
        send: Send | None = None,
        confirmer: Confirmer | None = None,
        audit: AuditTrail | None = None,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._turned = turned
        self._config = config
        self._clock = clock
        self._send = send or self._c_store
        self._confirmer = confirmer
        self._audit = audit
        self._owner = f"{platform.node()}:{os.getpid()}"
        self._jitter = random.SystemRandom().random
        self._stopping = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._failures: dict[str, int] = {}
        self._refused_at_s: dict[tuple[str, str], float] = {}
        self._kept_at_s = self._reap_from_s = float("-inf")
        self._wall = WallWatch(clock)

    def run(self, stop: threading.Event) -> None:
        """Deliver until ``stop`` is set; what is being sent then gets a few seconds."""
        self._store.recover_deliveries()
        while not stop.is_set():
            self._turned()
            try:
                self.start_due()
            except NodeError:
                log.exception("delivery round failed; it is tried again")
            stop.wait(TICK_S)
        self._stopping.set()
        deadline = self._clock.monotonic_s() + STOP_GRACE_S
        for thread in list(self._threads.values()):
            thread.join(timeout=max(0.0, deadline - self._clock.monotonic_s()))

    def deliver_once(self) -> None:
        """Deliver what is due now, all destinations side by side, and wait for the end of it."""
        for thread in self.start_due():
            thread.join()

    def start_due(self) -> list[threading.Thread]:
        """Start a thread for each destination that has something due and none running."""
        self._housekeeping()
        known = {entry.peer.name: entry.peer for entry in all_peers(self._store, self._config)}
        self._threads = {name: t for name, t in self._threads.items() if t.is_alive()}
        started = []
        for name in self._peers_due():
            peer = known.get(name)
            if peer is None or not peer.receives_results:
                self._store.drop_peer_deliveries(name)
                if self._confirmer is not None:
                    self._confirmer.forget(name)
            elif name not in self._threads:
                thread = threading.Thread(
                    target=self._serve, args=[peer], name=f"deliver-{name}", daemon=True
                )
                self._threads[name] = thread
                thread.start()
                started.append(thread)
        return started

    def _peers_due(self) -> list[str]:
        asked = self._confirmer.peers_due() if self._confirmer is not None else []
        return sorted({*self._store.peers_with_deliveries(), *asked})

    def _housekeeping(self) -> None:
        """End what is too old, take back what nobody sends any more."""
        now_s = self._clock.monotonic_s()
        if now_s - self._kept_at_s < HOUSEKEEPING_S:
            return
        self._kept_at_s = now_s
        if self._wall.was_set():  # heartbeats look old or new now; let them come in again first
            self._reap_from_s = now_s + LEASE_S
        if now_s >= self._reap_from_s:
            self._store.reap_stale_deliveries()
        self._store.expire_deliveries(self._config.delivery.give_up_h * 3600)

    def _serve(self, peer: PeerConfig) -> None:
        """Empty the queue of one destination as far as it is due, then ask what it keeps."""
        try:
            while not self._stopping.is_set():
                self._store.adapt_deliveries(destination_of(self._store, peer))
                claims = self._store.claim_deliveries(peer.name, self._owner)
                if not claims:
                    break
                fault("delivery-claimed")
                with self._heartbeat(claims):
                    self._attempt(peer, claims)
            if self._confirmer is not None and not self._stopping.is_set():
                self._confirmer.ask(peer)
        except StaleClaim:
            log.warning("a delivery was taken back", extra={"peer": peer.name})
        except Exception:
            # what was claimed comes back when its lease ends; the other destinations go on
            log.exception("delivery failed", extra={"peer": peer.name})

    def _attempt(self, peer: PeerConfig, claims: Sequence[DeliveryClaim]) -> None:
        objects = [self._outgoing(claim) for claim in claims]
        taken: Counter[str] = Counter()
        try:
            self._send_claims(peer, claims, objects, taken)
        finally:
            if taken and self._audit is not None:
                whole = sum(taken.values()) == len(claims)
                self._audit.sent(peer, claims[0].study_uid, taken, whole=whole)

    def _send_claims(
        self, peer: PeerConfig, claims: Sequence[DeliveryClaim], objects: Sequence[Outgoing],
        taken: Counter[str],
    ) -> None:  # fmt: skip
        """Send what was claimed; ``taken`` counts what the destination took, by SOP class."""
        with closing(self._send(peer, objects)) as statuses:
            for number, (claim, status) in enumerate(zip(claims, statuses, strict=False)):
                fault("object-sent")
                if _class_refused(claim, status):
                    self._replace(peer, claims[number:], status)
                    return
                if status.outcome is Outcome.SENT:
                    taken[claim.result.sop_class_uid] += 1
                next_at_s = self._settle(peer, claim, status)
                fault("delivery-committed")
                if next_at_s is None and self._stopping.is_set():
                    next_at_s = self._clock.now_s()
                if next_at_s is not None:
                    # a report must not overtake what it refers to: the rest waits too
                    self._give_back(claims[number + 1 :], next_at_s, status.detail)
                    return

    def _replace(
        self, peer: PeerConfig, claims: Sequence[DeliveryClaim], status: InstanceStatus
    ) -> None:
        """Let something stand in for an object whose SOP class is refused, or let it fail.

        What was claimed with it goes back: a report must not refer to what is left out.
        """
        refused = claims[0].result.sop_class_uid
        if status.code is not None:  # said of the object, not of the association
            self._refused_at_s[address_of(peer), refused] = self._clock.monotonic_s()
        self._store.learn(peer.name, address_of(peer), (), {refused})
        self._give_back(claims[1:], self._clock.now_s(), "")
        if self._store.replace_refused(claims[0], destination_of(self._store, peer)):
            log.info(
                "object replaced",
                extra={"peer": peer.name, "kind": claims[0].result.kind, "why": status.detail},
            )
        else:
            self._store.delivery_failed(claims[0], status.detail, status.code)
        self._failures.pop(peer.name, None)

    def _settle(
        self, peer: PeerConfig, claim: DeliveryClaim, status: InstanceStatus
    ) -> float | None:
        """Write down what became of an object; returns when to try again, None where settled."""
        outcome = status.outcome
        if outcome is Outcome.UNKNOWN:
            tried = claim.attempts >= TRIES_OF_UNKNOWN
            outcome = Outcome.PERMANENT if tried else Outcome.TRANSIENT
        log.info(
            "delivery",
            extra={
                "peer": peer.name, "study": pseudonym(claim.study_uid), "kind": claim.result.kind,
                "outcome": outcome.value, "code": status.code, "attempt": claim.attempts,
            },
        )  # fmt: skip
        if outcome is Outcome.TRANSIENT:
            return self._retry(peer, claim, status)
        self._failures.pop(peer.name, None)
        if outcome is Outcome.SENT:
            self._refused_at_s.pop((address_of(peer), claim.result.sop_class_uid), None)
            self._store.delivery_sent(claim, status.code or 0, status.detail)
        else:
            self._store.delivery_failed(claim, status.detail, status.code)
        return None

    def _retry(self, peer: PeerConfig, claim: DeliveryClaim, status: InstanceStatus) -> float:
        failures = self._failures.get(peer.name, 0) + 1
        self._failures[peer.name] = failures
        wait_s = backoff_s(max(failures, claim.attempts), self._jitter())
        next_at_s = self._clock.now_s() + wait_s
        self._store.delivery_retry_later(claim, next_at_s, status.detail, status.code)
        if status.code is None or failures >= BREAKER_AT:
            # the destination, not the object, is the trouble: its whole queue rests
            self._store.postpone_peer(peer.name, next_at_s, status.detail)
        return next_at_s

    def _give_back(self, claims: Sequence[DeliveryClaim], next_at_s: float, message: str) -> None:
        for claim in claims:
            self._store.delivery_retry_later(claim, next_at_s, message, counts=False)

    def _outgoing(self, claim: DeliveryClaim) -> Outgoing:
        result = claim.result
        path = self._config.node.data_dir / Path(result.path)
        return Outgoing(path, result.sop_class_uid, result.sop_instance_uid, result.sha256)

    def _c_store(
        self, peer: PeerConfig, objects: Sequence[Outgoing]
    ) -> Generator[InstanceStatus, None, None]:
        def learn(answer: Negotiated) -> None:
            accepted = answer.accepted - self._refused_lately(address_of(peer))
            self._store.learn(peer.name, address_of(peer), accepted, answer.refused)

        return send_each(
            peer, objects, calling_ae=self._config.node.ae_title,
            inquiry=Inquiry((*SOP_CLASSES, *SERVICES), learn), tls=self._config.tls,
        )  # fmt: skip

    def _refused_lately(self, address: str) -> frozenset[str]:
        """Return the classes that an address refused by the status of a C-STORE.

        Some accept every class in an association and refuse it then: without a memory of it
        each association would bring back what the one before had ruled out, without end.
        """
        since_s = self._clock.monotonic_s() - REFUSAL_HOLDS_S
        return frozenset(
            sop_class
            for (where, sop_class), at_s in list(self._refused_at_s.items())
            if where == address and at_s > since_s
        )

    @contextmanager
    def _heartbeat(self, claims: Sequence[DeliveryClaim]) -> Iterator[None]:
        """Keep the claims while they are being sent, however slow the destination is."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(_HEARTBEAT_S):
                try:
                    self._store.delivery_heartbeat(claims)
                except NodeError:
                    log.exception("heartbeat failed")

        thread = threading.Thread(target=beat, name="deliver-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _class_refused(claim: DeliveryClaim, status: InstanceStatus) -> bool:
    """Whether the peer does not take the SOP class; a rejection without a reason counts in time."""
    silent = status.outcome is Outcome.UNKNOWN and status.code is None
    return status.not_taken or (silent and claim.attempts >= TRIES_OF_UNKNOWN)
