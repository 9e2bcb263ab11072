"""The heart-beat of a process: a row in the database that every other process and host sees."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable

from dicom_node import __version__
from dicom_node.clock import Clock
from dicom_node.domain.roles import BEAT_S, ProcessRow
from dicom_node.errors import NodeError
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

STUCK_S = 120.0
"""A process whose work did not move for longer stops beating, though it runs."""


class Progress:
    """Says when the loop of a process last turned. Safe for many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turned_s = clock.monotonic_s()

    def turn(self) -> None:
        """Say that the work goes on."""
        self._turned_s = self._clock.monotonic_s()

    def goes_on(self) -> bool:
        """Whether it turned lately."""
        return self._clock.monotonic_s() - self._turned_s < STUCK_S


class Pulse:
    """Beats every few seconds from `start` to `stop`, as long as ``goes_on`` says yes."""

    def __init__(
        self, store: Store, clock: Clock, role: str, *, ports: dict[str, int] | None = None,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        now_s = clock.now_s()
        self._store = store
        self._goes_on = goes_on
        self._row = ProcessRow(
            uuid.uuid4().hex, role, "", os.getpid(), __version__, now_s, now_s, ports or {}
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._silent = False

    def start(self) -> None:
        """Begin to beat."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """End in order: the process is then not missed."""
        self._stopping.set()
        self._thread.join(timeout=BEAT_S)
        try:
            self._store.process_gone(self._row.id)
        except NodeError as error:
            log.warning("the end of the process is not known", extra={"problem": error.message})

    def _run(self) -> None:
        while not self._stopping.wait(BEAT_S):
            self._beat()

    def _beat(self) -> None:
        try:
            if not self._goes_on():
                self._told("the work does not move on")
                return
            self._store.process_beat(self._row)
        except Exception as error:  # nobody would start this thread again
            self._told(type(error).__name__)
        else:
            self._silent = False

    def _told(self, problem: str) -> None:
        if not self._silent:
            log.error("no heart-beat", extra={"problem": problem})
        self._silent = True
