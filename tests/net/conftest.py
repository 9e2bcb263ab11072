"""Sockets on loopback, instances in every transfer syntax, and a receive path that remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from dicom_node.config import NodeConfig, NodeSection, PeerConfig
from dicom_node.net.access import Refusal, Requester
from dicom_node.net.limits import ServerLimits
from dicom_node.net.receiver import Port
from dicom_node.net.sender import Address

NODE_AE = "PROSTATE_AI"
MR = "1.2.840.10008.5.1.4.1.1.4"


@dataclass(frozen=True)
class Answer:
    status: int = 0
    comment: str = ""


@dataclass
class MemoryIngest:
    """The collaborator of the port, in memory: keeps what it is given, answers as told."""

    received: list[dict[str, object]] = field(default_factory=list)
    answer: Answer = Answer()
    error: Exception | None = None
    hold: threading.Event | None = None

    def accept(self, **values: object) -> Answer:
        if self.hold is not None:
            self.hold.wait(10)
        if self.error is not None:
            raise self.error
        self.received.append(values)
        return self.answer


@dataclass
class OpenPort:
    """A running port and what reached it."""

    port: int
    ingest: MemoryIngest
    peers: list[PeerConfig]
    refusals: list[tuple[Requester, Refusal, str]]
    handle: Port

    @property
    def address(self) -> Address:
        return Address(NODE_AE, "127.0.0.1", self.port)


def peer(ae_title: str = "PACS", host: str = "127.0.0.1", **values: object) -> PeerConfig:
    fields = {"name": ae_title.lower(), "ae_title": ae_title, "host": host, **values}
    return PeerConfig.model_validate(fields)


OpenPortWith = Callable[..., OpenPort]


@pytest.fixture
def open_port() -> Iterator[OpenPortWith]:
    """Open a port on loopback; all are closed at the end of the test."""
    opened: list[OpenPort] = []

    def start(
        peers: Sequence[PeerConfig] = (), limits: ServerLimits | None = None
    ) -> OpenPort:
        config = NodeConfig(node=NodeSection(ae_title=NODE_AE, port=0))
        ingest, known = MemoryIngest(), list(peers or [peer()])
        refusals: list[tuple[Requester, Refusal, str]] = []
        port = Port(
            config, ingest, lambda: tuple(known), lambda *r: refusals.append(r), limits
        )
        opened.append(OpenPort(port.start(), ingest, known, refusals, port))
        return opened[-1]

    yield start
    for item in opened:
        item.handle.stop(drain_s=0)


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
