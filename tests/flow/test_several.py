"""Several receivers with a journal each, on one data folder: what must not depend on which it was.

The processes themselves: `tests/test_receivers.py`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.status import OUT_OF_RESOURCES
from dicom_node.durable import LogFile
from dicom_node.errors import InputProblem, StoreError, SyncFailed
from dicom_node.flow import journal as journal_module
from dicom_node.flow.health import TROUBLES, Trouble
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.journal import PAGE, Journal, JournalLimits, read_log
from dicom_node.flow.recover import recover
from dicom_node.flow.spool import JOURNAL, read_dataset, spool_files, verify
from tests.flow.conftest import ADC, SMALL, STUDY, T2W, Node, encoded, mr_image, series
from tests.running import wait_until

OF_TWO = replace(SMALL, writers=2)


@pytest.fixture
def other(node: Node) -> Iterator[Ingest]:
    """A second receiver on the data folder of ``node``."""
    second = Ingest(node.store, node.data_dir, node.clock, OF_TWO)
    yield second
    second.stop()


def receive(ingest: Ingest, image: Dataset) -> int:
    syntax = "1.2.840.10008.1.2.1"
    return ingest.accept(
        dataset_bytes=encoded(image, syntax), transfer_syntax_uid=syntax,
        sop_class_uid=image.SOPClassUID, sop_instance_uid=image.SOPInstanceUID,
    ).status  # fmt: skip


def test_the_bounds_are_divided_among_the_receivers() -> None:
    whole = JournalLimits()
    each = whole.shared(4)
    assert 4 * each.total_bytes == whole.total_bytes
    assert 4 * each.log_bytes == whole.log_bytes
    assert each.total_bytes + each.others_bytes == whole.total_bytes
    assert whole.shared(1) == whole


def test_R14_what_two_receivers_left_is_filed_in_order_of_arrival(
    node: Node, other: Ingest
) -> None:
    """The first copy is the one that came first, whichever journal is read first."""
    for number in range(8):
        first, second = (node.ingest, other) if number % 2 else (other, node.ingest)
        assert receive(first, mr_image(index=number)) == 0
        assert receive(second, mr_image(index=number, EchoTime="61")) == 0
    for ingest in (node.ingest, other):
        ingest._journal.close()  # as a kill leaves it
    recover(node.store, node.data_dir)
    kept = [read_dataset(node.data_dir, row) for row in node.store.instances_of(STUDY)]
    assert kept == [encoded(mr_image(index=number)) for number in range(8)]
    assert len(node.store.conflicts_of(STUDY)) == 8
    node.restart_ingest()


def test_R13_the_same_from_both_is_one_row_and_one_file(node: Node, other: Ingest) -> None:
    for image in series(T2W):
        assert receive(node.ingest, image) == 0
        assert receive(other, image) == 0
    other.file_pending()
    node.ingest.file_pending()
    assert len(node.store.instances_of(STUDY)) == len(list(spool_files(node.data_dir))) == 20
    assert node.store.conflicts_of(STUDY) == []


def test_R14_corrected_demographics_count_by_arrival_not_by_row(node: Node, other: Ingest) -> None:
    """The rows of the first sending come last: what was corrected stays in force."""
    for image in series(T2W) + series(ADC):
        assert receive(node.ingest, image) == 0  # its rows wait
    node.clock.advance(60)
    for image in series(T2W, PatientID="P2") + series(ADC, PatientID="P2"):
        assert receive(other, image) == 0
    other.file_pending()
    node.ingest.file_pending()
    for _ in range(3):
        node.clock.advance(11)
        node.evaluate()
    assert {row.identity.patient_id for row in node.store.instances_of(STUDY)} == {"P2"}
    assert node.store.patient_of(STUDY) == "P2"


def test_G1_a_file_that_was_replaced_and_not_kept_by_the_disk_is_written_again(
    node: Node, other: Ingest
) -> None:
    """A second copy by another receiver may replace a file; then the power goes."""
    assert receive(node.ingest, mr_image()) == 0
    assert receive(other, mr_image()) == 0
    node.ingest.file_pending()
    (row,) = node.store.instances_of(STUDY)
    place = node.data_dir / row.path
    other._journal.close()  # its record stands; its file was renamed into place, and lost
    place.write_bytes(place.read_bytes()[:2000] + bytes(5000))
    with pytest.raises(InputProblem, match="no longer equals"):
        verify(node.data_dir, row)
    recover(node.store, node.data_dir)
    verify(node.data_dir, row)
    assert len(node.store.instances_of(STUDY)) == 1


def test_G1_a_receiver_that_lives_files_what_one_left_that_is_gone(
    node: Node, other: Ingest
) -> None:
    assert receive(node.ingest, mr_image()) == 0
    other.look()
    assert node.store.instances_of(STUDY) == []  # the journal of one that lives
    node.ingest._journal.close()
    other.look()
    assert len(node.store.instances_of(STUDY)) == 1
    node.restart_ingest()


def test_G1_what_the_database_did_not_take_at_first_is_filed_without_a_new_image(
    node: Node, other: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the database is away", "wait")

    other.start()
    assert receive(node.ingest, mr_image()) == 0
    with monkeypatch.context() as away:
        away.setattr(node.store, "add_instances", fail)
        node.ingest._journal.close()
        other.look()
        assert node.store.instances_of(STUDY) == []
    wait_until(lambda: node.store.instances_of(STUDY), 60, "the row")
    node.restart_ingest()


def test_G1_logs_that_cannot_be_read_now_are_found_at_the_next_look(
    node: Node, other: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, receiver in enumerate((node.ingest, other)):
        assert receive(receiver, mr_image(index=number)) == 0
        receiver._journal.close()
    third, read = Journal(node.data_dir / JOURNAL, OF_TWO), iter((read_log, None))

    def fails_once(file: LogFile) -> object:
        now = next(read, read_log)
        if now is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return now(file)

    monkeypatch.setattr(journal_module, "read_log", fails_once)
    with pytest.raises(OSError, match="Input/output"):
        list(third.leftovers())
    assert sum(map(len, third.leftovers())) == 2
    third.close()
    node.restart_ingest()


def test_a_log_made_a_moment_ago_is_left_to_its_maker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its lock it has no size: who tried the lock would take it away."""
    folder = tmp_path / "journal"
    journal = Journal(folder, OF_TWO)
    (folder / "new-aa.log").touch()
    tried: list[LogFile] = []
    monkeypatch.setattr(LogFile, "lock", lambda log: tried.append(log) or True)
    assert list(journal.leftovers()) == []
    assert tried == []
    journal.close()


