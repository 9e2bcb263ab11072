"""One node, one data folder: the lock, and who holds it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dicom_node.errors import StoreError
from dicom_node.supervisor import LOCK_ENV, inherited_lock, lock_data_dir

HOLDER = """
import subprocess, sys
from pathlib import Path
from dicom_node.supervisor import inherited_lock, lock_data_dir
with lock_data_dir(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", sys.argv[2]], pass_fds=inherited_lock())
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, child_lives_s: float) -> subprocess.Popen[bytes]:
    """Start a process that holds the lock and has a child; return when it holds it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(child_lives_s)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def test_a_second_node_on_a_folder_is_refused(tmp_path: Path) -> None:
    first = holder(tmp_path, 0)
    try:
        with pytest.raises(StoreError, match="another node runs"), lock_data_dir(tmp_path, 0.2):
            pass
    finally:
        end(first)
    with lock_data_dir(tmp_path, 0.2):
        assert inherited_lock()
    assert inherited_lock() == ()


@pytest.mark.slow
def test_the_lock_falls_with_the_last_process_of_a_killed_node(tmp_path: Path) -> None:
    begun = time.monotonic()
    first = holder(tmp_path, 1.5)
    end(first)  # its child lives on, as a process that waits for the disk does
    with pytest.raises(StoreError), lock_data_dir(tmp_path, 0.0):
        pass
    with lock_data_dir(tmp_path):
        assert time.monotonic() - begun > 1.0, "not before the child ended"


def test_without_a_lock_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOCK_ENV, raising=False)
    assert inherited_lock() == ()
