"""The one way to the time. Product code takes a `Clock`; tests pass one they turn by hand."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time and waiting."""

    def now_s(self) -> float:
        """Wall time in seconds since 1970-01-01 UTC."""
        ...

    def now(self) -> datetime:
        """Wall time as an aware UTC datetime."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only grow; for durations within one process."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now_s(self) -> float:
        """Wall time in seconds since 1970-01-01 UTC."""
        return time.time()

    def now(self) -> datetime:
        """Wall time as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds that only grow; for durations within one process."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class WallWatch:
    """Notices that the wall clock was set, by comparing it with the monotonic one."""

    def __init__(self, clock: Clock, tolerance_s: float = 5.0) -> None:
        self._clock = clock
        self._tolerance_s = tolerance_s
        self._apart_s = clock.now_s() - clock.monotonic_s()

    def was_set(self) -> bool:
        """Whether the wall clock was set since the last look."""
        before_s, self._apart_s = self._apart_s, self._clock.now_s() - self._clock.monotonic_s()
        return abs(self._apart_s - before_s) > self._tolerance_s


class ManualClock:
    """A clock that moves only when told to; ``sleep`` moves it too. Safe for many threads."""

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self._wall_s = start_s
        self._monotonic_s = 0.0
        self._lock = threading.Lock()

    def now_s(self) -> float:
        """Wall time in seconds since 1970-01-01 UTC."""
        return self._wall_s

    def now(self) -> datetime:
        """Wall time as an aware UTC datetime."""
        return datetime.fromtimestamp(self._wall_s, UTC)

    def monotonic_s(self) -> float:
        """Seconds that only grow."""
        return self._monotonic_s

    def sleep(self, seconds: float) -> None:
        """Move the clock instead of waiting."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move both times forward."""
        with self._lock:
            self._wall_s += seconds
            self._monotonic_s += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall time forward or back, as NTP or an operator does."""
        with self._lock:
            self._wall_s += seconds


FixedClock = ManualClock
"""A manual clock that nobody turns."""
