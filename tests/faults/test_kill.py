"""Kill -9 of the whole node at random moments of receive, analyse, encode and deliver.

Each kill aims at one of the four: the test waits until the node is seen at it, lets a random time
pass, and kills every process at once. A scanner keeps sending studies all the while. Afterwards:
no acknowledged instance lost (contents compared), every study ended, every result at the PACS
once, with the same UIDs and bytes. `FAULT_KILLS` and `FAULT_SEED` change number and seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select

from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import Address, outgoing, send_each
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from dicom_node.store.schema import deliveries, revisions
from dicom_node.store.store import Store
from tests.running import NodeUnderTest, pacs_peer, wait_until
from tests.studies import StudyMaker, study_uid

KILLS = int(os.environ.get("FAULT_KILLS", "12"))
SEED = int(os.environ.get("FAULT_SEED", "20210812"))
FINAL = {"delivered", "not_analysable", "failed", "held"}
STAGES = ("receive", "analyse", "encode", "deliver")
SHARES = (0.4, 0.3, 0.15, 0.15)
# how long a stage goes on once it is seen: a kill falls anywhere in it, or just behind it
SPREAD_S = {"receive": 1.5, "analyse": 4.0, "encode": 0.08, "deliver": 0.6}
AIM_LIMIT_S = 30.0


@dataclass
class Scanner:
    """Sends studies one after the other and remembers what was acknowledged; never gives up."""

    port: int = 0
    studies: list[list[Path]] = field(default_factory=list)
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    at: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    broken: list[Exception] = field(default_factory=list)

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                if self.at < len(self.studies) and self._send_rest(self.studies[self.at]):
                    self.at += 1
                else:
                    self.stop.wait(0.2)
        except Exception as error:  # told by the test, which would only see nothing arrive
            self.broken.append(error)

    def _send_rest(self, files: list[Path]) -> bool:
        """Send what is not acknowledged yet; whether nothing is left."""
        waiting = [outgoing(path) for path in files]
        waiting = [item for item in waiting if item.sop_instance_uid not in self.acknowledged]
        paths = {item.sop_instance_uid: item.path for item in waiting}
        to = Address("PROSTATE_AI", "127.0.0.1", self.port)
        for status in send_each(to, waiting, calling_ae="PACS"):
            if status.outcome is Outcome.SENT:
                self.acknowledged[status.sop_instance_uid] = dataset_bytes(
                    paths[status.sop_instance_uid]
                )
        return all(uid in self.acknowledged for uid in paths)


class Watch:
    """Sees from outside what the node is at: the database, the results folder, the scanner."""

    def __init__(self, node: NodeUnderTest, scanner: Scanner) -> None:
        url = load_config(node.config_file).database_url
        self._engine = create_engine(url, connect_args={"timeout": 60})  # a writer may be slow
        self._results = node.data_dir / "results"
        self._scanner = scanner
        self._new_life()

    def _new_life(self) -> None:
        self._acknowledged = len(self._scanner.acknowledged)
        self._known_files = self._files()

    def _files(self) -> set[tuple[str, int]]:
        found = set()
        for path in self._results.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path.name, path.stat().st_mtime_ns))
        return found

    def _count(self, table: Any, *states: str) -> int:
        with self._engine.connect() as db:
            return len(db.execute(select(table.c.id).where(table.c.state.in_(states))).all())

    def at(self, stage: str) -> bool:
        """Whether the node is at a stage, in this life."""
        if stage == "receive":
            unsent = self._scanner.at < len(self._scanner.studies)
            return unsent and len(self._scanner.acknowledged) > self._acknowledged
        if stage == "analyse":
            return self._count(revisions, "running") > 0
        if stage == "encode":
            return self._files() != self._known_files and self._count(revisions, "running") > 0
        return self._count(deliveries, "pending", "sending") > 0

    def aim(self, stage: str, delay_s: float) -> None:
        """Wait for a stage, then for a moment in it. A stage that does not come is not forced."""
        end = time.monotonic() + AIM_LIMIT_S
        while not self.at(stage) and time.monotonic() < end:
            time.sleep(0.005 if stage == "encode" else 0.03)
        time.sleep(delay_s)

    def what_was_hit(self) -> list[str]:
        """Name the stages that a kill interrupted; begins the next life."""
        hit = [stage for stage in STAGES if self.at(stage)] or ["idle"]
        self._new_life()
        return hit

    def close(self) -> None:
        self._engine.dispose()


class Supply:
    """Keeps the scanner and the node in work."""

    def __init__(self, node: NodeUnderTest, scanner: Scanner, write: Callable[[int], Any]) -> None:
        self._node, self._scanner, self._write = node, scanner, write

    def refill(self) -> None:
        ended = sum(row["state"] in FINAL for row in _rows(self._node))
        while (
            self._scanner.at >= len(self._scanner.studies) or len(self._scanner.studies) - ended < 2
        ):
            self._scanner.studies.append(self._write(len(self._scanner.studies)))


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_G1_G2_G3_random_kills_of_the_whole_node(tmp_path: Path, studies: StudyMaker) -> None:
    chance = random.Random(SEED)
    hits: Counter[str] = Counter()
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        node = NodeUnderTest(
            tmp_path / "node", pacs_peer(pacs.port), quiet_s=0.5, patience_s=60.0, web=False
        )
        node.start()
        scanner = Scanner(node.port)
        supply = Supply(
            node, scanner, lambda n: studies.write(tmp_path / "studies" / str(n), f"kill-{n}")
        )
        watch = Watch(node, scanner)
        sending = threading.Thread(target=scanner.run)
        sending.start()
        try:
            for _ in range(KILLS):
                supply.refill()
                (stage,) = chance.choices(STAGES, SHARES)
                watch.aim(stage, chance.uniform(0, SPREAD_S[stage]))
                node.kill()
                hits.update(watch.what_was_hit())
                node.start_unattended()
            wait_until(lambda: _all_sent(node, scanner), 300, "everything was sent")
        finally:
            scanner.stop.set()
            sending.join()
            watch.close()
        rows = [node.wait_for(study_uid(files), FINAL, 300) for files in scanner.studies]
        _check_received(node, scanner)
        _check_results(node, rows, pacs)
        assert [row["state"] for row in rows] == ["delivered"] * len(rows)
        print(
            f"\nkills {KILLS}, at {dict(hits)}, acknowledged {len(scanner.acknowledged)}, lost 0, "
            f"studies {len(rows)}, doubled results 0, "
            f"95 % bound on the rate of loss {3 / KILLS:.1%}, seed {SEED}"
        )
        assert KILLS < 50 or set(STAGES) <= set(hits), "every stage was hit"
        assert node.stop() == 0


def _all_sent(node: NodeUnderTest, scanner: Scanner) -> bool:
    assert scanner.broken == []
    assert node.running, f"the node does not start again: {node.log()[-2000:]}"
    return scanner.at == len(scanner.studies)


def _rows(node: NodeUnderTest) -> list[dict[str, Any]]:
    store = Store(load_config(node.config_file).database_url, clock=SystemClock())
    try:
        return store.studies_list()
    finally:
        store.close()


def _check_received(node: NodeUnderTest, scanner: Scanner) -> None:
    """G1: every acknowledged instance is there, with the bytes that were sent."""
    store = Store(load_config(node.config_file).database_url, clock=SystemClock())
    try:
        stored = {
            row.sop_instance_uid: node.data_dir / row.path
            for files in scanner.studies
            for row in store.headers_of(study_uid(files))
        }
    finally:
        store.close()
    lost = [
        uid
        for uid, data in scanner.acknowledged.items()
        if uid not in stored or dataset_bytes(stored[uid]) != data
    ]
    assert lost == []


def _check_results(node: NodeUnderTest, rows: list[dict[str, Any]], pacs: PacsStandIn) -> None:
    """G3: what the PACS holds is one result set for each study, byte by byte what was encoded."""
    encoded = {
        outgoing(path).sop_instance_uid: dataset_bytes(path)
        for path in (node.data_dir / "results").glob("*/*.dcm")
    }
    for row in rows:
        filed = pacs.filed(str(row["study_uid"]))
        assert {item.sop_instance_uid for item in filed} == {
            result["sop_instance_uid"] for result in row["results"]
        }
        assert [item.differing for item in filed] == [0] * len(filed)
        for item in filed:
            assert dataset_bytes(item.path) == encoded[item.sop_instance_uid]
