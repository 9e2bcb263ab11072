"""Kill -9 of the receiver at random moments, while several senders send.

Afterwards every acknowledged instance has its row and its file, with the bytes that were sent; no
instance has two; no half-written file is left. `FAULT_RECEIVER_KILLS` (15) and `FAULT_SEED` change
number and seed. With 3,000 kills and none lost, the rate of loss for a kill is below 0.1 %.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from dicom_node import durable
from dicom_node.clock import SystemClock
from dicom_node.flow.recover import recover
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import Address, outgoing, send_each
from dicom_node.net.standin import dataset_bytes
from dicom_node.store.store import Store
from tests.net.conftest import write_instance
from tests.running import ReceiverUnderTest

KILLS = int(os.environ.get("FAULT_RECEIVER_KILLS", "15"))
SEED = int(os.environ.get("FAULT_SEED", "20210812"))
SENDERS = 3
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(14_400)]


class Sender:
    """Sends small new instances one after the other; remembers what was acknowledged."""

    def __init__(self, number: int, folder: Path) -> None:
        self.folder = folder / str(number)
        self.folder.mkdir(parents=True)
        self.study = f"1.2.3.{number}"
        self.port = 0
        self.acknowledged: dict[str, Path] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            files = [write_instance(self.folder, study=self.study) for _ in range(20)]
            paths = {path.stem: path for path in files}
            to = Address("PROSTATE_AI", "127.0.0.1", self.port)
            for status in send_each(to, [outgoing(path) for path in files], calling_ae="PACS"):
                if status.outcome is Outcome.SENT:
                    uid = status.sop_instance_uid
                    self.acknowledged[uid] = paths[uid]


def test_G1_random_kills_of_the_receiver(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    receiver = ReceiverUnderTest(tmp_path / "node")
    receiver.start()
    senders = [Sender(number, tmp_path / "sent") for number in range(SENDERS)]
    threads = [threading.Thread(target=sender.run) for sender in senders]
    for sender in senders:
        sender.port = receiver.port
    for thread in threads:
        thread.start()
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.05, 0.8))
            receiver.kill()
            receiver.start()
    finally:
        for sender in senders:
            sender.stop.set()
        for thread in threads:
            thread.join()
        receiver.kill()
    store = Store(receiver.database_url, clock=SystemClock())
    report = recover(store, receiver.data_dir)
    lost = 0
    for sender in senders:
        rows = {row.sop_instance_uid: row.path for row in store.headers_of(sender.study)}
        assert store.conflicts_of(sender.study) == []
        for uid, path in sender.acknowledged.items():
            kept = receiver.data_dir / rows[uid] if uid in rows else None
            lost += kept is None or dataset_bytes(kept) != dataset_bytes(path)
    store.close()
    count = sum(len(sender.acknowledged) for sender in senders)
    assert lost == 0
    assert count > 0
    assert report.files_missing == report.files_unreadable == 0
    assert list(receiver.data_dir.rglob(f"*{durable.TEMP_SUFFIX}")) == []
    print(
        f"\nkills {KILLS}, acknowledged {count}, lost 0, 95 % bound on the rate of loss for a kill "
        f"{3 / KILLS:.1%}, seed {SEED}"
    )
