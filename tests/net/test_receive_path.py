"""The port with the real receive path behind it: what is acknowledged is on disk and in a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection
from dicom_node.flow.ingest import Ingest
from dicom_node.net.outcomes import Outcome
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import Address, Outgoing, outgoing, send
from dicom_node.net.standin import dataset_bytes
from tests.databases import open_store
from tests.net.conftest import peer, wait_for, write_instance
from tests.net.wire import Wire, pdata, store_rq


class Node:
    def __init__(self, folder: Path) -> None:
        section = NodeSection(ae_title="PROSTATE_AI", port=0, data_dir=folder)
        config = NodeConfig(node=section, peers=(peer(),))
        clock = SystemClock()
        self.folder = folder
        self.store = open_store(config.database_url, clock)
        self.ingest = Ingest(self.store, folder, clock)
        self.receiver = Receiver(config, self.store, self.ingest, clock)
        self.address = Address("PROSTATE_AI", "127.0.0.1", self.receiver.start())

    def send(self, *items: Outgoing) -> list[int | None]:
        codes = [status.code for status in send(self.address, items, calling_ae="PACS")]
        self.ingest.file_pending()
        return codes

    def files(self) -> set[Path]:
        """Everything in the data folder but the database."""
        found = {p for p in self.folder.rglob("*") if p.is_file()}
        return {p for p in found if not p.name.startswith("node.sqlite3") and p.suffix != ".log"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "data").mkdir()
    made = Node(tmp_path / "data")
    yield made
    made.receiver.stop(drain_s=0)
    made.ingest.stop()
    made.store.close()


def test_stored_bytes_are_the_sent_bytes(node: Node, tmp_path: Path) -> None:
    paths = [write_instance(tmp_path) for _ in range(3)]
    assert node.send(*map(outgoing, paths)) == [0, 0, 0]
    rows = {row.sop_instance_uid: row for row in node.store.headers_of("1.2.3.4")}
    assert set(rows) == {path.stem for path in paths}
    for path in paths:
        assert dataset_bytes(node.folder / rows[path.stem].path) == dataset_bytes(path)


def test_again_is_a_success_and_one_row(node: Node, tmp_path: Path) -> None:
    item = outgoing(write_instance(tmp_path))
    assert [node.send(item), node.send(item)] == [[0], [0]]
    assert len(node.store.headers_of("1.2.3.4")) == 1


@pytest.mark.parametrize("way", ["reset", "abort"])
def test_cut_in_a_c_store_leaves_no_row_and_no_file(node: Node, way: str) -> None:
    before = node.files()
    wire = Wire(node.address.port).associate()
    wire.send(store_rq(b"1.2.3") + pdata(bytes(16_000), control=0))
    if way == "abort":
        wire.send(b"\7\0\0\0\0\4" + bytes(4))
    else:
        wire.reset()
    wait_for(lambda: not node.receiver._connections.associations())
    wire.socket.close()
    assert node.files() == before
    assert node.store.studies_list() == []


def test_r11_command_and_data_set_must_agree(node: Node, tmp_path: Path) -> None:
    path = write_instance(tmp_path)
    with Wire(node.address.port).associate() as wire:
        wire.send(store_rq(b"1.2.3.999") + pdata(dataset_bytes(path)[:16_000], control=2))
        wire.read_pdu()
    assert node.store.studies_list() == []


def test_a_truncated_data_set_is_answered_and_the_node_goes_on(node: Node, tmp_path: Path) -> None:
    broken, whole = write_instance(tmp_path), write_instance(tmp_path)
    item = outgoing(broken)
    broken.write_bytes(broken.read_bytes()[:400])
    (first, second) = send(node.address, [item, outgoing(whole)], calling_ae="PACS")
    assert first.outcome is not Outcome.SENT
    assert second.outcome is Outcome.SENT