def test_R4_a_failed_sync_of_one_is_the_trouble_of_all(node: Node, other: Ingest) -> None:
    node.ingest.health.open()
    node.ingest.health.failed(SyncFailed("cannot sync", "check the disk"))
    assert receive(other, mr_image()) == 0  # its own syncs were good until it looks
    other.look()
    assert other.health.trouble is Trouble.SYNC_FAILED
    assert receive(other, mr_image(index=1)) == OUT_OF_RESOURCES
    assert TROUBLES[Trouble.SYNC_FAILED].message
    node.ingest.health.close()


def test_a_log_that_is_being_made_is_nobodys_leftover(tmp_path: Path) -> None:
    """A kill leaves it under its first name; the next start deletes it."""
    folder = tmp_path / "journal"
    folder.mkdir()
    making = LogFile(folder / "new-aa.log", 4 * PAGE)
    journal = Journal(folder, replace(SMALL, log_bytes=8 * PAGE))
    assert list(journal.leftovers()) == []
    assert making.path.exists()
    making.close()
    assert list(journal.leftovers()) == []
    assert not making.path.exists()
    journal.close()


def test_a_log_deleted_by_its_receiver_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    journal = Journal(folder, replace(SMALL, log_bytes=8 * PAGE))
    (folder / "aa.log").write_bytes(bytes(PAGE))
    real = os.open

    def gone(path: Path, *more: int) -> int:
        if str(path).endswith("aa.log"):
            path.unlink()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return real(path, *more)

    monkeypatch.setattr(os, "open", gone)
    assert list(journal.leftovers()) == []
    journal.close()
