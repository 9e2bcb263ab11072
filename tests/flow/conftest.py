"""Instances, clocks and stores for the tests of the flow."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.flow.ingest import Ingest, IngestAnswer
from dicom_node.flow.journal import JournalLimits
from dicom_node.flow.promote import evaluate_due
from dicom_node.store.store import Store
from tests.databases import BOTH, database, fast_folder, open_store

MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY = "1.2.826.0.1.3680043.8.498.1"
T2W, ADC, DCE = "t2w", "adc", "dce"
_SERIES = {T2W: (1, "t2_tse_tra"), ADC: (2, "ep2d_diff_ADC"), DCE: (3, "dce_tra"), "sag": (4, "x")}


def mr_image(
    kind: str = T2W, index: int = 0, study: str = STUDY, slices: int = 20, **changes: object
) -> Dataset:
    """One slice of an axial series: 100 x 100 pixels of 1 mm."""
    number, description = _SERIES[kind]
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"] if kind == ADC else [
        "ORIGINAL", "PRIMARY", "M", "ND",
    ]  # fmt: skip
    image.SOPClassUID = MR
    image.SOPInstanceUID = f"{study}.{number}.{index + 1}"
    image.StudyInstanceUID = study
    image.SeriesInstanceUID = f"{study}.{number}"
    image.Modality = "MR"
    image.Manufacturer = "Simulated"
    image.StudyDescription = "MRI prostate"
    image.SeriesDescription = description
    image.BodyPartExamined = "PROSTATE"
    image.PatientName = "Test^Patient"
    image.PatientID = "P1"
    image.PatientBirthDate = "19500101"
    image.PatientSex = "M"
    image.ScanningSequence = "EP" if kind == ADC else "SE"
    image.SequenceVariant = "SK"
    image.MRAcquisitionType = "2D"
    image.SliceThickness = "3"
    image.EchoTime = "60" if kind == ADC else "100"
    image.RepetitionTime = "4000"
    image.FlipAngle = "90"
    image.StudyDate = image.AcquisitionDate = "20260101"
    image.StudyTime = image.AcquisitionTime = "101010"
    image.SeriesNumber = number
    image.InstanceNumber = index + 1
    image.AcquisitionNumber = 1
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [-50, -50, 3.0 * index - 1.5 * slices]
    image.FrameOfReferenceUID = f"{study}.99"
    image.PixelSpacing = [1, 1]
    image.Rows = image.Columns = 100
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.PixelData = bytes([index, 0]) * 10_000
    for name, value in changes.items():
        setattr(image, name, value)
    return image


def encoded(image: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set alone, in a native transfer syntax."""
    buffer = io.BytesIO()
    image = Dataset(image)  # without the preamble and file meta information of a file
    implicit = syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(buffer, image, implicit_vr=implicit, little_endian=True)
    return buffer.getvalue()


def series(kind: str, slices: int = 20, study: str = STUDY, **changes: object) -> list[Dataset]:
    """A whole axial series."""
    return [mr_image(kind, index, study, slices, **changes) for index in range(slices)]


SMALL = JournalLimits(log_bytes=2**20, total_bytes=2**23, kept_logs=2, wait_s=0.2)


@dataclass
class Node:
    """A store, a clock and the receive path on one data folder."""

    data_dir: Path
    clock: ManualClock
    database: str = ""
    config: NodeConfig = field(init=False)
    store: Store = field(init=False)
    ingest: Ingest = field(init=False)

    def __post_init__(self) -> None:
        self.config = NodeConfig.model_validate(
            {"node": {"data_dir": self.data_dir, "database": self.database}}
        )
        self.open()

    def open(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.store = open_store(self.config.database_url, self.clock, "here")
        self.ingest = Ingest(self.store, self.data_dir, self.clock, SMALL)

    def restart_ingest(self) -> None:
        """A receiver that is started again; without the threads that it has in a node."""
        self.ingest.stop()
        self.ingest = Ingest(self.store, self.data_dir, self.clock, SMALL)
        self.ingest._filing.file_leftovers()

    def send(self, image: Dataset, syntax: str = ExplicitVRLittleEndian) -> IngestAnswer:
        answer = self.receive(image, syntax)
        self.ingest.file_pending()
        return answer

    def receive(self, image: Dataset, syntax: str = ExplicitVRLittleEndian) -> IngestAnswer:
        """Take an image in; its file and row do not follow yet."""
        return self.ingest.accept(
            dataset_bytes=encoded(image, syntax), transfer_syntax_uid=syntax,
            sop_class_uid=image.SOPClassUID, sop_instance_uid=image.SOPInstanceUID,
            calling_ae="MR1", called_ae="PROSTATE_AI", address="10.0.0.1",
        )  # fmt: skip

    def send_all(self, images: list[Dataset]) -> None:
        """Take them in, and file them together."""
        for start in range(0, len(images), 100):  # no more than the journal has room for
            answers = [self.receive(image) for image in images[start : start + 100]]
            assert {answer.status for answer in answers} == {0}
            self.ingest.file_pending()

    def evaluate(self) -> None:
        for _ in range(5):
            if evaluate_due(self.store, self.data_dir, self.clock, self.config) == 0:
                return

    def state(self, study: str = STUDY) -> tuple[int, str, str | None]:
        last = self.store.studies_show(study)[0]
        return last["revision"], last["state"], last["reason"]


ON_BOTH = {"test_promote", "test_adopt"}
"""Modules about what several hosts do with one database."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run these modules on both databases."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if name in ON_BOTH and "node" in metafunc.fixturenames:
        metafunc.parametrize("node", BOTH, indirect=True)


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node in memory where there is such a folder: most tests are not about the disk."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=fast_folder()))
        url = ""
        if getattr(request, "param", "sqlite") == "postgresql":
            server = request.getfixturevalue("postgresql_template")
            url = stack.enter_context(contextmanager(database)(server))
        made = Node(Path(folder) / "data", ManualClock(), url)
        stack.callback(made.store.close)
        yield made
