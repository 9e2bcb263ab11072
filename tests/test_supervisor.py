"""One node, one data folder: the lock, and who holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicom_node.errors import StoreError
from dicom_node.supervisor import LOCK_ENV, inherited_lock, lock_data_dir

HOLDER = """
import subprocess, sys
from pathlib import Path
from dicom_node.supervisor import inherited_lock, lock_data_dir
with lock_data_dir(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "300"], pass_fds=inherited_lock())
    print(child.pid, flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process that holds the lock and has a child; return both when it is held."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(60)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def test_a_second_node_on_a_folder_is_refused(tmp_path: Path) -> None:
    first, child = holder(tmp_path)
    try:
        with pytest.raises(StoreError, match="another node runs"), lock_data_dir(tmp_path, 0.2):
            pass
    finally:
        end(first)
        os.kill(child, signal.SIGKILL)
    with lock_data_dir(tmp_path):
        assert inherited_lock()
    assert inherited_lock() == ()


def test_the_lock_falls_with_the_last_process_of_a_killed_node(tmp_path: Path) -> None:
    first, child = holder(tmp_path)
    ended = threading.Event()

    def end_child() -> None:
        ended.set()
        os.kill(child, signal.SIGKILL)

    end(first)  # its child lives on, as a process that waits for the disk does
    late = threading.Timer(0.3, end_child)
    try:
        with pytest.raises(StoreError), lock_data_dir(tmp_path, 0.0):
            pass
    finally:
        late.start()
    with lock_data_dir(tmp_path):
        assert ended.is_set(), "not before the child ended"
    late.join()


def test_without_a_lock_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOCK_ENV, raising=False)
    assert inherited_lock() == ()
