"""The packaged study that tests a connection: unpack it, and say what is in it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import dcmread

from dicom_node.domain.profile import Encoded
from dicom_node.errors import StoreError
from dicom_node.net.sender import Outgoing, outgoing
from dicom_node.samples import sample

ARCHIVE = "connection-test.zip"
IMAGES, RESULTS = "images", "results"
PATIENT_ID = "PROSTATE-AI-TEST"


@dataclass(frozen=True)
class SampleObject:
    """One object of the study. ``form``: kind and variant of a result; None: an image."""

    item: Outgoing
    series_uid: str
    form: Encoded | None


@dataclass(frozen=True)
class SampleStudy:
    """The study, unpacked: images of one series, then results of every kind in every form."""

    study_uid: str
    objects: Sequence[SampleObject]


@contextmanager
def unpacked() -> Iterator[SampleStudy]:
    """Unpack the study into a temporary folder that goes afterwards.

    Raises:
        StoreError: the installation lacks the file, or there is no room.
    """
    with TemporaryDirectory(prefix="dicom-node-test-study-") as scratch:
        try:
            with zipfile.ZipFile(sample(ARCHIVE)) as archive:
                archive.extractall(scratch)
        except (OSError, zipfile.BadZipFile) as error:
            raise StoreError(
                f"the test study cannot be unpacked ({type(error).__name__})",
                "check the room in the temporary folder, or install this program again",
            ) from None
        paths = sorted(Path(scratch).rglob("*.dcm"), key=_place)
        headers = [
            dcmread(path, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"]) for path in paths
        ]
        objects = [
            _described(path, str(header.SeriesInstanceUID))
            for path, header in zip(paths, headers, strict=True)
        ]
        yield SampleStudy(str(headers[0].StudyInstanceUID), objects)


def _place(path: Path) -> tuple[bool, str]:
    """Images first; then the results in the order in which they were made."""
    return _form(path) is not None, path.name


def _form(path: Path) -> tuple[str, str] | None:
    if path.parent.name == IMAGES:
        return None
    kind, _, variant = path.parent.name.partition(".")
    return kind, variant


def _described(path: Path, series_uid: str) -> SampleObject:
    item, form = outgoing(path), _form(path)
    encoded = None if form is None else Encoded(*form, item.sop_class_uid)
    return SampleObject(item, series_uid, encoded)
