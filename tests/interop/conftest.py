"""The node's port with its real receive path, and real peers beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig
from dicom_node.flow.ingest import Ingest
from dicom_node.net.receiver import Receiver
from dicom_node.store.rows import InstanceRow
from dicom_node.store.store import Store
from tests.interop.peers import OrthancPeer, StoreScp

NODE_AE = "PROSTATE_AI"
SENDERS = ("ORTHANC", "STORESCU", "ECHOSCU", "PACS")


@dataclass
class ReceivingNode:
    """A running port with store and spool."""

    port: int
    data_dir: Path
    store: Store
    ingest: Ingest

    def rows(self, study_uid: str) -> dict[str, InstanceRow]:
        """Rows of a study by SOP Instance UID, of all that was acknowledged."""
        self.ingest.file_pending()
        return {row.sop_instance_uid: row for row in self.store.headers_of(study_uid)}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ReceivingNode]:
    """The port of the node with its real store and spool; the peers are SENDERS."""
    peers = tuple(
        PeerConfig.model_validate({"name": ae.lower(), "ae_title": ae, "host": "127.0.0.1"})
        for ae in SENDERS
    )
    section = NodeSection(ae_title=NODE_AE, port=0, data_dir=tmp_path / "node")
    section.data_dir.mkdir()
    config = NodeConfig(node=section, peers=peers)
    clock = SystemClock()
    store = Store(config.database_url, clock=clock, create=True)
    ingest = Ingest(store, section.data_dir, clock)
    ingest.start()
    receiver = Receiver(config, store, ingest, clock)
    yield ReceivingNode(receiver.start(), section.data_dir, store, ingest)
    receiver.stop(drain_s=2)
    ingest.stop()
    store.close()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[OrthancPeer]:
    """A running Orthanc with empty storage."""
    peer = OrthancPeer(tmp_path / "orthanc")
    try:
        yield peer.start()
    finally:
        peer.close()


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StoreScp]:
    """A running DCMTK storescp."""
    scp = StoreScp(tmp_path / "storescp")
    yield scp
    scp.stop()
