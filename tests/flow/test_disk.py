"""A disk that refuses: every file operation of the receive path fails once, and a full file system.

Nothing is acknowledged that is not there afterwards, nothing half-written stays, and the node goes
on by itself once the disk does.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node import durable
from dicom_node.clock import ManualClock
from dicom_node.domain.reasons import Reason
from dicom_node.errors import InputProblem, StoreError
from dicom_node.flow.health import MIN_FREE_SHARE, Trouble, disk_of, storage_state
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.recover import recover
from dicom_node.flow.spool import read_stored, verify
from dicom_node.model_child import _loader
from tests.flow.conftest import SMALL, STUDY, Node, mr_image


class Failing:
    """Lets the ``at``-th of the patched calls fail; counts them all."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number, self.calls = at, number, 0

    def wrap(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.calls += 1
            if self.calls == self.at:
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **named)

        return call


PRIMITIVES = ("open", "write", "pwritev", "fdatasync", "fsync", "sendfile", "statvfs")


def fail_once(patch: pytest.MonkeyPatch, at: int, number: int) -> Failing:
    failing = Failing(at, number)
    for name in PRIMITIVES:
        patch.setattr(os, name, failing.wrap(getattr(os, name)))
    patch.setattr(Path, "rename", failing.wrap(Path.rename))
    patch.setattr(durable, "_syncfs", failing.wrap(durable._syncfs))
    return failing


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_G1_each_file_operation_fails_once(
    node: Node, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    at, calls = 0, 1
    while at < calls:
        at += 1
        study = f"1.2.3.{at}"
        images = [mr_image(index=index, study=study) for index in range(3)]
        with monkeypatch.context() as patch:
            failing = fail_once(patch, at, number)
            sent = [image for image in images if node.receive(image).status == 0]
            try:
                node.ingest.file_pending()
            except (StoreError, OSError):
                assert len(sent) == 3  # one fault: what is not filed was acknowledged before it
        calls = max(failing.calls, calls)
        node.ingest.file_pending()
        if node.ingest.health.trouble is Trouble.SYNC_FAILED:
            assert number == errno.EIO
            assert node.receive(images[0]).status == 0xA700, "until it is restarted"
            node.restart_ingest()
        else:
            assert len(sent) >= 2
        rows = node.store.instances_of(study)
        assert [row.sop_instance_uid for row in rows] == [one.SOPInstanceUID for one in sent]
        for row in rows:
            verify(node.data_dir, row)
    assert at > 15
    assert list(node.data_dir.rglob(f"*{durable.TEMP_SUFFIX}")) == []
    node.ingest._journal.close()
    report = recover(node.store, node.data_dir)
    assert (report.instances_filed, report.files_unreadable, report.files_missing) == (0, 0, 0)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount a file system on a folder; the test is skipped where that may not be done."""
    mount = ["mount", *options, str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB, where the test may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", "size=12m", "node"):
        yield folder


def test_G1_R3_a_full_disk_refuses_and_recovers_by_itself(small_disk: Path) -> None:
    node = Node(small_disk / "data", ManualClock())
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(5 * 2**20))
    acknowledged: list[str] = []
    refused = 0
    for index in range(400):
        image = mr_image(index=index % 200, study=f"1.2.3.{index // 200}")
        status = node.receive(image).status
        assert status in (0, 0xA700)
        if status == 0:
            acknowledged.append(image.SOPInstanceUID)
        refused += status != 0
        if index % 10 == 9:
            node.ingest.file_pending()
    assert refused > 0
    assert storage_state(node.data_dir).trouble is Trouble.DISK_FULL
    ballast.unlink()
    node.ingest.look()
    assert storage_state(node.data_dir).trouble is None
    image = mr_image(study="1.2.3.9")
    assert node.send(image).status == 0
    rows = [row for n in (0, 1, 9) for row in node.store.instances_of(f"1.2.3.{n}")]
    assert [row.sop_instance_uid for row in rows] == [*acknowledged, image.SOPInstanceUID]
    for row in rows:
        verify(node.data_dir, row)
    node.ingest.stop()
    node.store.close()


def test_R3_room_is_kept_for_the_results_of_what_is_in_work(small_disk: Path) -> None:
    node = Node(small_disk / "data", ManualClock())
    node.ingest.health.open()
    assert node.send(mr_image()).status == 0
    disk = disk_of(small_disk)
    floor = int(MIN_FREE_SHARE * disk.total_bytes)
    node.ingest.look()
    assert node.ingest.health.studies_in_work == 1
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(disk.free_bytes - floor - floor // 2))
    node.ingest.look()
    assert storage_state(node.data_dir).trouble is Trouble.DISK_FULL
    assert node.receive(mr_image(index=1)).status == 0xA700
    node.store.hold_study(STUDY, Reason.IDENTITY_CONFLICT)  # nothing is in work any more
    node.ingest.look()
    node.ingest.look()
    assert storage_state(node.data_dir).trouble is None
    assert node.receive(mr_image(index=1)).status == 0
    node.ingest.stop()
    node.store.close()


def test_G1_R4_a_read_only_disk_refuses_and_recovers_by_itself(small_disk: Path) -> None:
    node = Node(small_disk / "data", ManualClock())
    assert node.send(mr_image()).status == 0
    assert node.receive(mr_image(index=1)).status == 0  # acknowledged, not yet filed
    # the kernel leaves a disk writable beneath files that are open for writing
    node.ingest._journal.close()
    node.store.close()
    remount(small_disk, "ro")
    try:
        node.ingest = Ingest(node.store, node.data_dir, node.clock, SMALL)
        with pytest.raises(StoreError):
            node.ingest.start()
        assert node.receive(mr_image(index=2)).status == 0xA700
        assert storage_state(node.data_dir).trouble is Trouble.READ_ONLY
        assert len(node.store.instances_of(STUDY)) == 1
        node.store.close()
    finally:
        remount(small_disk, "rw")
    node.ingest.start()
    assert node.receive(mr_image(index=2)).status == 0
    node.ingest.stop()
    rows = node.store.instances_of(STUDY)
    assert [row.sop_instance_uid for row in rows] == [
        mr_image(index=index).SOPInstanceUID for index in range(3)
    ]
    for row in rows:
        verify(node.data_dir, row)
    node.store.close()


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


@pytest.mark.slow
def test_R5_a_flipped_byte_in_each_of_1000_files_is_found_at_the_claim(node: Node) -> None:
    dice = random.Random(20210812)
    for study in range(10):
        for index in range(100):
            image = mr_image(index=index, study=f"1.2.3.{study}", PixelData=bytes(64))
            assert node.receive(image).status == 0
    node.ingest.file_pending()
    rows = [row for study in range(10) for row in node.store.instances_of(f"1.2.3.{study}")]
    found = 0
    for row in rows:
        path = node.data_dir / row.path
        data = bytearray(path.read_bytes())
        files = {row.sop_instance_uid: {"path": str(path), "sha256": row.dataset_digest}}
        assert _loader(files)(row.sop_instance_uid) == data
        data[dice.randrange(read_stored(path).dataset_offset, len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        with pytest.raises(InputProblem) as caught:
            _loader(files)(row.sop_instance_uid)
        found += caught.value.reason is Reason.HASH_MISMATCH
    assert found == len(rows) == 1000
