"""One node, one data folder: the lock, and who holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dicom_node.config import NodeConfig
from dicom_node.errors import StoreError, WrongUseError
from dicom_node.instance import INSTANCE_ENV, ROLES, chosen_instance, chosen_roles
from dicom_node.supervisor import LOCK_ENV, hold_data_dir, inherited_lock, lock_data_dir

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


def on_postgresql(folder: Path) -> NodeConfig:
    node = {"data_dir": folder, "database": "postgresql+psycopg://node@db/node"}
    return NodeConfig.model_validate({"node": node})


def test_parts_of_a_node_share_a_folder_on_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = on_postgresql(tmp_path)
    monkeypatch.setenv(INSTANCE_ENV, "one")
    with hold_data_dir(config):
        assert len(inherited_lock()) == 2
        monkeypatch.setenv(INSTANCE_ENV, "two")
        with hold_data_dir(config):
            assert len(inherited_lock()) == 4
            with pytest.raises(StoreError, match="another node"), lock_data_dir(tmp_path, 0.0):
                pass  # recover and migrate want the folder alone
        assert len(inherited_lock()) == 2
    assert inherited_lock() == ()
    assert list((tmp_path / "instances").iterdir()) == []
    with lock_data_dir(tmp_path, 0.0):
        pass


def test_two_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    with (
        lock_data_dir(tmp_path, name="instances/one.lock"),
        pytest.raises(StoreError, match="named one runs; stop it, or give --instance"),
        lock_data_dir(tmp_path, 0.0, name="instances/one.lock"),
    ):
        pass


def test_on_sqlite_one_node_has_the_folder(tmp_path: Path) -> None:
    config = NodeConfig.model_validate({"node": {"data_dir": tmp_path}})
    with (
        hold_data_dir(config),
        pytest.raises(StoreError, match="another node runs"),
        lock_data_dir(tmp_path, 0.0),
    ):
        pass


def test_roles_and_names_of_parts() -> None:
    assert chosen_roles("web, receiver") == ("web", "receiver")
    assert chosen_roles(",".join(ROLES)) == ROLES
    assert chosen_instance("", ("worker",)).endswith("-worker")
    assert not chosen_instance("", ROLES).endswith("-receiver")
    assert chosen_instance("gpu-1", ("worker",)) == "gpu-1"
    for wrong in ("", "workers", "worker,x"):
        with pytest.raises(WrongUseError, match="no such roles"):
            chosen_roles(wrong)
    for wrong in ("../x", "a b", "."):
        with pytest.raises(WrongUseError, match="cannot name an instance"):
            chosen_instance(wrong, ROLES)
