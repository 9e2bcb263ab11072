"""What receivers that are gone left in a shared journal: adopted once, never from the living."""

from __future__ import annotations

import threading
from pathlib import Path

from dicom_node.config_sections import StudySection
from dicom_node.durable import TEMP_SUFFIX
from dicom_node.flow import adopt
from dicom_node.flow.adopt import Adoption
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.journal import Journal, JournalLimits
from dicom_node.flow.recover import recover, take_back
from dicom_node.flow.spool import JOURNAL, verify
from tests.flow.conftest import SMALL, STUDY, Node, mr_image, series


def other_receiver(node: Node, images: int) -> Ingest:
    """A second receiver on the same data folder, with instances that it has not filed."""
    mine, node.ingest = node.ingest, Ingest(node.store, node.data_dir, node.clock, SMALL)
    for image in series("t2w", images):
        assert node.receive(image).status == 0
    other, node.ingest = node.ingest, mine
    return other


def logs(node: Node) -> list[Path]:
    return sorted((node.data_dir / JOURNAL).glob("*.log"))


def test_G1_what_a_dead_receiver_acknowledged_is_filed_by_another(node: Node) -> None:
    other = other_receiver(node, 3)
    adoption = Adoption(node.store, node.data_dir, node.clock)
    assert adoption.adopt() == 0, "its receiver lives"
    other._journal.close()  # as its process ends: the locks fall, nothing is filed
    assert adoption.adopt() == 3
    rows = node.store.headers_of(STUDY)
    assert len(rows) == 3
    for row in rows:
        verify(node.data_dir, row)
    assert adoption.adopt() == 0
    assert logs(node) == []


def test_an_adopted_log_is_deleted_and_those_of_the_living_stay(node: Node) -> None:
    assert node.receive(mr_image("adc")).status == 0
    own = logs(node)
    other = other_receiver(node, 2)
    other._journal.close()
    assert len(logs(node)) > len(own)
    assert Adoption(node.store, node.data_dir, node.clock).adopt() == 2
    assert logs(node) == own
    node.ingest.file_pending()
    assert len(node.store.headers_of(STUDY)) == 3


def test_a_start_beside_others_takes_nothing_from_them(node: Node) -> None:
    other = other_receiver(node, 2)
    folder = node.data_dir / "spool" / "aa" / "bb"
    folder.mkdir(parents=True)
    being_written = folder / f".x{TEMP_SUFFIX}"
    being_written.write_bytes(b"half")
    report = recover(node.store, node.data_dir, alone=False)
    assert (report.instances_filed, report.temporary_files_removed) == (0, 0)
    assert being_written.exists()
    other.file_pending()
    assert len(node.store.headers_of(STUDY)) == 2
    assert recover(node.store, node.data_dir).temporary_files_removed == 1


def test_the_log_of_a_receiver_is_locked_before_anybody_can_take_it(tmp_path: Path) -> None:
    """Receivers that start together beside one that adopts: no log has two owners."""
    folder = tmp_path / "journal"
    made = [Journal(folder, SMALL) for _ in range(3)]
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            adopting = Journal(folder, JournalLimits(kept_logs=0))
            assert list(adopting.leftovers()) == []
            adopting.close()

    looking = threading.Thread(target=look)
    looking.start()
    starting = [threading.Thread(target=journal.make_ready) for journal in made]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    stop.set()
    looking.join()
    owned = [file.path for journal in made for file in journal._open]
    assert len(owned) == len(set(owned)) == 6
    assert all(path.exists() for path in owned), "nobody took a log that has an owner"
    for journal in made:
        journal.close()


def test_the_look_ends_with_its_receiver(node: Node) -> None:
    stop = threading.Event()
    stop.set()
    Adoption(node.store, node.data_dir, node.clock).run(stop)
    assert StudySection().quiet_s > adopt.LOOK_S, "a study waits for what another receiver had"


def test_a_part_without_a_receiver_takes_back_its_own_work_alone(node: Node) -> None:
    node.send_all([*series("t2w"), *series("adc")])
    node.clock.advance(60)
    node.evaluate()
    assert node.store.claim_ready("worker-0") is not None
    before_s = node.store.last_boot_s()
    assert take_back(node.store) == 1
    assert node.store.last_boot_s() == before_s, "nobody looked through the spool"
    assert node.state()[1] == "ready"
