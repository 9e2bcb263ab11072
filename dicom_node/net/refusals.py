"""Records who was refused, beside the work: a flood of refusals must cost the node next to nothing.

Equal refusals are counted together and written by one thread, a few at a time. Each record is a
synced transaction; written where they arise they would hold up the images of honest peers.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

PAUSE_S = 0.5
_AT_A_TIME = 8
_KEPT = 256


class Refusals(Protocol):
    """Keeps who was refused: ``dicom_node.store.store.Store``."""

    def record_refusal(
        self, calling_ae: str, called_ae: str, address: str, reason: str, count: int = 1
    ) -> None:
        """Count a refused requester."""


@dataclass(frozen=True)
class Refused:
    """Who was refused, as the wire says, and why; AE titles are empty before one was said."""

    address: str
    reason: str
    calling_ae: str = ""
    called_ae: str = ""


class RefusalLog:
    """Takes refusals at any rate, records them at its own.

    Args:
        refusals: keeps them.
        writers: processes that record refusals beside each other; together they keep the rate.
    """

    def __init__(self, refusals: Refusals, writers: int = 1) -> None:
        self._refusals = refusals
        self._pause_s = PAUSE_S * writers
        self._waiting: dict[Refused, int] = {}
        self._lost = 0
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicom-refusals", daemon=True)

    def start(self) -> None:
        """Begin to record."""
        self._thread.start()

    def close(self) -> None:
        """Record what waits, then end."""
        self._stop.set()
        self._some.set()
        self._thread.join()

    def tell(self, refused: Refused) -> None:
        """Note a refusal; returns at once. Beyond a number of different ones, only counts."""
        with self._lock:
            if refused in self._waiting or len(self._waiting) < _KEPT:
                self._waiting[refused] = self._waiting.get(refused, 0) + 1
            else:
                self._lost += 1
        self._some.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._some.wait()
            self._some.clear()
            while self._write_some() and not self._stop.wait(self._pause_s):
                pass
        while self._write_some():
            pass

    def _write_some(self) -> bool:
        with self._lock:
            batch = [(one, self._waiting.pop(one)) for one in list(self._waiting)[:_AT_A_TIME]]
            lost, self._lost = self._lost, 0
        if lost:
            log.warning("refusals were not recorded: too many", extra={"count": lost})
        for who, count in batch:
            facts = {"reason": who.reason, "address": who.address, "count": count}
            log.warning("refused", extra=facts)
            try:
                self._refusals.record_refusal(
                    who.calling_ae, who.called_ae, who.address, who.reason, count
                )
            except Exception:
                log.exception("refusal could not be recorded")
        return bool(batch)
