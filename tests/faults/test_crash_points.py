"""A crash at every step that a node takes, then a start: nothing lost (G1), nothing twice (G3).

Each point of `dicom_node.crash_points` is hit `FAULT_CRASHES` times, at its first hit, its second
and so on: the process ends there as if it was killed. Receiving is checked image by image and byte
by byte; analysing, encoding and delivering are checked at the PACS.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node import crash_points, durable
from dicom_node.clock import ManualClock, SystemClock
from dicom_node.flow.spool import read_dataset
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from dicom_node.store.store import Store
from tests.conftest import ROOT
from tests.databases import migrated
from tests.faults.crashes import PACS, STUDY_UID, images
from tests.flow.conftest import T2W, Node, encoded, series
from tests.fuzz.campaign import Campaign

EACH = int(os.environ.get("FAULT_CRASHES", "1"))
HITS = {
    "file-written": 4, "file-synced": 4, "file-renamed": 4, "folder-synced": 4, "object-sent": 2,
    "delivery-committed": 2, "instance-parsed": 14, "record-written": 14, "record-synced": 14,
    "file-copied": 8, "files-synced": 3, "rows-committed": 3, "log-emptied": 1,
}  # fmt: skip
"""How often a point is passed in most lives; once where it is not named."""
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(7200)]


class Lives:
    """Orders lives of a node from the program that forks them."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "lives.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.crashes"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, text=True,
            )  # fmt: skip

    def live(self, **order: object) -> tuple[int, list[Any]]:
        """One life; returns its exit status and what it said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log.read_text()[-2000:]
        told = json.loads(line)
        return told["status"], told["said"]

    def close(self) -> None:
        """End the program."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    made = Lives(tmp_path_factory.mktemp("lives"))
    yield made
    made.close()


def hits(chance: random.Random, point: str) -> tuple[int, int]:
    """Which hit ends the life; the first where the life does not pass the point so often."""
    return 1 + chance.randrange(HITS.get(point, 1)), 1


@pytest.mark.parametrize("point", crash_points.RECEIVE_POINTS)
def test_G1_crashes_while_receiving(tmp_path: Path, lives: Lives, point: str) -> None:
    campaign = Campaign(f"crash at {point}", EACH, block=1)

    def case(number: int, chance: random.Random) -> None:
        folder = tmp_path / "data"
        order = {"scenario": "receive", "folder": folder, "seed": number, "port": 1}
        for hit in hits(chance, point):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "node.sqlite3").write_bytes(migrated())
            status, acknowledged = lives.live(point=point, hit=hit, **order)
            if status == crash_points.FAULT_EXIT_STATUS:
                break
        assert status == crash_points.FAULT_EXIT_STATUS, f"{point} is not passed"
        status, said = lives.live(recover=True, **order)
        assert status == 0, lives.log.read_text()[-2000:]
        assert (said[0]["files_missing"], said[0]["files_unreadable"]) == (0, 0)
        _check_received(folder, set(acknowledged), number)
        assert lives.live(**order)[0] == 0  # the scanner sends everything again
        everything = {str(image.SOPInstanceUID) for image in images(number)}
        assert _check_received(folder, everything, number) == len(everything)
        shutil.rmtree(folder)

    campaign.run(case, limit_s=300)
    campaign.finish()


def _check_received(folder: Path, acknowledged: set[str], seed: int) -> int:
    """What is acknowledged is there once, with its bytes; returns how many there are."""
    sent = {str(image.SOPInstanceUID): encoded(image) for image in images(seed)}
    store = Store(f"sqlite:///{folder}/node.sqlite3", clock=SystemClock())
    rows = store.instances_of(STUDY_UID)
    conflicts = store.conflicts_of(STUDY_UID)
    store.close()
    kept = {row.sop_instance_uid: read_dataset(folder, row) for row in rows}
    assert conflicts == []
    assert len(kept) == len(rows)
    assert acknowledged <= kept.keys()
    assert kept == {uid: sent[uid] for uid in kept}
    assert list(folder.rglob(f"*{durable.TEMP_SUFFIX}")) == []
    return len(rows)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a node with a study whose report is due: T2W alone, patience is over."""
    folder = tmp_path_factory.mktemp("ready")
    (folder / "node.sqlite3").write_bytes(migrated())
    clock = ManualClock()
    clock.step_wall(time.time() - clock.now_s() - 7200)
    node = Node(folder, clock)
    node.send_all(series(T2W, study=STUDY_UID))
    clock.advance(3600)
    node.evaluate()
    assert node.state(STUDY_UID)[1] == "ready"
    node.ingest.stop()
    node.store.close()
    return folder


@pytest.mark.parametrize(
    "point", (*crash_points.FILE_POINTS, *crash_points.WORK_POINTS, *crash_points.DELIVERY_POINTS)
)
def test_G2_G3_crashes_while_working(tmp_path: Path, lives: Lives, ready: Path, point: str) -> None:
    campaign = Campaign(f"crash at {point}", EACH, block=1)

    def case(number: int, chance: random.Random) -> None:
        for hit in hits(chance, point):
            if work_until(tmp_path, lives, ready, {"point": point, "hit": hit, "seed": number}):
                return
        raise AssertionError(f"{point} is not passed")

    campaign.run(case, limit_s=300)
    campaign.finish()


def work_until(tmp_path: Path, lives: Lives, ready: Path, crash: dict[str, Any]) -> bool:
    """One life that ends at a hit of a crash point, and the next; False where it is not reached."""
    folder, filed = tmp_path / "data", tmp_path / "pacs"
    shutil.copytree(ready, folder)
    try:
        with PacsStandIn(PACS, filed) as pacs:
            order = {"scenario": "work", "folder": folder, "port": pacs.port}
            status, _ = lives.live(**order, **crash)
            if status != crash_points.FAULT_EXIT_STATUS:
                assert status == 0, lives.log.read_text()[-2000:]
                return False
            status, said = lives.live(recover=True, **order)
            assert status == 0, lives.log.read_text()[-2000:]
            _check_delivered(folder, said[-1], pacs)
        return True
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(filed, ignore_errors=True)


def _check_delivered(folder: Path, studies: list[dict[str, Any]], pacs: PacsStandIn) -> None:
    """The study ended; the PACS holds each of its objects once, with the bytes that were kept."""
    (study,) = studies
    assert (study["state"], study["revision"]) == ("not_analysable", 1)
    results = {result["sop_instance_uid"]: result for result in study["results"]}
    assert results
    states = {d["state"] for result in results.values() for d in result["deliveries"]}
    assert states <= {"sent", "verified"}
    filed = pacs.filed()
    assert sorted(item.sop_instance_uid for item in filed) == sorted(results)
    assert [item.differing for item in filed] == [0] * len(filed)
    kept = {}
    for path in (folder / "results").rglob("*.dcm"):
        kept[hashlib.sha256(path.read_bytes()).hexdigest()] = dataset_bytes(path)
    for item in filed:
        assert dataset_bytes(item.path) == kept[results[item.sop_instance_uid]["sha256"]]
