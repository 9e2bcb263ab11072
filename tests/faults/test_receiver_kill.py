"""Kill -9 of the receiver at random moments of start, receive and filing, while senders send.

Afterwards every acknowledged instance has its row and its file, with the bytes that were sent; no
instance has two; no half-written file is left. `FAULT_RECEIVER_KILLS` and `FAULT_SEED` change
number and seed. With 3,000 kills and none lost, the rate of loss for a kill is below 0.1 %.

The same for a receiver of several processes (`FAULT_RECEIVERS_KILLS`): one that receives is
killed, and forked again by the one that accepts; or that one is, and all end with it.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import struct
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node import durable
from dicom_node.clock import SystemClock
from dicom_node.flow.recover import recover
from dicom_node.store.store import Store
from tests.flow.conftest import encoded, mr_image
from tests.fuzz.campaign import Campaign
from tests.net.wire import Wire, pdata, status_of, store_rq
from tests.running import ForkedReceiver, is_gone, wait_until

KILLS = int(os.environ.get("FAULT_RECEIVER_KILLS", "40"))
KILLS_OF_SEVERAL = int(os.environ.get("FAULT_RECEIVERS_KILLS", "16"))
ROUND = 100
SENDERS = 3
# a kill comes so many answers after the port opened, and a moment later; or so long after the start
ANSWERS, PATIENCE_S, MOMENT_S, START_S = (0, 1, 3, 10, 30, 100), 20.0, (0.0, 0.05), (0.0, 0.12)
SIZES, SHARES = (3_000, 40_000, 300_000, 2_500_000), (50, 40, 9, 1)
PDU_BYTES = 16_000
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(14_400)]


@cache
def template(size: int) -> bytes:
    """A data set whose UIDs and pixels are filled in for each instance."""
    image = mr_image(SOPInstanceUID="9" * 32, StudyInstanceUID="8" * 16, PixelData=b"\7" * size)
    return encoded(image, ImplicitVRLittleEndian)


def instance(study: str, uid: str) -> bytes:
    """The data set of an instance: its content follows from its UID."""
    size = random.Random(uid).choices(SIZES, SHARES)[0]
    data = template(size).replace(b"9" * 32, uid.encode()).replace(b"8" * 16, study.encode())
    pattern = hashlib.shake_128(uid.encode()).digest(251)
    return data[:-size] + (pattern * (size // 251 + 1))[:size]


class Sender:
    """Sends new instances one after the other; remembers what was acknowledged."""

    def __init__(self, number: int, name: str, chance: random.Random) -> None:
        self.study = f"1.2.{number + 10}.1{name:0>8}"
        self.acknowledged: list[str] = []
        self.broken: list[Exception] = []
        self._chance = chance
        self._count = 0
        self._again = ""

    def run(self, port: int, stop: threading.Event) -> None:
        """Send until told to stop; what was cut off is sent again, half of the time."""
        while not stop.is_set():
            try:
                with Wire(port) as wire:
                    wire.associate()
                    while not stop.is_set():
                        self._send(wire)
            except (OSError, AssertionError, ValueError, struct.error):
                time.sleep(0.01)  # the receiver is not there, or went in the middle of an answer
            except Exception as error:  # told by the test
                self.broken.append(error)
                return

    def _send(self, wire: Wire) -> None:
        uid = self._again
        if not uid or self._chance.random() < 0.5:
            self._count += 1
            number = self._chance.randrange(10**11, 10**12)
            uid = f"1.2.3.{number}.{10**12 + self._count}"
        self._again = uid
        data = instance(self.study, uid)
        wire.send(store_rq(uid.encode()))
        for at in range(0, len(data), PDU_BYTES):
            wire.send(pdata(data[at : at + PDU_BYTES], 2 if at + PDU_BYTES >= len(data) else 0))
        kind, answer = wire.read_pdu()
        if kind == 4 and status_of(answer) == 0:
            self.acknowledged.append(uid)
            self._again = ""


def test_G1_random_kills_of_the_receiver(tmp_path: Path) -> None:
    campaign = Campaign("kill -9 of the receiver during ingest", KILLS, block=ROUND)
    _run(campaign, 1, tmp_path)


def test_G1_random_kills_of_several_receivers(tmp_path: Path) -> None:
    title = "kill -9 of one of two receiving processes, or of the one that accepts"
    _run(Campaign(title, KILLS_OF_SEVERAL, block=ROUND), 2, tmp_path)


def _run(campaign: Campaign, receivers: int, tmp_path: Path) -> None:
    acknowledged = 0
    for block in campaign.blocks():
        folder = tmp_path / str(block.start)
        senders, moments = kill_again_and_again(folder, block, campaign, receivers)
        for why in what_is_wrong(folder / "data", senders):
            campaign.fail(block.start, why)
        acknowledged += _answers(senders)
        shutil.rmtree(folder)
        print(f"\nkills {block.stop}: {moments}, acknowledged so far {acknowledged}")
    campaign.remark = f"{acknowledged:,} instances acknowledged"
    campaign.finish()
    assert acknowledged > 0


def kill_again_and_again(
    folder: Path, block: range, campaign: Campaign, receivers: int
) -> tuple[list[Sender], dict[str, int]]:
    """One round: a kill for each number of the block, one in five while the receiver starts.

    Of several processes, two kills in three hit one that receives.
    """
    receiver, stop = ForkedReceiver(folder, receivers=receivers), threading.Event()
    receiver.start()
    chance = campaign.chance(block.start)
    senders = [Sender(n, str(block.start), random.Random(chance.random())) for n in range(SENDERS)]
    threads = [threading.Thread(target=s.run, args=(receiver.port, stop)) for s in senders]
    for thread in threads:
        thread.start()
    moments = {"serving": 0, "starting": 0, "one of them": 0}
    left: list[int] = []
    try:
        for number in block:
            chance = campaign.chance(number)
            some = receiver.children()
            left += some
            if some and chance.random() < 2 / 3:
                await_answers(senders, chance.choice(ANSWERS))
                time.sleep(chance.uniform(*MOMENT_S))
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(some), signal.SIGKILL)
                moments["one of them"] += 1
                continue
            if chance.random() < 0.2:
                receiver.kill()
                receiver.launch()
                time.sleep(chance.uniform(*START_S))
                moments["starting"] += 1
            else:
                await_answers(senders, chance.choice(ANSWERS))
                time.sleep(chance.uniform(*MOMENT_S))
                moments["serving"] += 1
            receiver.kill()
            receiver.start()
    finally:
        stop.set()
        left += receiver.children()
        receiver.kill()
        wait_until(lambda: all(map(is_gone, left)), 60, "the end of what was killed")
        for thread in threads:
            thread.join()
        receiver.close()
    return senders, moments


def data_set_in(path: Path) -> bytes:
    """The data set of a Part 10 file: behind the meta information, whose length it tells first."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


