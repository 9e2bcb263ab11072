"""The watch: measures, compares with the rules, lets alarms begin and end, and has them told.

It runs in the delivery and the web process of every host, but only one of all looks at a time:
where that one dies another goes on within a minute, and misses it.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Protocol

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.domain.alarm import PROCESS_MISSING_S, SUBJECTS, Facts, Turn, raised
from dicom_node.domain.canary import RunState
from dicom_node.domain.roles import missing
from dicom_node.errors import NodeError
from dicom_node.flow.bounded import Bounded
from dicom_node.flow.health import TROUBLES, storage_state
from dicom_node.flow.messages import body_of
from dicom_node.flow.peers import all_peers
from dicom_node.net.pem import ends_s
from dicom_node.store.counters import REFUSED
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

TICK_S = 2.0
LEASE = "watch"
LEASE_S = 60.0
HOUR_S, DAY_S = 3600.0, 86_400.0
CANARY_TOLD_S = DAY_S
"""A canary that a person sent and that was lost is told for so long; a scheduled one until the
next comes back."""


class Canary(Protocol):
    """What keeps the canary going."""

    def turn(self) -> None:
        """Send one where it is time, and see what became of the last."""


class Watch:
    """Looks every ``alarms.every_s``. ``run`` goes on until told to stop."""

    def __init__(
        self, store: Store, config: NodeConfig, clock: Clock, canary: Canary | None = None
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._canary = canary
        self._look_at_storage = Bounded(partial(storage_state, config.node.data_dir))
        self._holder = uuid.uuid4().hex
        self._since_s: float | None = None
        self._looked_s = float("-inf")
        self._refused: deque[tuple[float, float]] = deque()

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop`` is set."""
        while not stop.wait(TICK_S):
            try:
                self.turn()
            except NodeError as error:
                log.error("the watch cannot look", extra={"problem": error.message})
            except Exception:  # nobody would start this thread again
                log.exception("the watch failed")

    def turn(self) -> list[Turn]:
        """Look where it is time and nobody else does; returns what people are told."""
        if not self._store.lease(LEASE, self._holder, LEASE_S):
            self._since_s = None
            self._refused.clear()
            return []
        now_s = self._clock.monotonic_s()
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._looked_s < self._config.alarms.every_s:
            return []
        self._looked_s = now_s
        if self._canary is not None and self._watches_s() >= PROCESS_MISSING_S:
            self._canary.turn()
        return self.look()

    def look(self) -> list[Turn]:
        """Compare what is measured with the rules, once."""
        settings = self._config.alarms
        wrong = raised(self.facts(), settings.limits)
        at_s = self._clock.now_s()
        found = self._store.alarms_turn(
            wrong,
            settings.limits,
            settings.channels,
            lambda turn: body_of(self._config, turn, at_s),
        )
        for turn in found:
            log.warning(
                "alarm", extra={
                    "change": turn.change, "code": turn.now.code, "subject": turn.now.subject,
                    "found": turn.now.found,
                },
            )  # fmt: skip
        return found

    def facts(self) -> Facts:
        """Measure everything that the rules look at."""
        now_s, store = self._clock.now_s(), self._store
        limits = self._config.alarms.limits
        waits_s = store.oldest_waiting_s()
        failed, held = store.ended_badly(now_s - HOUR_S * limits.study_failed_h)
        trouble, free = self._storage()
        peers = [e.peer.name for e in all_peers(store, self._config) if e.peer.receives_results]
        waiting = store.oldest_deliveries_s(peers)
        return Facts(
            nothing_received_s=self._silence_s(),
            study_waits_s=None if waits_s is None else now_s - waits_s,
            failed=failed, held=held, refusals_last_h=self._refusals_last_h(),
            disk_free_bytes=free, storage=trouble, canary=self._canary_lost(),
            destinations={peer: now_s - since_s for peer, since_s in waiting.items()},
            drifting={
                str(row.scanner): ", ".join(sorted(row.alarms)).replace("_", " ")
                for row in store.scanners(SUBJECTS)
                if row.alarms
            },
            missing=self._missing(), certificates=certificates_days(self._config, now_s),
            channels=store.notices_waiting_s(),
        )  # fmt: skip

    def _watches_s(self) -> float:
        """Seconds since this process began to look: what starts with it needs a moment."""
        return 0.0 if self._since_s is None else self._clock.monotonic_s() - self._since_s

    def _silence_s(self) -> float | None:
        """Return the seconds of duty in which nothing came; None where nobody may send."""
        senders = {e.peer.ae_title for e in all_peers(self._store, self._config) if e.peer.may_send}
        senders.discard(self._config.canary.ae_title)  # it says nothing of who should send
        if not senders:
            return None
        seen = self._store.senders_seen(sorted(senders))
        times = [one.received_at_s for one in seen if one.received_at_s is not None]
        last_s = max(times, default=self._store.set_up_s())
        if last_s is None:
            return None
        until = datetime.fromtimestamp(self._clock.now_s()).astimezone()
        since = datetime.fromtimestamp(last_s, until.tzinfo)
        return self._config.alarms.duty.seconds(since, until)

    def _refusals_last_h(self) -> int:
        counted = self._store.counters()
        total = sum(n for (name, _), n in counted.items() if name == REFUSED)
        now_s = self._clock.monotonic_s()
        self._refused.append((now_s, total))
        while self._refused and now_s - self._refused[0][0] > HOUR_S:
            self._refused.popleft()
        return int(total - self._refused[0][1])

    def _storage(self) -> tuple[str, int | None]:
        try:
            state = self._look_at_storage()
            trouble = state.trouble
            return (TROUBLES[trouble].message if trouble else ""), state.free_bytes
        except OSError as error:
            return f"the data folder does not answer ({error.strerror})", None

    def _canary_lost(self) -> str:
        last = self._store.canary_last()
        if last is None or last.state is not RunState.FAILED:
            return ""
        age_s = self._clock.now_s() - last.started_at_s
        told = self._config.canary.every_h > 0 or age_s < CANARY_TOLD_S
        return last.message if told else ""

    def _missing(self) -> list[str]:
        if self._watches_s() < PROCESS_MISSING_S:
            return []
        return missing(self._store.processes(), self._clock.now_s(), PROCESS_MISSING_S)


def certificates_days(config: NodeConfig, now_s: float) -> Mapping[str, float]:
    """Return for how many days the certificates of the node are valid; `doctor` says the rest."""
    found = {}
    for name, file in (("tls", config.tls.certificate), ("web", config.web.certificate)):
        if file:
            try:
                found[name] = (ends_s(file) - now_s) / DAY_S
            except NodeError as error:
                log.warning("certificate unreadable", extra={"problem": error.message})
    return found
