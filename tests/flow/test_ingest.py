"""The receive path."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_node import crash_points, durable
from dicom_node.clock import ManualClock
from dicom_node.domain.reasons import Reason
from dicom_node.durable import SyncBatch
from dicom_node.errors import InputProblem, StoreError
from dicom_node.flow import health
from dicom_node.flow import ingest as ingest_module
from dicom_node.flow.journal import Journal
from dicom_node.flow.recover import recover
from dicom_node.flow.spool import read_dataset, read_stored, spool_files, verify
from dicom_node.results.equipment import MANUFACTURER, MODEL_NAME
from tests.conftest import ROOT
from tests.flow.conftest import ADC, MR, STUDY, T2W, Node, encoded, mr_image, series
from tests.fuzz.datasets import Tree, decode

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def files(node: Node) -> list[Path]:
    return list(spool_files(node.data_dir))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_bytes_are_stored_as_received(node: Node, syntax: str) -> None:
    image = mr_image()
    assert node.send(image, syntax).status == 0
    (row,) = node.store.instances_of(STUDY)
    assert read_dataset(node.data_dir, row) == encoded(image, syntax)
    stored = pydicom.dcmread(node.data_dir / row.path)
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored.PatientName == "Test^Patient"
    source = read_stored(node.data_dir / row.path).source
    assert (source.calling_ae, source.called_ae, source.address) == (
        "MR1", "PROSTATE_AI", "10.0.0.1",
    )  # fmt: skip
    assert source.received_at_s == node.clock.now_s()


def test_G1_success_only_after_the_journal_is_synced(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    node.send(mr_image(index=1))  # folders and the log are made
    monkeypatch.setattr(os, "pwritev", told(calls, "write", os.pwritev))
    monkeypatch.setattr(os, "fdatasync", told(calls, "sync", os.fdatasync))
    answer = node.receive(mr_image())
    calls.append(f"answer {answer.status:#06x}")
    assert calls == ["write", "write", "sync", "answer 0x0000"]  # header of the log, record
    assert [row.sop_instance_uid for row in node.store.instances_of(STUDY)] == [
        mr_image(index=1).SOPInstanceUID
    ]


def test_G1_the_journal_forgets_only_after_files_and_rows_are_durable(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.ingest._journal.make_ready()  # a log is renamed too
    calls: list[str] = []
    monkeypatch.setattr(Path, "rename", told(calls, "rename", Path.rename))
    monkeypatch.setattr(SyncBatch, "sync", told(calls, "sync", SyncBatch.sync))
    monkeypatch.setattr(node.store, "add_instances", told(calls, "rows", node.store.add_instances))
    monkeypatch.setattr(Journal, "filed", told(calls, "forget", Journal.filed))
    for index in range(2):
        node.receive(mr_image(index=index))
    node.ingest.file_pending()
    assert calls == ["rename", "rename", "sync", "rows", "forget"]


def told(calls: list[str], name: str, real: Callable[..., object]) -> Callable[..., object]:
    def call(*arguments: object, **named: object) -> object:
        calls.append(name)
        return real(*arguments, **named)

    return call


def fails(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["pwritev", "fdatasync", "statvfs"])
def test_G1_no_success_when_the_journal_fails(
    node: Node, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    node.receive(mr_image(index=1))  # acknowledged in a log that fails afterwards
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fails)
        assert node.receive(mr_image()).status == ingest_module.OUT_OF_RESOURCES
    node.ingest.file_pending()
    assert len(node.store.instances_of(STUDY)) == 1
    assert node.send(mr_image()).status == 0
    assert len(node.store.instances_of(STUDY)) == 2


def test_a_failed_sync_is_not_tried_again_on_the_same_file(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def once(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        if len(synced) == 1:
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fdatasync", once)
    for _ in range(3):
        assert node.receive(mr_image()).status == 0xA700, "nothing more until it is restarted"
    assert len(synced) == 1
    node.restart_ingest()
    assert node.receive(mr_image()).status == 0
    assert synced[0] not in synced[1:]


@pytest.mark.parametrize("owner, name", [(os, "sendfile"), (Path, "rename"), (SyncBatch, "sync")])
def test_G1_filing_that_fails_is_made_good(
    node: Node, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    node.send(mr_image(index=5))  # the folder of the study is made
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        assert node.receive(mr_image()).status == 0
        with pytest.raises((StoreError, OSError)):
            node.ingest.file_pending()
    assert len(node.store.instances_of(STUDY)) == 1
    assert [p for p in node.data_dir.rglob("*") if p.name.endswith(".part")] == []
    node.ingest.file_pending()
    assert len(node.store.instances_of(STUDY)) == 2


def test_G1_rows_that_do_not_follow_end_in_a_refusal(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(node.store, "add_instances", lambda _: (_ for _ in ()).throw(StoreError("x")))
        assert node.receive(mr_image()).status == 0
        with pytest.raises(StoreError):
            node.ingest.file_pending()
        assert node.receive(mr_image(index=1)).status == 0
        node.clock.advance(61)
        assert node.receive(mr_image(index=2)).status == ingest_module.OUT_OF_RESOURCES
    node.ingest.file_pending()
    assert len(node.store.instances_of(STUDY)) == 2
    assert node.receive(mr_image(index=2)).status == 0


def test_G5_a_nearly_full_disk_refuses_early(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "disk_of", lambda _: health.Disk(1000, 10**12, read_only=False))
    assert node.send(mr_image()).status == 0xA700
    assert files(node) == []


@pytest.mark.parametrize(
    ("uid", "status"),
    [("../../../etc/x", 0x0117), ("..", 0x0117), ("", 0x0117), ("A" * 64, 0x0117),
     ("1.2.3\x00", 0x0117), ("1." + "2" * 64, 0x0117), ("1.2.3.4", 0xA900)],
)  # fmt: skip
def test_hostile_and_wrong_uids_are_refused(node: Node, uid: str, status: int) -> None:
    answer = node.ingest.accept(
        dataset_bytes=encoded(mr_image()), transfer_syntax_uid=ExplicitVRLittleEndian,
        sop_class_uid=MR, sop_instance_uid=uid,
    )  # fmt: skip
    assert answer.status == status
    assert files(node) == []


def test_another_class_than_the_command_names_is_refused(node: Node) -> None:
    image = mr_image()
    answer = node.ingest.accept(
        dataset_bytes=encoded(image), transfer_syntax_uid=ExplicitVRLittleEndian,
        sop_class_uid=SEG, sop_instance_uid=image.SOPInstanceUID,
    )  # fmt: skip
    assert answer.status == 0xA900


def test_a_class_that_is_no_uid_is_refused_though_the_command_names_it_too(node: Node) -> None:
    image = mr_image()
    data = encoded(image).replace(MR.encode(), b"1.2.840.10008\0.5.1.4.1.4")
    answer = node.ingest.accept(
        dataset_bytes=data, transfer_syntax_uid=ExplicitVRLittleEndian,
        sop_class_uid="1.2.840.10008\0.5.1.4.1.4", sop_instance_uid=image.SOPInstanceUID,
    )  # fmt: skip
    assert (answer.status, files(node)) == (0xC000, [])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_G1_no_character_set_makes_a_text_that_cannot_be_stored(node: Node) -> None:
    """Such a row would keep all that follow from being filed, after a restart too."""
    image = mr_image()
    data = Tree(decode(encoded(image)))
    data.put(0x00080005, b"CS", b"unicode_escape")
    data.put(0x00100020, b"LO", b"\\ud800\xe9 ")
    answer = node.ingest.accept(
        dataset_bytes=data.bytes(), transfer_syntax_uid=ExplicitVRLittleEndian,
        sop_class_uid=MR, sop_instance_uid=image.SOPInstanceUID,
    )  # fmt: skip
    assert answer.status == 0
    assert node.send(mr_image(index=1)).status == 0
    assert len(node.store.instances_of(STUDY)) == 2


def test_what_is_no_data_set_is_refused(node: Node) -> None:
    for data in (b"", b"junk" * 100, encoded(mr_image())[:300], os.urandom(2000)):
        answer = node.ingest.accept(
            dataset_bytes=data, transfer_syntax_uid=ExplicitVRLittleEndian,
            sop_class_uid=MR, sop_instance_uid="1.2.3",
        )  # fmt: skip
        assert answer.status >> 12 in (0xA, 0xC)
    assert files(node) == []


def test_the_same_instance_again_is_success_without_a_second_row(node: Node) -> None:
    for _ in range(3):
        assert node.send(mr_image()).status == 0
    assert len(node.store.instances_of(STUDY)) == 1
    assert len(files(node)) == 1


def test_the_same_instance_at_once_from_many_senders(node: Node) -> None:
    images = [mr_image(), mr_image(PatientComments="b"), mr_image(PatientComments="c")] * 4
    with ThreadPoolExecutor(8) as pool:
        assert {one.status for one in pool.map(node.send, images)} == {0}
    (row,) = node.store.instances_of(STUDY)
    verify(node.data_dir, row)  # the kept row has the kept bytes, whoever was first
    assert len(node.store.conflicts_to_judge()) == 2
    assert len(files(node)) == 3


def test_the_same_data_set_in_another_syntax_is_the_same(node: Node) -> None:
    node.send(mr_image())
    node.send(mr_image(), ImplicitVRLittleEndian)
    packed = mr_image()
    packed.file_meta = pydicom.dataset.FileMetaDataset()
    packed.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    packed.compress(RLELossless, generate_instance_uid=False)
    node.send(packed, RLELossless)
    node.evaluate()
    assert Counter(one.verdict for one in node.store.conflicts_of(STUDY)) == {"same": 2}
    assert node.state() == (1, "receiving", None)


def test_other_pixels_under_one_uid_hold_the_study(node: Node) -> None:
    node.send_all(series(T2W) + series(ADC))
    assert node.send(mr_image(PixelData=b"\1\0" * 10_000)).status == 0
    node.clock.advance(11)
    node.evaluate()
    assert node.state() == (1, "held", "same_uid_other_bytes")
    kept = node.store.find_instance(STUDY, mr_image().SOPInstanceUID)
    assert kept is not None
    assert read_dataset(node.data_dir, kept) == encoded(mr_image())
    assert len(files(node)) == 41
    node.store.retry(STUDY)
    node.evaluate()
    assert node.state()[1] == "ready"


def test_a_copy_that_cannot_be_compared_holds_the_study(node: Node) -> None:
    node.send(mr_image())
    broken = mr_image()
    broken.PixelData = b"\0" * 32
    assert node.send(broken, ExplicitVRLittleEndian).status == 0
    node.evaluate()
    assert node.state()[1] == "held"


def test_own_objects_are_acknowledged_and_forgotten(node: Node) -> None:
    """Known by our equipment, where nobody edits them: pages and maps."""
    node.send(mr_image())
    own = mr_image(
        index=7, SOPClassUID=SECONDARY_CAPTURE, Modality="OT", Manufacturer=MANUFACTURER,
        ManufacturerModelName=MODEL_NAME,
    )  # fmt: skip
    before = node.store.studies_to_evaluate(node.clock.now_s() + 100, 0)
    for _ in range(3):
        assert node.send(own).status == 0
    assert len(node.store.instances_of(STUDY)) == 1
    assert node.store.studies_to_evaluate(node.clock.now_s() + 100, 0) == before
    assert [e["event"] for e in node.store.timeline(STUDY)].count("own_object") == 1


@pytest.mark.parametrize("sop_class", [SECONDARY_CAPTURE, SEG])
def test_own_objects_of_a_study_it_does_not_know_open_nothing(node: Node, sop_class: str) -> None:
    own = mr_image(
        SOPClassUID=sop_class, Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL_NAME
    )
    assert node.send(own).status == 0
    assert node.store.studies_list() == []


def test_a_changed_file_is_found(node: Node) -> None:
    node.send(mr_image())
    (row,) = node.store.instances_of(STUDY)
    path = node.data_dir / row.path
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputProblem) as caught:
        verify(node.data_dir, row)
    assert caught.value.reason is Reason.HASH_MISMATCH
    path.unlink()
    with pytest.raises(InputProblem):
        verify(node.data_dir, row)


SENDER = """
import sys
from pathlib import Path
from dicom_node.clock import SystemClock
from tests.flow.conftest import Node, mr_image
node = Node(Path(sys.argv[1]), SystemClock())
for index in range(8):
    if node.receive(mr_image(index=index)).status == 0:
        print(mr_image(index=index).SOPInstanceUID, flush=True)
    if index % 2:
        node.ingest.file_pending()
