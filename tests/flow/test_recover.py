"""After a crash, and after the database was lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dicom_node.config import PeerConfig
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import RevisionState
from dicom_node.durable import SyncBatch
from dicom_node.errors import ConfigError, StoreError
from dicom_node.flow.outbox import results_folder
from dicom_node.flow.peers import (
    add_peer,
    all_peers,
    destinations,
    find_peer,
    remove_peer,
    senders,
)
from dicom_node.flow.rebuild import rebuild_database
from dicom_node.flow.recover import recover
from dicom_node.flow.spool import spool_files, verify
from dicom_node.store.rows import Destination, ResultRow
from dicom_node.store.store import Store
from tests.flow.conftest import ADC, STUDY, T2W, Node, mr_image, series

PACS = [Destination("pacs", ("sr", "seg-lesions"))]


def finish(node: Node, send: int) -> None:
    """Analyse the study; the first ``send`` objects reach the PACS."""
    node.send_all(series(T2W) + series(ADC))
    node.clock.advance(10)
    node.evaluate()
    claim = node.store.claim_ready("worker-0")
    assert claim is not None
    folder = results_folder(STUDY, 1)
    made = [
        ResultRow("seg-lesions", "1.2", "9.1", "9", f"{folder}/seg.dcm", "a" * 64, 5),
        ResultRow("sr", "1.3", "9.2", "8", f"{folder}/sr.dcm", "b" * 64, 6),
    ]
    node.store.finish_analysed(claim, made, PACS)
    for one in node.store.claim_deliveries("pacs", "d")[:send]:
        node.store.delivery_sent(one)
    node.store.recover_deliveries()
    node.evaluate()
    assert (node.data_dir / folder / "manifest.json").is_file()


def test_recovery_of_a_clean_stop_does_nothing(node: Node) -> None:
    node.send(mr_image())
    report = recover(node.store, node.data_dir)
    assert (report.instances_restored, report.files_missing, report.revisions_taken_back) == (
        0, 0, 0,
    )  # fmt: skip


def test_lost_and_foreign_files_are_named(node: Node) -> None:
    node.send(mr_image())
    node.send(mr_image(index=1))
    (first, _) = node.store.instances_of(STUDY)
    path = node.data_dir / first.path
    (path.parent / ".x.part").write_bytes(b"half")
    (path.parent / "foreign.dcm").write_bytes(b"not ours")
    path.unlink()
    report = recover(node.store, node.data_dir)
    assert report.missing == (first.path,)
    assert [Path(name).name for name in report.unreadable] == ["foreign.dcm"]
    assert report.temporary_files_removed == 1


def test_a_start_looks_only_at_what_was_written_since_the_last_one(node: Node) -> None:
    node.clock.step_wall(time.time() - node.clock.now_s())
    node.send(mr_image())
    old = node.data_dir / node.store.instances_of(STUDY)[0].path
    assert recover(node.store, node.data_dir).files_unreadable == 0
    (old.parent / "foreign.dcm").write_bytes(b"not ours")
    long_ago_s = time.time() - 3 * 86_400
    os.utime(old.parent / "foreign.dcm", (long_ago_s, long_ago_s))
    os.utime(old.parent, (long_ago_s, long_ago_s))
    assert recover(node.store, node.data_dir).files_unreadable == 0
    os.utime(old.parent / "foreign.dcm")
    os.utime(old.parent)
    assert recover(node.store, node.data_dir).files_unreadable == 1
    # a spool that no start has looked through yet is read whole
    os.utime(old, (long_ago_s, long_ago_s))
    os.utime(old.parent, (long_ago_s, long_ago_s))
    fresh = Store(f"sqlite:///{node.data_dir}/fresh.sqlite3", clock=node.clock, create=True)
    assert recover(fresh, node.data_dir).instances_restored == 1
    fresh.close()


def test_G1_the_images_come_back_without_the_database(node: Node) -> None:
    node.send_all(series(T2W) + series(ADC))
    node.send(mr_image(PixelData=b"\1\0" * 10_000))  # a second copy, kept aside
    before = {(row.sop_instance_uid, row.path) for row in node.store.instances_of(STUDY)}
    node.store.close()
    report = rebuild_database(node.config, node.clock)
    assert report["instances_restored"] == 41
    assert Path(str(report["old_database"])).name.startswith("node.sqlite3.")
    node.open()
    rows = node.store.instances_of(STUDY)
    assert {(row.sop_instance_uid, row.path) for row in rows} == before
    assert rows[0].calling_ae == "MR1"
    node.evaluate()
    assert node.state() == (1, "held", "same_uid_other_bytes")


def test_G1_what_waits_in_the_journal_comes_back_without_the_database(node: Node) -> None:
    node.send_all(series(T2W))
    for image in series(ADC):
        assert node.receive(image).status == 0  # acknowledged, not yet filed
    node.ingest._journal.close()
    node.store.close()
    report = rebuild_database(node.config, node.clock)
    assert (report["instances_restored"], report["instances_filed"]) == (20, 20)
    node.open()
    rows = node.store.instances_of(STUDY)
    assert len(rows) == 40
    for row in rows:
        verify(node.data_dir, row)
    node.clock.advance(11)
    node.evaluate()
    assert node.state() == (1, "ready", None)


def test_R14_the_first_copy_stays_the_first_without_the_database(node: Node) -> None:
    node.send(mr_image())
    (first,) = node.store.instances_of(STUDY)
    assert node.receive(mr_image(PixelData=b"\1\0" * 10_000)).status == 0
    node.ingest._journal.close()
    node.store.close()
    rebuild_database(node.config, node.clock)
    node.open()
    (kept,) = node.store.instances_of(STUDY)
    assert (kept.path, kept.dataset_digest) == (first.path, first.dataset_digest)
    assert len(node.store.conflicts_of(STUDY)) == 1


def test_G1_files_that_a_power_cut_spoilt_are_written_anew_from_the_journal(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        node.receive(mr_image(index=index))
    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(SyncBatch, "sync", _fails)
        node.ingest.file_pending()
    files = list(spool_files(node.data_dir))
    assert len(files) == 3
    for path in files:
        path.write_bytes(bytes(100))  # named, but the bytes never reached the disk
    node.ingest._journal.close()
    report = recover(node.store, node.data_dir)
    assert (report.instances_filed, report.files_unreadable) == (3, 0)
    rows = node.store.instances_of(STUDY)
    assert len(rows) == 3
    for row in rows:
        verify(node.data_dir, row)


def _fails(*_: object) -> None:
    raise StoreError("the disk refused")


def test_G1_files_without_a_row_are_synced_before_they_get_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.send_all(series(T2W)[:3])
    calls: list[str] = []
    fresh = Store(f"sqlite:///{node.data_dir}/fresh.sqlite3", clock=node.clock, create=True)
    real_sync, real_add = SyncBatch.sync, fresh.add_instance
    monkeypatch.setattr(SyncBatch, "sync", lambda *a: (calls.append("sync"), real_sync(*a))[1])
    monkeypatch.setattr(fresh, "add_instance", lambda row: (calls.append("row"), real_add(row))[1])
    assert recover(fresh, node.data_dir).instances_restored == 3
    assert calls == ["sync", "row", "row", "row"]
    fresh.close()


def test_the_janitor_clears_what_writes_that_were_cut_short_left(node: Node) -> None:
    finish(node, send=2)
    results = node.data_dir / results_folder(STUDY, 1)
    spool = (node.data_dir / node.store.instances_of(STUDY)[0].path).parent
    for folder in (results, spool):
        (folder / ".x.0.part").write_bytes(b"half")
    assert recover(node.store, node.data_dir).temporary_files_removed == 2
    assert (results / "manifest.json").is_file()
    assert list(node.data_dir.rglob("*.part")) == []


def test_G3_what_was_sent_is_not_sent_again_without_the_database(node: Node) -> None:
    finish(node, send=1)
    node.store.close()
    assert rebuild_database(node.config, node.clock)["revisions_restored"] == 1
    node.open()
    assert node.store.known_result("9.2")
    assert node.state() == (1, "analysed", None)
    (left,) = node.store.claim_deliveries("pacs", "d")
    assert left.result.sop_instance_uid == "9.2"
    node.store.delivery_sent(left)
    node.clock.advance(5000)
    node.evaluate()
    assert node.state() == (1, "delivered", None)  # the same inputs are not analysed again


def test_a_delivered_study_stays_delivered_without_the_database(node: Node) -> None:
    finish(node, send=2)
    node.store.close()
    rebuild_database(node.config, node.clock)
    node.open()
    node.clock.advance(5000)
    node.evaluate()
    assert node.state() == (1, "delivered", None)
    assert node.store.peers_with_deliveries() == []


def test_a_manifest_that_cannot_be_read_is_said(node: Node) -> None:
    finish(node, send=2)
    (node.data_dir / results_folder(STUDY, 1) / "manifest.json").write_text("{")
    node.store.close()
    with pytest.raises(StoreError, match="move its folder away"):
        rebuild_database(node.config, node.clock)
    node.open()


def test_a_silent_end_is_kept(node: Node) -> None:
    node.send_all(series(T2W) + series(ADC))
    node.clock.advance(10)
    node.evaluate()
    claim = node.store.claim_ready("worker-0")
    assert claim is not None
    node.store.finish_silent(claim, RevisionState.NOT_ANALYSABLE, Reason.NOT_PROSTATE, "m")
    node.clock.advance(5000)
    node.evaluate()
    assert node.state() == (1, "not_analysable", "not_prostate")


# peers


def peer(name: str, **changes: object) -> PeerConfig:
    values = {"name": name, "ae_title": name.upper(), "host": "127.0.0.1", "port": 104}
    return PeerConfig.model_validate({**values, **changes})


def test_peers_of_file_and_database_are_one_list(node: Node) -> None:
    config = node.config.model_copy(update={"peers": (peer("file", receives_results=True),)})
    add_peer(node.store, config, peer("live", receives_results=True, objects=["sr"]))
    entries = [(entry.peer.name, entry.origin) for entry in all_peers(node.store, config)]
    assert entries == [("file", "file"), ("live", "database")]
    assert [one.name for one in senders(node.store, config)] == ["file", "live"]
    to = {one.peer: one.kinds for one in destinations(node.store, config)}
    assert to["live"] == ("sr",)
    assert "seg-lesions" in to["file"]
    assert find_peer(node.store, config, "live").ae_title == "LIVE"
    for name in ("file", "live"):
        with pytest.raises(ConfigError, match="already"):
            add_peer(node.store, config, peer(name))
    with pytest.raises(ConfigError, match="configuration file"):
        remove_peer(node.store, config, "file")
    remove_peer(node.store, config, "live")
    with pytest.raises(ConfigError, match="no peer"):
        remove_peer(node.store, config, "live")
    with pytest.raises(ConfigError, match="no peer"):
        find_peer(node.store, config, "live")
