"""The state of the storage: all see what the receiver meets, and it ends when its cause does."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.errors import StoreError
from dicom_node.flow import health
from dicom_node.flow.filing import PATIENCE_S
from dicom_node.flow.health import Disk, Health, Trouble, storage_state, trouble_of
from dicom_node.flow.spool import verify
from tests.flow.conftest import STUDY, Node, mr_image
from tests.flow.test_disk import mounted


@pytest.fixture
def seen(node: Node) -> Iterator[Node]:
    """A node whose state others can see."""
    node.ingest.health.open()
    yield node
    node.ingest.stop()


def shown(node: Node) -> Trouble | None:
    return storage_state(node.data_dir).trouble


def refuse(_: Path) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_node_that_is_well_says_so(seen: Node) -> None:
    state = storage_state(seen.data_dir)
    assert state.trouble is None
    told = state.as_dict()
    assert (told["state"], told["problem"], told["advice"]) == ("healthy", None, None)
    assert 0 < state.free_bytes < state.total_bytes


def test_every_trouble_has_words_for_sender_and_administrator() -> None:
    assert set(health.TROUBLES) == set(Trouble)
    for words in health.TROUBLES.values():
        assert words.message.isascii() and len(words.message) <= 64
        assert words.advice


@pytest.mark.parametrize(
    ("number", "trouble"),
    [(errno.ENOSPC, Trouble.DISK_FULL), (errno.EDQUOT, Trouble.DISK_FULL),
     (errno.EROFS, Trouble.READ_ONLY), (errno.EACCES, Trouble.WRITE_FAILED)],
)  # fmt: skip
def test_R3_R4_a_write_that_fails_is_shown_until_one_succeeds(
    seen: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    number: int, trouble: Trouble,
) -> None:  # fmt: skip
    def failing(real: Callable[..., int]) -> Callable[..., int]:
        def call(target: object, *more: object, **named: object) -> int:
            path = Path(f"/proc/self/fd/{target}") if isinstance(target, int) else Path(str(target))
            if path.resolve().suffix == ".log":
                raise OSError(number, os.strerror(number))
            return real(target, *more, **named)

        return call

    seen.ingest._journal.make_ready()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        for name in ("pwritev", "open"):
            patch.setattr(os, name, failing(getattr(os, name)))
        for _ in range(5):
            answer = seen.receive(mr_image())
            assert (answer.status, answer.comment) == (0xA700, health.TROUBLES[trouble].message)
            seen.ingest.look()
        assert shown(seen) is trouble
        assert storage_state(seen.data_dir).since_s == seen.clock.now_s()
    seen.ingest.look()
    assert shown(seen) is None
    assert seen.receive(mr_image()).status == 0
    told = [one.message for one in caplog.records if one.name == "dicom_node.flow.health"]
    assert told == ["storage unhealthy", "storage healthy"], "once, however many instances came"


def test_R4_after_a_failed_sync_nothing_is_stored_before_a_restart(
    seen: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen.send(mr_image()).status == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        assert seen.receive(mr_image(index=1)).status == 0xA700
    seen.ingest.look()
    assert seen.receive(mr_image(index=1)).status == 0xA700
    assert shown(seen) is Trouble.SYNC_FAILED
    assert "restart" in str(storage_state(seen.data_dir).as_dict()["advice"])
    seen.restart_ingest()
    assert shown(seen) is None, "a note counts as long as its receiver lives"
    assert seen.receive(mr_image(index=1)).status == 0


def test_rows_that_do_not_follow_are_shown_until_they_do(
    seen: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(seen.store, "add_instances", refuse)
        assert seen.receive(mr_image()).status == 0
        with pytest.raises(OSError, match="Input/output"):
            seen.ingest.file_pending()
        seen.clock.advance(PATIENCE_S + 1)
        assert seen.receive(mr_image(index=1)).status == 0xA700
        assert shown(seen) in (Trouble.ROWS_WAIT, Trouble.WRITE_FAILED)
        seen.ingest.look()
        assert shown(seen) is Trouble.ROWS_WAIT
    seen.ingest.file_pending()
    seen.ingest.look()
    assert shown(seen) is None


def test_a_nearly_full_disk_is_seen_without_a_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for disk, trouble in (
        (Disk(2**27, 2**40, read_only=False), Trouble.DISK_FULL),
        (Disk(2**27, 2**30, read_only=False), None),
        (Disk(2**39, 2**40, read_only=True), Trouble.READ_ONLY),
    ):
        monkeypatch.setattr(health, "disk_of", lambda _, disk=disk: disk)
        assert storage_state(tmp_path).trouble is trouble


def test_the_worst_of_several_receivers_is_shown(tmp_path: Path) -> None:
    first, second = (Health(tmp_path, ManualClock()) for _ in range(2))
    first.open()
    second.open()
    second.failed(health.StorageTrouble(Trouble.ROWS_WAIT))
    assert storage_state(tmp_path).trouble is Trouble.ROWS_WAIT
    first.failed(health.StorageTrouble(Trouble.SYNC_FAILED))
    assert storage_state(tmp_path).trouble is Trouble.SYNC_FAILED
    first.close()
    assert storage_state(tmp_path).trouble is Trouble.ROWS_WAIT
    second.close()
    assert storage_state(tmp_path).trouble is None
    assert list((tmp_path / "journal").iterdir()) == []


def test_what_a_killed_receiver_left_is_cleared_away(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from dicom_node.clock import SystemClock\n"
        "from dicom_node.flow.health import *\n"
        "made = Health(pathlib.Path(sys.argv[1]), SystemClock()); made.open()\n"
        "made.failed(StorageTrouble(Trouble.SYNC_FAILED)); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = (tmp_path / "journal").iterdir()
    assert b"sync_failed" in left.read_bytes()
    assert storage_state(tmp_path).trouble is None
    new = Health(tmp_path, ManualClock())
    new.open()
    assert not left.exists()
    new.close()


def test_an_error_that_is_not_of_the_disk_says_nothing_of_it() -> None:
    assert trouble_of(ValueError("x")) is None
    assert trouble_of(StoreError("locked")) is None


@pytest.fixture
def thin_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB on a device that has room for 8: it takes more than it can keep."""
    device = tmp_path / "device"
    device.mkdir()
    with mounted(device, "-t", "tmpfs", "-o", "size=8m", "node"):
        image, disk = device / "disk.img", device / "disk"
        with image.open("wb") as file:
            file.truncate(64 * 2**20)
        make = ["mkfs.ext4", "-q", "-O", "^has_journal", str(image)]
        if subprocess.run(make, capture_output=True, check=False).returncode:
            pytest.skip("cannot make a file system here")
        disk.mkdir()
        with mounted(disk, "-o", "loop,errors=continue", str(image)):
            yield disk


