"""The worker's side of the model process: start, ask, watch, kill."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from dicom_node.supervisor import PARENT_ENV, inherited_lock

_BEAT_S = 1.0
_QUICK_LOOK_S = 0.05


class ChildDiedError(Exception):
    """The model process ended before it answered."""


class ChildTimeoutError(Exception):
    """The model process did not answer in time and was killed."""


class ModelChild:
    """A child process that holds the model, started on demand, replaced after it died."""

    def __init__(self, recycle_after: int = 200) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._recycle_after = recycle_after

    def start(self) -> None:
        """Start the process where none runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.model_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, PARENT_ENV: str(os.getpid())},
            pass_fds=inherited_lock(),
        )
        self._asked = 0

    def ask(self, job: dict[str, Any], limit_s: float, beat: Callable[[], bool]) -> dict[str, Any]:
        """Send a job and wait for its answer; ``beat`` is called about once a second.

        Raises:
            ChildDiedError: the process ended, or ``beat`` returned False and it was stopped.
            ChildTimeoutError: ``limit_s`` passed; the process was killed.
        """
        self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise ChildDiedError
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            reply = self._read_answer(process, limit_s, beat)
        except BrokenPipeError:
            self.stop()
            raise ChildDiedError from None
        self._asked += 1
        if self._asked >= self._recycle_after:
            self.stop()
        return reply

    def _read_answer(
        self, process: subprocess.Popen[bytes], limit_s: float, beat: Callable[[], bool]
    ) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        next_beat = time.monotonic() + _BEAT_S
        received = b""
        if process.stdout is None:
            raise ChildDiedError
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if selector.select(timeout=_QUICK_LOOK_S):
                    part = os.read(process.stdout.fileno(), 65536)
                    if not part:
                        self.stop()
                        raise ChildDiedError
                    received += part
                now = time.monotonic()
                if now >= deadline:
                    self.stop()
                    raise ChildTimeoutError
                if now >= next_beat:
                    next_beat = now + _BEAT_S
                    if not beat():
                        self.stop()
                        raise ChildDiedError
        answer: dict[str, Any] = json.loads(received)
        return answer

    def stop(self) -> None:
        """Kill the process, where one runs, and collect it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
