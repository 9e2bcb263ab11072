"""Looks at a disk that may hang: a network file system can keep a call while it is away."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
LIMIT_S = 5.0


class Bounded(Generic[T]):
    """Does a look in a thread and waits for it no longer than ``limit_s``.

    While one hangs no other is begun: it holds one thread, however often it is asked.
    """

    def __init__(self, look: Callable[[], T], limit_s: float = LIMIT_S) -> None:
        self._look = look
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._going: _Run[T] | None = None

    def __call__(self) -> T:
        """Return what the look found.

        Raises:
            TimeoutError: no answer in time; an OSError.
        """
        with self._lock:
            if self._going is None or self._going.done.is_set():
                self._going = _Run(self._look)
            run = self._going
        if not run.done.wait(self._limit_s):
            raise TimeoutError(errno.ETIMEDOUT, "no answer")
        return run.found()


class _Run(Generic[T]):
    def __init__(self, look: Callable[[], T]) -> None:
        self.done = threading.Event()
        self._look = look
        self._found: list[T] = []
        self._error: Exception | None = None
        threading.Thread(target=self._do, name="look", daemon=True).start()

    def _do(self) -> None:
        try:
            self._found.append(self._look())
        except Exception as error:
            self._error = error
        finally:
            self.done.set()

    def found(self) -> T:
        """Return or raise what came of it."""
        if self._error is not None:
            raise self._error
        return self._found[0]