def test_G1_R3_a_device_that_is_full_before_its_file_system(thin_disk: Path) -> None:
    node = Node(thin_disk / "data", ManualClock())
    node.ingest.health.open()
    acknowledged: list[str] = []
    for index in range(60):
        image = mr_image(index=index, PixelData=os.urandom(200_000))
        answer = node.receive(image)
        if answer.status:
            break
        acknowledged.append(str(image.SOPInstanceUID))
    assert 0 < len(acknowledged) < 60
    assert answer.comment == "the disk is nearly full"
    state = storage_state(node.data_dir)
    assert state.trouble is Trouble.DISK_FULL
    assert state.free_bytes > 2**24, "the file system knows nothing of it"
    node.ingest.look()
    assert shown(node) is Trouble.DISK_FULL, "a write is tried, and fails"
    subprocess.run(["mount", "-o", "remount,size=64m", str(thin_disk.parent)], check=True)
    for _ in range(3):  # a batch may meet what the device lost before; it is written anew
        with contextlib.suppress(StoreError):
            node.ingest.file_pending()
    node.ingest.look()
    assert shown(node) is None
    rows = node.store.instances_of(STUDY)
    assert acknowledged == [row.sop_instance_uid for row in rows]
    for row in rows:
        verify(node.data_dir, row)
    node.ingest.stop()
    node.store.close()
