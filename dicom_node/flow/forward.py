"""Forwarding the audit trail, at least once and in order; the trail itself is the queue."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from dicom_node.clock import Clock
from dicom_node.config import AuditSection, NodeConfig
from dicom_node.domain.policy import backoff_s
from dicom_node.errors import NodeError
from dicom_node.net.syslog import Record, SyslogConnection
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

TICK_S = 1.0


SETTLE_S = 5.0
"""Records count as forwarded when the connection still stands so long after they went out: syslog
has no answer, and a repository that hangs up took nothing for certain."""
BATCH = 200


class Connection(Protocol):
    """A way to the audit record repository."""

    def send(self, records: list[Record]) -> None:
        """Send records; returns when the other machine has their bytes."""

    def check(self) -> None:
        """See that the connection stands."""

    def close(self) -> None:
        """End it."""


class Forwarder:
    """Sends what was not forwarded yet. ``run`` goes on until told to stop.

    How far it came stands in the database, so it goes on there after a restart; what was under way
    when a connection broke is sent again.
    """

    def __init__(
        self,
        store: Store,
        config: NodeConfig,
        clock: Clock,
        connect: Callable[[AuditSection], Connection] = SyslogConnection,
    ) -> None:
        self._store = store
        self._settings = config.audit
        self._clock = clock
        self._connect = connect
        self._connection: Connection | None = None
        self._under_way: deque[tuple[int, float]] = deque()
        self._failures = 0
        self._rests_until_s = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Forward until ``stop`` is set; returns at once where no repository is configured."""
        while self._settings.syslog_host and not stop.is_set():
            try:
                self.forward_due()
            except Exception:  # nobody would start this thread again
                log.exception("audit trail not forwarded; it is tried again")
            stop.wait(TICK_S)
        self.close()

    def forward_due(self) -> int:
        """Forward what waits; returns how many records went out."""
        if self._clock.monotonic_s() < self._rests_until_s:
            return 0
        try:
            self._confirm()
            return self._send()
        except (NodeError, OSError) as error:
            self.close()
            self._failures += 1
            wait_s = backoff_s(self._failures, 0.5)
            self._rests_until_s = self._clock.monotonic_s() + wait_s
            log.warning(
                "audit trail not forwarded", extra={"problem": str(error), "again_in_s": wait_s}
            )
            return 0

    def _confirm(self) -> None:
        """Write down what went out long enough ago on a connection that stands."""
        if self._connection is None:
            return
        self._connection.check()
        settled_s = self._clock.monotonic_s() - SETTLE_S
        through = 0
        while self._under_way and self._under_way[0][1] <= settled_s:
            through, _ = self._under_way.popleft()
        if through:
            self._store.audit_forwarded(through)
            self._failures = 0

    def _send(self) -> int:
        position = self._under_way[-1][0] if self._under_way else self._store.audit_position()
        done = 0
        while rows := self._store.audit_list(position, BATCH):
            if self._connection is None:
                self._connection = self._connect(self._settings)
            self._connection.send([Record(row.at_s, row.message) for row in rows])
            position = rows[-1].number
            self._under_way.append((position, self._clock.monotonic_s()))
            done += len(rows)
        return done

    def close(self) -> None:
        """End the connection; what was under way on it is sent again."""
        self._under_way.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