"""


@pytest.mark.parametrize("hit", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("point", crash_points.RECEIVE_POINTS)
def test_G1_a_crash_at_any_point_loses_nothing_acknowledged(
    tmp_path: Path, point: str, hit: int
) -> None:
    folder = tmp_path / "data"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        crash_points.FAULT_ENV: f"{point}:{hit}",
    }  # fmt: skip
    died = subprocess.run(
        [sys.executable, "-c", SENDER, folder], env=environment, check=False, text=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert died.returncode == crash_points.FAULT_EXIT_STATUS, died.stderr
    acknowledged = set(died.stdout.split())
    node = Node(folder, ManualClock())
    report = recover(node.store, folder)
    assert report.files_missing == report.files_unreadable == 0
    rows = node.store.instances_of(STUDY)
    assert acknowledged <= {row.sop_instance_uid for row in rows}
    assert len(rows) in (len(acknowledged), len(acknowledged) + 1)
    for row in rows:
        verify(folder, row)
    assert not list(folder.rglob(f"*{durable.TEMP_SUFFIX}"))
    node.send_all([mr_image(index=index) for index in range(8)])  # the sender tries again
    assert len(node.store.instances_of(STUDY)) == 8
    node.store.close()


def test_unknown_crash_points_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown crash point"):
        crash_points.fault("no such point")


def test_names_of_files_come_from_digests(node: Node) -> None:
    node.send(mr_image())
    (path,) = files(node)
    study = hashlib.sha256(STUDY.encode()).hexdigest()
    assert path.parent == node.data_dir / "spool" / study[:2] / study
    assert path.name.startswith(hashlib.sha256(mr_image().SOPInstanceUID.encode()).hexdigest())