def await_answers(senders: list[Sender], count: int) -> None:
    """Wait until so many more instances are acknowledged, so that a busy machine is no excuse."""
    before, end_s = _answers(senders), time.monotonic() + PATIENCE_S
    while _answers(senders) - before < count and time.monotonic() < end_s:
        time.sleep(0.002)


def _answers(senders: list[Sender]) -> int:
    return sum(len(sender.acknowledged) for sender in senders)


def what_is_wrong(data_dir: Path, senders: list[Sender]) -> list[str]:
    """After a recovery: compare what is kept with what was sent, byte by byte."""
    database = data_dir / "node.sqlite3"
    store = Store(f"sqlite:///{database}", clock=SystemClock())
    report = recover(store, data_dir)
    found = []
    if report.files_missing or report.files_unreadable:
        found.append(f"{report.files_missing} missing, {report.files_unreadable} unreadable files")
    for sender in senders:
        found += [f"a sender broke: {error!r}" for error in sender.broken]
        rows = store.instances_of(sender.study)
        kept = {row.sop_instance_uid: row.path for row in rows}
        if len(kept) != len(rows) or store.conflicts_of(sender.study):
            found.append("an instance stands in two rows")
        found += [f"{uid} is lost" for uid in sender.acknowledged if uid not in kept]
        found += [
            f"{uid} has other bytes"
            for uid, path in kept.items()
            if data_set_in(data_dir / path) != instance(sender.study, uid)
        ]
    store.close()
    found += [f"left over: {path.name}" for path in data_dir.rglob(f"*{durable.TEMP_SUFFIX}")]
    with sqlite3.connect(database) as db:
        found += [text for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"]
    db.close()
    return found
