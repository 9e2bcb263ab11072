"""Sockets on loopback, instances in every transfer syntax, and a receive path that remembers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig, TlsSection
from dicom_node.net.limits import ServerLimits
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import Address
from dicom_node.store.store import Store
from tests.databases import open_store

NODE_AE = "PROSTATE_AI"
MR = "1.2.840.10008.5.1.4.1.1.4"


@dataclass(frozen=True)
class Answer:
    status: int = 0
    comment: str = ""
    study_uid: str = ""
    patient_id: str = ""


@dataclass
class MemoryIngest:
    """The collaborator of the port, in memory: keeps what it is given, answers as told."""

    received: list[dict[str, object]] = field(default_factory=list)
    answer: Answer = Answer()
    error: Exception | None = None
    hold: threading.Event | None = None

    def accept(self, **values: object) -> Answer:
        if self.hold is not None:
            self.hold.wait(60)
        if self.error is not None:
            raise self.error
        self.received.append(values)
        return self.answer


@dataclass
class OpenPort:
    """A running port and what reached it."""

    port: int
    ingest: MemoryIngest
    store: Store
    handle: Receiver
    database_url: str

    @property
    def address(self) -> Address:
        return Address(NODE_AE, "127.0.0.1", self.port)

    @property
    def tls_address(self) -> Address:
        assert self.handle.tls_port is not None
        return Address(NODE_AE, "127.0.0.1", self.handle.tls_port, tls=True)

    def refusals(self) -> list[tuple[str, str, str, str]]:
        """Who was refused: calling AE, called AE, address, reason; the latest first."""
        keys = ("calling_ae", "called_ae", "address", "reason")
        return [tuple(row[key] for key in keys) for row in self.store.refusals()]


def peer(ae_title: str = "PACS", host: str = "127.0.0.1", **values: object) -> PeerConfig:
    fields = {"name": ae_title.lower(), "ae_title": ae_title, "host": host, **values}
    return PeerConfig.model_validate(fields)


def wait_for(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    """Poll until the condition holds. The limit is long: only a failure takes the whole of it."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("did not happen in time")


OpenPortWith = Callable[..., OpenPort]


@pytest.fixture
def open_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPortWith]:
    """Open a port on loopback with a real database; all are closed at the end of the test."""
    opened: list[OpenPort] = []

    def start(
        peers: Sequence[PeerConfig] = (),
        limits: ServerLimits | None = None,
        tls: TlsSection | None = None,
    ) -> OpenPort:
        folder = tmp_path_factory.mktemp("node")
        config = NodeConfig(
            node=NodeSection(ae_title=NODE_AE, port=0, data_dir=folder),
            peers=tuple(peers or [peer()]),
            tls=tls or TlsSection(),
        )
        clock = SystemClock()
        store = open_store(config.database_url, clock)
        ingest = MemoryIngest()
        receiver = Receiver(config, store, ingest, clock, limits)
        opened.append(OpenPort(receiver.start(), ingest, store, receiver, config.database_url))
        return opened[-1]

    yield start
    for item in opened:
        item.handle.stop(drain_s=0)
        item.store.close()


def write_instance(
    folder: Path,
    *,
    syntax: str = ExplicitVRLittleEndian,
    sop_class: str = MR,
    study: str = "1.2.3.4",
    kilobytes: int = 8,
) -> Path:
    """Write one instance as a Part 10 file. Compressed frames are arbitrary bytes."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, study + ".1"
    dataset.PatientName, dataset.PatientID = "Test^Node", "T1"
    dataset.Rows, dataset.Columns = 64, 8 * kilobytes
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    pixels = bytes(i * 7 % 251 for i in range(1024)) * kilobytes
    uid = UID(syntax)
    dataset.PixelData = encapsulate([pixels]) if uid.is_compressed else pixels
    dataset["PixelData"].VR = "OB" if uid.is_compressed else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
