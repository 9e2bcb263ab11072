"""The receiver as several processes: who lives, who dies with whom, and that nothing is lost (G1).

The caps over the processes: `tests/net/test_several.py`. Random kills: `tests/faults`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.clock import SystemClock
from dicom_node.config_sections import AUTO_RECEIVERS, NodeSection, cores
from dicom_node.store.store import Store
from tests.flow.conftest import encoded, mr_image
from tests.net.conftest import wait_for
from tests.net.wire import Wire, pdata, pdu, status_of, store_rq
from tests.running import ReceiverUnderTest, is_gone

STUDY = "1.2.826.0.1.3680043.8.498.20"
PDU_BYTES = 16_000


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverUnderTest]:
    one = ReceiverUnderTest(tmp_path / "node", receivers=2)
    one.start()
    yield one
    one.stop()


def store_one(wire: Wire, number: int) -> None:
    """Send an image; it is acknowledged."""
    uid = f"{STUDY}.1.{number}"
    image = mr_image(SOPInstanceUID=uid, StudyInstanceUID=STUDY)
    data = encoded(image, ImplicitVRLittleEndian)
    wire.send(store_rq(uid.encode()))
    for at in range(0, len(data), PDU_BYTES):
        wire.send(pdata(data[at : at + PDU_BYTES], 2 if at + PDU_BYTES >= len(data) else 0))
    assert status_of(wire.read_pdu()[1]) == 0


def release(wire: Wire) -> None:
    wire.send(pdu(5, bytes(4)))
    assert wire.read_pdu()[0] == 6
    wire.socket.close()


def rows(receiver: ReceiverUnderTest) -> int:
    store = Store(receiver.database_url, clock=SystemClock())
    try:
        return len(store.instances_of(STUDY))
    finally:
        store.close()


def journals_of(pid: int) -> set[str]:
    """The logs that a process has open."""
    links = [one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir()]
    return {link.name for link in links if link.parent.name == "journal" and link.suffix == ".log"}


def test_each_process_has_associations_and_a_journal_of_its_own(
    receiver: ReceiverUnderTest,
) -> None:
    first, second = receiver.children()
    assert len(list(Path(f"/proc/{receiver.pid}/task").iterdir())) == 1  # so that it can fork again
    assert not journals_of(receiver.pid)
    assert journals_of(first).isdisjoint(journals_of(second))
    wires = [Wire(receiver.port).associate() for _ in range(2)]
    for number, wire in enumerate(wires):
        store_one(wire, number)
    for wire in wires:
        release(wire)
    wait_for(lambda: rows(receiver) == 2)


def test_G1_a_killed_process_takes_its_associations_along_and_nothing_that_was_acknowledged(
    receiver: ReceiverUnderTest,
) -> None:
    before = receiver.children()
    wires = [Wire(receiver.port).associate() for _ in range(2)]
    for number, wire in enumerate(wires):
        store_one(wire, number)
    os.kill(before[0], signal.SIGKILL)
    assert wires[0].read_pdu() == (0, b"")
    store_one(wires[1], 10)  # the other goes on
    with Wire(receiver.port).associate() as third:
        store_one(third, 11)
    wait_for(lambda: rows(receiver) == 4)  # also what stood in the journal of the one killed
    wait_for(lambda: len(receiver.children()) == 2)
    assert before[1] in receiver.children()
    for wire in wires:
        wire.socket.close()


def test_G1_who_accepts_takes_all_along_and_the_next_files_what_was_acknowledged(
    receiver: ReceiverUnderTest,
) -> None:
    children = receiver.children()
    wires = [Wire(receiver.port).associate() for _ in range(2)]
    for number, wire in enumerate(wires):
        store_one(wire, number)
    receiver.kill()
    for wire in wires:
        assert wire.read_pdu() == (0, b"")
        wire.socket.close()
    receiver.start()  # at once: a process that still ends may hold its journal for a moment
    wait_for(lambda: all(is_gone(pid) for pid in children))
    wait_for(lambda: rows(receiver) == 2)


def test_a_stop_files_what_is_there_and_leaves_no_process(tmp_path: Path) -> None:
    receiver = ReceiverUnderTest(tmp_path / "node", receivers=2)
    receiver.start()
    children = receiver.children()
    with Wire(receiver.port).associate() as wire:
        store_one(wire, 1)
        release(wire)
    assert receiver.stop() == 0
    assert rows(receiver) == 1
    assert all(is_gone(pid) for pid in children)
    with pytest.raises(ConnectionRefusedError):
        Wire(receiver.port)


def test_one_journal_serves_another_number_of_processes(tmp_path: Path) -> None:
    """What two processes acknowledged is filed by one; no port needs to be open for that."""
    two = ReceiverUnderTest(tmp_path / "node", receivers=2)
    two.start()
    children = two.children()
    wires = [Wire(two.port).associate() for _ in range(2)]
    for number, wire in enumerate(wires):
        store_one(wire, number)
        wire.socket.close()
    two.kill()
    wait_for(lambda: all(is_gone(pid) for pid in children))
    two.set_receivers(1)
    two.start()
    assert two.children() == []
    assert rows(two) == 2
    two.stop()


def test_a_port_in_use_is_said_plainly_and_leaves_no_process(tmp_path: Path) -> None:
    receiver = ReceiverUnderTest(tmp_path / "node", receivers=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = receiver.config_file.read_text()
        port = taken.getsockname()[1]
        receiver.config_file.write_text(text.replace("port = 0", f"port = {port}"))
        done = subprocess.run(
            [sys.executable, "-m", "dicom_node.roles", "receiver", str(receiver.config_file)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "choose another address or port" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(("setting", "count"), [(0, min(cores(), AUTO_RECEIVERS)), (1, 1), (3, 3)])
def test_as_many_processes_as_the_setting_says(setting: int, count: int) -> None:
    assert NodeSection(receivers=setting).receiver_count == count
