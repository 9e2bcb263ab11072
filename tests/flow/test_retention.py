"""Retention on files and rows: what goes is gone, what stays is whole, a crash changes neither."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node import crash_points
from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig, RetentionSection
from dicom_node.durable_trees import remove_files
from dicom_node.errors import NodeError
from dicom_node.flow import retention as retention_module
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.export import export_study
from dicom_node.flow.health import Disk
from dicom_node.flow.outbox import MANIFEST, results_folder, write_manifests
from dicom_node.flow.pledge import NO_SUCH_INSTANCE, what_is_held
from dicom_node.flow.rebuild import rebuild
from dicom_node.flow.recover import recover
from dicom_node.flow.retention import LEASE_S, TURN, Retention, plan
from dicom_node.flow.spool import RESULTS, SPOOL, verify
from dicom_node.store.rows import Destination, PledgeRow, ResultRow
from dicom_node.store.store import Store
from tests.conftest import ROOT
from tests.databases import open_store
from tests.flow.conftest import ADC, T2W, Node, encoded, mr_image, series

DAY_S = 86_400.0
PACS = Destination("pacs", ("sr",))
SR = "1.2.840.10008.5.1.4.1.1.88.34"
OLD, YOUNG = "1.2.3.1", "1.2.3.2"
SLICES = 14


def study(uid: str) -> list:
    return [*series(T2W, SLICES, uid), *series(ADC, SLICES, uid)]


def receive(node: Node, uid: str) -> None:
    node.send_all(study(uid))
    node.clock.advance(node.config.study.quiet_s + 1)
    node.evaluate()
    assert node.state(uid)[1] == "ready"


def deliver(node: Node, uid: str) -> Path:
    """Let the study end as one that was analysed and delivered; returns its result."""
    claim = node.store.claim_ready("worker-0")
    assert claim is not None and claim.study_uid == uid
    folder = node.data_dir / results_folder(uid, claim.number)
    folder.mkdir(parents=True)
    content = f"report of {uid} {claim.number}".encode()
    (folder / "sr.dcm").write_bytes(content)
    (folder / "result.json").write_text("{}")
    row = ResultRow(
        "sr", SR, f"{uid}.9.{claim.number}", f"{uid}.8",
        f"{results_folder(uid, claim.number)}/sr.dcm", hashlib.sha256(content).hexdigest(),
        len(content),
    )  # fmt: skip
    node.store.finish_analysed(claim, [row], [PACS])
    for one in node.store.claim_deliveries("pacs", "d"):
        node.store.delivery_sent(one)
    node.store.end_checks("pacs", "off")
    write_manifests(node.store, node.data_dir)
    assert node.state(uid)[1] == "delivered"
    return folder / "sr.dcm"


def sweep(node: Node, store: Store | None = None) -> list[str]:
    store = store or node.store
    trail = AuditTrail(store, node.config, node.clock)
    gone = Retention(store, node.config, node.clock, trail).sweep()
    write_manifests(store, node.data_dir)
    trail.flush()
    return [one.study_uid for one in gone]


def files(node: Node) -> set[str]:
    """Images and results on the disk."""
    return {
        str(path.relative_to(node.data_dir))
        for part in (SPOOL, RESULTS)
        for path in (node.data_dir / part).rglob("*.*")
        if path.name != MANIFEST
    }


def whole(node: Node) -> None:
    """Every row that counts on a file has it, and every file has such a row or is to go."""
    counted = set()
    for shown in node.store.studies_list():
        for row in node.store.instances_of(shown["study_uid"]):
            if row.removed_at_s is None:
                verify(node.data_dir, row)
                counted.add(row.path)
        counted |= {one.path for one in node.store.conflicts_of(shown["study_uid"])}
    spool = {name for name in files(node) if name.startswith(SPOOL)}
    assert spool == counted


@pytest.fixture
def delivered(node: Node) -> Node:
    """Two delivered studies, 100 days apart; retention looks as the second is a day old."""
    for uid in (OLD, YOUNG):
        receive(node, uid)
        deliver(node, uid)
        node.clock.advance(100 * DAY_S if uid == OLD else DAY_S)
    return node


def test_images_go_by_age_and_the_story_stays(delivered: Node) -> None:
    node = delivered
    (planned,) = plan(node.store, node.config, node.clock)
    assert (planned.kept.study_uid, planned.images, planned.results) == (OLD, True, False)
    before = {row.sop_instance_uid: row for row in node.store.instances_of(OLD)}
    assert planned.freed_bytes == sum(row.size for row in before.values())
    held = node.store.status()["held"]
    assert sweep(node) == [OLD]
    whole(node)
    now = node.store.status()["held"]
    assert held["bytes"] - now["bytes"] == planned.freed_bytes
    after = {row.sop_instance_uid: row for row in node.store.instances_of(OLD)}
    assert {uid: replace(row, removed_at_s=None) for uid, row in after.items()} == before
    (shown,) = node.store.studies_show(OLD)
    assert (shown["state"], shown["instances"]) == ("delivered", 2 * SLICES)
    assert shown["images_removed_at"] and not shown["results_removed_at"]
    assert (node.data_dir / results_folder(OLD, 1) / "sr.dcm").exists()
    assert not any((node.data_dir / row.path).parent.exists() for row in after.values())
    assert node.store.audit_last("study_deleted") is not None
    assert sweep(node) == [], "once"
    node.clock.advance(300 * DAY_S)
    assert sweep(node) == [YOUNG, OLD], "images first, then results"
    assert not (node.data_dir / results_folder(OLD, 1) / "sr.dcm").exists()
    assert node.store.known_result(f"{OLD}.9.1"), "recognised when it comes back"


def test_what_is_asked_of_a_removed_study_says_so(delivered: Node, tmp_path: Path) -> None:
    node = delivered
    sweep(node)
    with pytest.raises(NodeError, match=r"removed on 20.* by retention"):
        export_study(node.store, node.config, OLD, tmp_path / "out")
    references = tuple((row.sop_class_uid, row.sop_instance_uid)
                       for uid in (OLD, YOUNG) for row in node.store.instances_of(uid))  # fmt: skip
    asked = PledgeRow(1, "pacs", "1.9", references, 1, node.clock.now_s())
    report = what_is_held(node.store, node.data_dir, asked)
    assert {uid.startswith(YOUNG) for uid in report.kept} == {True}
    assert {reason for _, reason in report.failed.values()} == {NO_SUCH_INSTANCE}
    assert len(report.kept) == len(report.failed) == 2 * SLICES


def test_late_images_of_a_removed_study_begin_nothing(delivered: Node) -> None:
    node = delivered
    sweep(node)
    again = [
        mr_image(
            T2W, index, OLD, SLICES, SeriesInstanceUID=f"{OLD}.12", SeriesNumber=12,
            SOPInstanceUID=f"{OLD}.12.{index}", AcquisitionTime="111111",
        )
        for index in range(SLICES)
    ]  # fmt: skip
    node.send_all(again)
    node.clock.advance(node.config.study.patience_s * 2)
    node.evaluate()
    assert node.state(OLD) == (1, "delivered", None)
    events = [event["event"] for event in node.store.timeline(OLD)]
    assert events[-2:] == ["images_back", "late_image"]
    whole(node)


def test_a_removed_study_that_comes_again_is_whole_again(delivered: Node) -> None:
    node = delivered
    sweep(node)
    node.send_all(study(OLD))
    whole(node)
    assert not node.store.studies_show(OLD)[0]["images_removed_at"]
    node.clock.advance(node.config.study.patience_s * 2)
    node.evaluate()
    assert node.state(OLD) == (1, "delivered", None), "the result stands"
    node.clock.advance(91 * DAY_S)
    assert OLD in sweep(node), "its age counts from when it came back"


def test_with_its_results_gone_too_it_is_analysed_anew(delivered: Node) -> None:
    node = delivered
    node.clock.advance(300 * DAY_S)
    sweep(node)
    assert node.store.studies_show(OLD)[0]["results_removed_at"]
    with pytest.raises(NodeError, match="results of this study were removed on"):
        node.store.send_again(OLD)
    node.send_all(study(OLD))
    node.clock.advance(node.config.study.patience_s * 2)
    node.evaluate()
    assert node.state(OLD)[:2] == (2, "ready")
    deliver(node, OLD)
    whole(node)


def test_a_waiting_study_and_what_a_destination_waits_for_stay(node: Node) -> None:
    receive(node, OLD)  # never claimed
    node.send(mr_image(study=YOUNG))  # never complete, never looked at
    node.clock.advance(4000 * DAY_S)
    assert list(plan(node.store, node.config, node.clock)) == []
    assert sweep(node) == []


def test_a_disk_short_of_room_takes_the_oldest_images_first(
    delivered: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = delivered
    node.config = NodeConfig.model_validate(
        {"node": {"data_dir": node.data_dir},
         "retention": {"images_days": 5000, "least_days": 0.5, "floor_gib": 10}}
    )  # fmt: skip
    stored = node.store.stored_bytes()
    free = [9 * 2**30]

    def disk(_folder: Path) -> Disk:
        freed = stored - node.store.stored_bytes()
        return Disk(free[0] + (2 * 2**30 if freed else 0), 2**40, read_only=False)

    monkeypatch.setattr(retention_module, "disk_of", disk)
    assert sweep(node) == [OLD], "one was enough"
    assert not node.store.studies_show(YOUNG)[0]["images_removed_at"]
    free[0] = 1
    node.clock.advance(-0.6 * DAY_S)
    assert sweep(node) == [], "younger than the least age"


def test_annotated_studies_stay(delivered: Node) -> None:
    node = delivered
    report = mr_image(study=OLD, SOPClassUID=SR, SOPInstanceUID=f"{OLD}.77", Modality="SR")
    assert node.send(report).status == 0
    assert sweep(node) == []
    assert {row.removed_at_s for row in node.store.instances_of(OLD)} == {None}


def test_recover_and_rebuild_after_retention_bring_nothing_back(delivered: Node) -> None:
    node = delivered
    sweep(node)
    node.ingest.stop()
    there = files(node)
    report = recover(node.store, node.data_dir)
    assert (report.instances_restored, report.files_missing, report.files_unreadable) == (0, 0, 0)
    node.store.close()
    (node.data_dir / "node.sqlite3").unlink()
    node.open()
    told = rebuild(node.store, node.data_dir)
    assert (told["revisions_restored"], told["files_missing"]) == (2, 0)
    (shown,) = node.store.studies_show(OLD)
    assert (shown["state"], bool(shown["images_removed_at"])) == ("delivered", True)
    assert files(node) == there


def test_one_at_a_time_and_a_backup_holds_it_off(delivered: Node) -> None:
    node = delivered
    assert node.store.lease(TURN, "backup", LEASE_S)
    retention = Retention(node.store, node.config, node.clock, AuditTrail(
        node.store, node.config, node.clock))  # fmt: skip
    stop = threading.Event()
    for _ in range(3):
        node.clock.advance(150)
        retention.round(stop)
    assert not node.store.studies_show(OLD)[0]["images_removed_at"]
    node.store.end_lease(TURN, "backup")
    retention.round(stop)
    assert node.store.studies_show(OLD)[0]["images_removed_at"]
    assert node.store.lease(TURN, "backup", LEASE_S), "the turn ends with the round"


def test_a_clock_that_is_set_stops_it_for_an_hour(delivered: Node) -> None:
    node = delivered
    node.clock.step_wall(-100 * DAY_S)
    trail = AuditTrail(node.store, node.config, node.clock)
    retention = Retention(node.store, node.config, node.clock, trail)
    node.clock.advance(200)
    node.clock.step_wall(100 * DAY_S)
    retention.round(threading.Event())
    assert not node.store.studies_show(OLD)[0]["images_removed_at"]
    node.clock.advance(3700)
    retention.round(threading.Event())
    assert node.store.studies_show(OLD)[0]["images_removed_at"]


def test_an_image_that_comes_while_its_file_is_deleted_is_kept(delivered: Node) -> None:
    """It is acknowledged and filed between the mark and the deletion, in every order."""
    node = delivered
    image = study(OLD)[0]
    data = encoded(image)

    class Late(Retention):
        def _unlink(self, paths: Sequence[str]) -> None:
            assert node.receive(image).status == 0
            super()._unlink(paths)

    Late(node.store, node.config, node.clock, AuditTrail(
        node.store, node.config, node.clock)).sweep()  # fmt: skip
    node.ingest.file_pending()
    (row,) = (row for row in node.store.instances_of(OLD) if row.removed_at_s is None)
    assert row.sop_instance_uid == image.SOPInstanceUID
    assert (node.data_dir / row.path).read_bytes().endswith(data)
    whole(node)


def test_a_file_deleted_after_it_was_copied_is_copied_again(
    delivered: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = delivered
    sweep(node)
    add = node.store.add_instances

    def late(rows: Sequence) -> list:
        done = add(rows)
        remove_files([node.data_dir / row.path for row in rows])
        return done

    monkeypatch.setattr(node.store, "add_instances", late)
    node.send_all(study(OLD)[:3])
    whole(node)


LIFE = """
import sys
from pathlib import Path
from dicom_node import crash_points
from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.retention import Retention
from dicom_node.store.store import Store
clock = ManualClock()
clock.step_wall(float(sys.argv[2]) - clock.now_s())
config = NodeConfig.model_validate({"node": {"data_dir": sys.argv[1]}})
store = Store(config.database_url, clock=clock)
Retention(store, config, clock, AuditTrail(store, config, clock)).sweep()
store.close()
"""


@pytest.fixture
def aged(delivered: Node) -> Node:
    """Everything of the old study may go: images and results."""
    delivered.clock.advance(300 * DAY_S)
    return delivered


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "hit"),
    [
        *((point, 1) for point in crash_points.REMOVAL_POINTS),
        ("file-removed", 2 * SLICES + 3),
        ("removal-marked", 2),
    ],
)
def test_D13_a_crash_at_each_step_leaves_neither_orphan_nor_dangling_row(
    aged: Node, point: str, hit: int
) -> None:
    node = aged
    node.ingest.stop()
    node.store.close()
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(node.data_dir), str(node.clock.now_s())],
        env={**os.environ, crash_points.FAULT_ENV: f"{point}:{hit}"}, cwd=ROOT, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == crash_points.FAULT_EXIT_STATUS, done.stderr
    node.store = open_store(node.config.database_url, node.clock, "here")
    report = recover(node.store, node.data_dir)
    assert (report.instances_restored, report.files_missing, report.files_unreadable) == (0, 0, 0)
    node.clock.advance(LEASE_S + 1)  # whoever died had the turn
    sweep(node)
    shown = [node.store.studies_show(uid)[0]["images_removed_at"] for uid in (OLD, YOUNG)]
    assert all(shown)
    whole(node)
    left = {name for name in files(node) if name.startswith(RESULTS)}
    assert left == {f"{results_folder(YOUNG, 1)}/{name}" for name in ("sr.dcm", "result.json")}
    assert node.store.studies_with_removals() == []


def test_disabled_nothing_is_deleted(delivered: Node) -> None:
    node = delivered
    section = RetentionSection(enabled=False)
    config = node.config.model_copy(update={"retention": section})
    retention = Retention(node.store, config, node.clock, AuditTrail(
        node.store, config, node.clock))  # fmt: skip
    retention.run(threading.Event())  # returns at once
    assert isinstance(node.clock, ManualClock)
