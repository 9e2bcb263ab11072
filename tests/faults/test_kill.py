"""Kill -9 of the whole node at random moments of receive, analyse, encode and deliver.

Afterwards: no acknowledged instance lost (contents compared), every study ended, every result at
the PACS once, with the same UIDs and bytes. `FAULT_KILLS` and `FAULT_SEED` change number and seed.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import Address, outgoing, send
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from dicom_node.store.store import Store
from tests.running import NodeUnderTest, pacs_peer, wait_until
from tests.studies import StudyMaker, study_uid

KILLS = int(os.environ.get("FAULT_KILLS", "14"))
SEED = int(os.environ.get("FAULT_SEED", "20210812"))
# most lives end while images come in or the model loads; some last into analysis and delivery
SHORT_LIFE_S, LONG_LIFE_S, LONG_SHARE = (0.2, 4.0), (4.0, 10.0), 0.3
FINAL = {"delivered", "not_analysable", "failed", "held"}


@dataclass
class Scanner:
    """Sends studies one after the other and remembers what was acknowledged; never gives up."""

    studies: list[list[Path]]
    port: int = 0
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    at: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set() and self.at < len(self.studies):
            waiting = [
                item for path in self.studies[self.at]
                if (item := outgoing(path)).sop_instance_uid not in self.acknowledged
            ]  # fmt: skip
            if not waiting:
                self.at += 1
                continue
            to = Address("PROSTATE_AI", "127.0.0.1", self.port)
            for status in send(to, waiting, calling_ae="PACS"):
                if status.outcome is Outcome.SENT:
                    item = next(i for i in waiting if i.sop_instance_uid == status.sop_instance_uid)
                    self.acknowledged[status.sop_instance_uid] = dataset_bytes(item.path)
            self.stop.wait(0.3)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_G1_G2_G3_random_kills_of_the_whole_node(tmp_path: Path, studies: StudyMaker) -> None:
    chance = random.Random(SEED)
    written = [
        studies.write(tmp_path / "studies" / str(n), f"kill-{n}")
        for n in range(max(4, KILLS // 10))
    ]
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        node = NodeUnderTest(
            tmp_path / "node", pacs_peer(pacs.port), quiet_s=0.5, patience_s=60.0, web=False
        )
        node.start()
        scanner = Scanner(written, node.port)
        sending = threading.Thread(target=scanner.run)
        sending.start()
        states: dict[str, int] = {}
        try:
            for _ in range(KILLS):
                long = chance.random() < LONG_SHARE
                time.sleep(chance.uniform(*(LONG_LIFE_S if long else SHORT_LIFE_S)))
                for state, count in _running_states(node).items():
                    states[state] = states.get(state, 0) + count
                node.kill()
                node.start_unattended()
            wait_until(lambda: _all_sent(node, scanner), 600, "everything was sent")
        finally:
            scanner.stop.set()
            sending.join()
        uids = [study_uid(files) for files in written]
        rows = [node.wait_for(uid, FINAL, 600) for uid in uids]
        _check_received(node, scanner)
        _check_results(rows, pacs)
        assert [row["state"] for row in rows] == ["delivered"] * len(rows)
        print(
            f"\nkills {KILLS}, acknowledged {len(scanner.acknowledged)}, lost 0, "
            f"studies {len(rows)}, doubled results 0, "
            f"95 % bound on the rate of loss {3 / KILLS:.1%}, seed {SEED}, states seen {states}"
        )
        assert node.stop() == 0


def _all_sent(node: NodeUnderTest, scanner: Scanner) -> bool:
    """Whether the scanner is done; a node that could not start is started again, as by systemd."""
    if not node.running:
        node.collect(5.0)
        node.start_unattended()
    return scanner.at == len(scanner.studies)


def _running_states(node: NodeUnderTest) -> dict[str, int]:
    store = Store(load_config(node.config_file).database_url, clock=SystemClock())
    try:
        return {k: 1 for k, v in store.status()["revisions"].items() if v}
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


def _check_results(rows: list[dict[str, object]], pacs: PacsStandIn) -> None:
    """G3: what the PACS holds is one result set for each study; copies are equal."""
    for row in rows:
        filed = pacs.filed(str(row["study_uid"]))
        results = row["results"]
        assert isinstance(results, list)
        assert {item.sop_instance_uid for item in filed} == {
            result["sop_instance_uid"] for result in results
        }
        assert [item.differing for item in filed] == [0] * len(filed)
