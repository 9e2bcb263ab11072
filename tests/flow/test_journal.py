"""The journal: what a crash leaves in it, whatever place of it is damaged."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.errors import StoreError
from dicom_node.flow.journal import PAGE, Journal, JournalLimits, Record
from dicom_node.flow.recover import recover
from dicom_node.flow.spool import verify
from tests.flow.conftest import STUDY, Node, mr_image

LIMITS = JournalLimits(log_bytes=16 * PAGE, total_bytes=40 * PAGE, kept_logs=1, wait_s=0.1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal", LIMITS)
    yield made
    made.close()


def put(journal: Journal, number: int, size: int = 100) -> Record:
    data = bytes([number]) * size
    return journal.append(b"head", data, hashlib.sha256(data).digest())


def logs(journal: Journal) -> list[Path]:
    return sorted(journal._folder.iterdir())


def left(folder: Path) -> list[int]:
    """First byte of each instance that a new journal finds; files them."""
    journal = Journal(folder, LIMITS)
    found = []
    for records in journal.leftovers():
        found += [record.read_data()[0] for record in records]
        journal.filed(records)
    journal.close()
    return found


def test_G1_what_was_not_filed_is_found_in_order(journal: Journal, tmp_path: Path) -> None:
    for number in range(40):
        put(journal, number)
    journal.close()
    assert left(tmp_path / "journal") == list(range(40))
    assert left(tmp_path / "journal") == []


def test_what_was_filed_is_forgotten_and_its_log_used_again(journal: Journal) -> None:
    for number in range(100):
        journal.filed([put(journal, number)])
    assert len(logs(journal)) == 1
    assert journal.waiting_bytes == 0


def test_records_of_an_earlier_use_of_a_log_do_not_come_back(
    journal: Journal, tmp_path: Path
) -> None:
    journal.filed([put(journal, number) for number in range(10)])
    put(journal, 50)
    assert len(logs(journal)) == 1
    journal.close()
    assert left(tmp_path / "journal") == [50]


@pytest.mark.parametrize("place", range(0, 3 * PAGE, 1021))
def test_G1_damage_at_one_place_costs_one_record_at_most(
    journal: Journal, tmp_path: Path, place: int
) -> None:
    for number in range(4):
        put(journal, number, 5000)
    (path,) = logs(journal)
    journal.close()
    data = bytearray(path.read_bytes())
    data[PAGE + place] ^= 1
    path.write_bytes(data)
    found = left(tmp_path / "journal")
    assert found in ([0, 1, 2, 3], [1, 2, 3], [0, 2, 3])
    assert found != [0, 1, 2, 3] or place % (2 * PAGE) > 5000  # the zeros behind a record


def test_a_log_that_was_never_begun_or_cut_short_is_no_trouble(
    journal: Journal, tmp_path: Path
) -> None:
    put(journal, 7)
    journal.close()
    (tmp_path / "journal" / "aa.log").write_bytes(b"")
    (tmp_path / "journal" / "bb.log").write_bytes(b"junk" * 5000)
    assert left(tmp_path / "journal") == [7]


def test_the_logs_of_another_receiver_are_left_alone(journal: Journal, tmp_path: Path) -> None:
    put(journal, 1)
    assert left(tmp_path / "journal") == []
    journal.close()
    assert left(tmp_path / "journal") == [1]


def test_an_instance_larger_than_a_log_has_one_of_its_own(journal: Journal) -> None:
    record = put(journal, 2, 100 * PAGE)
    assert record.read_data() == bytes([2]) * 100 * PAGE
    journal.filed([record])
    put(journal, 3)
    assert [path.stat().st_size for path in logs(journal)] == [LIMITS.log_bytes]


def test_G5_a_full_journal_refuses_until_there_is_room(journal: Journal) -> None:
    records = []
    with pytest.raises(StoreError, match="full"):
        for number in range(100):
            records.append(put(journal, number, 2 * PAGE))
    assert len(records) < 21
    journal._limits = replace(LIMITS, wait_s=60)
    waiting = threading.Timer(0.02, lambda: journal.filed(records[:5]))
    waiting.start()
    put(journal, 100)
    waiting.join()


def test_many_threads_share_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", JournalLimits(log_bytes=64 * PAGE))
    threads = [
        threading.Thread(target=lambda n=n: [put(journal, n) for _ in range(25)])  # type: ignore[misc]
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert sorted(left(tmp_path / "journal")) == sorted(list(range(8)) * 25)


def test_G1_the_start_files_what_was_acknowledged(node: Node) -> None:
    for index in range(20):
        assert node.receive(mr_image(index=index)).status == 0
    node.ingest._journal.close()  # as if the process had died
    report = recover(node.store, node.data_dir)
    assert (report.instances_filed, report.instances_restored) == (20, 0)
    rows = node.store.instances_of(STUDY)
    assert [row.sop_instance_uid for row in rows] == [
        mr_image(index=index).SOPInstanceUID for index in range(20)
    ]
    for row in rows:
        verify(node.data_dir, row)
    assert recover(node.store, node.data_dir).instances_filed == 0


def test_G1_a_receiver_that_starts_again_files_before_its_port_opens(node: Node) -> None:
    node.receive(mr_image())
    node.ingest._journal.close()
    node.open()
    node.ingest.start()
    assert len(node.store.instances_of(STUDY)) == 1
    node.receive(mr_image(index=1))
    node.ingest.stop()
    assert len(node.store.instances_of(STUDY)) == 2
