"""Write MR Image Storage instances (PS3.3 A.4): the other direction, for synthetic studies."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gdcm
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ai_core.types import Geometry
from dicom_node.dicom.header import MR_IMAGE

BITS_STORED = 12
MAX_STORED = 2**BITS_STORED - 1
# UUID-derived, as PS3.5 B.2 allows; names the writer, not an organisation
_IMPLEMENTATION_UID = "2.25.196862871430281290532706229403110867841"
_IMPLEMENTATION_NAME = "PHANTOM_WRITER"
_GDCM_SYNTAXES = {
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
}


@dataclass(frozen=True)
class Recipe:
    """How a series is described: sequence, timing in ms, flip angle in degrees."""

    name: str
    number: int
    description: str
    image_type: tuple[str, ...]
    scanning_sequence: str
    sequence_variant: tuple[str, ...]
    scan_options: tuple[str, ...]
    acquisition_type: str
    sequence_name: str
    repetition_time_ms: float
    echo_time_ms: float
    echo_train_length: int
    flip_angle_deg: float


@dataclass(frozen=True)
class Slice:
    """One image to write: stored values, where it lies, and elements of its own."""

    stored: npt.NDArray[np.uint16]
    geometry: Geometry
    z: int
    seconds: float
    elements: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def image_dataset(recipe: Recipe, image: Slice, common: Mapping[str, Any]) -> Dataset:
    """Build one MR image.

    Args:
        recipe: the series.
        image: the slice; ``seconds`` is its acquisition time since midnight.
        common: elements by keyword: identity, study, UIDs, numbers. They win over the rest.
    """
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = MR_IMAGE
    dataset.Modality = "MR"
    _describe(dataset, recipe)
    _place(dataset, image)
    time = time_text(image.seconds)
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = time
    _set_pixels(dataset, image.stored)
    for keyword, value in {**image.elements, **common}.items():
        setattr(dataset, keyword, value)
    return dataset


def _describe(dataset: Dataset, recipe: Recipe) -> None:
    dataset.SeriesNumber = recipe.number
    dataset.SeriesDescription = dataset.ProtocolName = recipe.description
    dataset.ImageType = list(recipe.image_type)
    dataset.ScanningSequence = recipe.scanning_sequence
    dataset.SequenceVariant = list(recipe.sequence_variant)
    dataset.ScanOptions = list(recipe.scan_options)
    dataset.MRAcquisitionType = recipe.acquisition_type
    dataset.SequenceName = recipe.sequence_name
    dataset.RepetitionTime = recipe.repetition_time_ms
    dataset.EchoTime = recipe.echo_time_ms
    dataset.EchoTrainLength = recipe.echo_train_length
    dataset.FlipAngle = recipe.flip_angle_deg
    dataset.MagneticFieldStrength = 3
    dataset.ImagedNucleus = "1H"
    dataset.AcquisitionNumber = 1


def _place(dataset: Dataset, image: Slice) -> None:
    geometry = image.geometry
    spacing_x, spacing_y, spacing_z = geometry.spacing_xyz_mm
    columns = np.asarray(geometry.direction)
    position = np.asarray(geometry.origin_lps_mm) + columns[:, 2] * spacing_z * image.z
    dataset.ImagePositionPatient = [_decimal(v) for v in position]
    dataset.ImageOrientationPatient = [_decimal(v) for v in (*columns[:, 0], *columns[:, 1])]
    dataset.PixelSpacing = [_decimal(spacing_y), _decimal(spacing_x)]
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _decimal(spacing_z)
    dataset.SliceLocation = _decimal(float(position @ columns[:, 2]))
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"


def _decimal(value: float) -> str:
    """Format a DS value: 16 characters at most (PS3.5 6.2); minus zero is zero."""
    return f"{round(value, 8) + 0.0:.8g}"


def time_text(seconds: float) -> str:
    """Format seconds since midnight as TM."""
    whole, fraction = divmod(round(seconds * 1000), 1000)
    hours, rest = divmod(whole, 3600)
    return f"{hours % 24:02d}{rest // 60:02d}{rest % 60:02d}.{fraction:03d}000"


def _set_pixels(dataset: Dataset, stored: npt.NDArray[np.uint16]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = BITS_STORED
    dataset.HighBit = BITS_STORED - 1
    dataset.PixelRepresentation = 0
    high = int(np.percentile(stored, 99.5))
    dataset.WindowCenter = max(high // 2, 1)
    dataset.WindowWidth = max(high, 2)
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def encode_part10(dataset: Dataset, transfer_syntax_uid: str) -> bytes:
    """Encode a data set as a Part 10 file.

    Raises:
        ValueError: the transfer syntax is not one that the writer knows.
    """
    syntax = UID(transfer_syntax_uid)
    meta = FileMetaDataset()
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    meta.ImplementationVersionName = _IMPLEMENTATION_NAME
    dataset.file_meta = meta
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax == ImplicitVRLittleEndian:
        meta.TransferSyntaxUID = ImplicitVRLittleEndian
    elif syntax in (RLELossless, JPEGLSLossless):
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax in _GDCM_SYNTAXES:
        _compress_with_gdcm(dataset, syntax)
    elif syntax != ExplicitVRLittleEndian:
        raise ValueError(f"the phantom cannot be written as {syntax.name}")
    return _bytes_of(dataset)


def _bytes_of(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _compress_with_gdcm(dataset: Dataset, syntax: UID) -> None:
    """Replace the pixel data by its compressed form; GDCM reads and writes files only."""
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain.dcm", Path(folder) / "packed.dcm"
        plain.write_bytes(_bytes_of(dataset))
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(_GDCM_SYNTAXES[syntax]))
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(packed))
        if not reader.Read():
            raise ValueError("GDCM cannot read the image that is to be compressed")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise ValueError(f"GDCM cannot compress to {syntax.name}")
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise ValueError("GDCM cannot write the compressed image")
        compressed = pydicom.dcmread(packed)
    dataset.PixelData = compressed.PixelData
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
