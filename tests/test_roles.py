"""What the processes of `serve` share."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The signal goes to a thread other than the main one, which waits without a time limit.
_PROGRAM = """
import signal, threading
from dicom_node.roles import stop_event

stop = stop_event()
other = threading.Thread(target=stop.wait)
other.start()
threading.Timer(0.2, lambda: signal.pthread_kill(other.ident, signal.{name})).start()
stop.wait()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_that_another_thread_gets_ends_the_process(name: str) -> None:
    program = [sys.executable, "-c", _PROGRAM.format(name=name)]
    assert subprocess.run(program, timeout=60, check=False).returncode == 0
