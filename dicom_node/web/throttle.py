"""Slows down who guesses passwords: per account and address, and per address. Bounded (G5)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from dicom_node.clock import Clock

FREE_FAILURES = 5
"""So many of an account from an address cost nothing; each further one doubles the wait."""
FREE_FAILURES_ADDRESS = 50
FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 900.0
_KEYS = 10_000


@dataclass
class _Failures:
    number: int = 0
    last_s: float = 0.0


class LoginThrottle:
    """Counts failed logins; a success forgets those of its account from its address."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, account: str, address: str) -> float:
        """Return how long to wait before the next try is looked at; 0: not at all."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            return max(
                self._left_s((account, address), FREE_FAILURES, now_s),
                self._left_s(("", address), FREE_FAILURES_ADDRESS, now_s),
            )

    def failed(self, account: str, address: str) -> None:
        """Count a failed login."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            for key in ((account, address), ("", address)):
                known = self._failures.pop(key, _Failures())
                if now_s - known.last_s > LONGEST_WAIT_S:
                    known = _Failures()
                self._failures[key] = _Failures(known.number + 1, now_s)
            while len(self._failures) > _KEYS:
                self._failures.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """Forget the failures of an account from an address."""
        with self._lock:
            self._failures.pop((account, address), None)

    def _left_s(self, key: tuple[str, str], free: int, now_s: float) -> float:
        known = self._failures.get(key)
        if known is None or known.number < free:
            return 0.0
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(known.number - free, 20))
        return max(0.0, known.last_s + wait_s - now_s)
