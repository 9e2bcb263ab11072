"""Reads a segmentation as stored: its segments, and where each frame lies (PS3.3 A.51, C.8.20).

BINARY, FRACTIONAL and LABELMAP; frames in any order, empty ones left out or not; groups shared or
for each frame. Where a frame has no position of its own, its source image gives it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sr.coding import Code
from pydicom.uid import UID

from ai_core.types import Vector3
from dicom_node.annotations.access import (
    code_of,
    first_of,
    items_of,
    number_of,
    numbers_of,
    text_of,
)
from dicom_node.dicom.pixels import MAX_FRAMES, MAX_SLICE_PIXELS
from dicom_node.domain.annotation import LABEL_MAP, AnnotationProblem, AnnotationReason

MAX_PIXELS = 2**28
MAX_SEGMENTS = 64
"""Pixels of all frames together, and segments: each of them takes a mask in memory (G5)."""
_COSINES = 1e-3
HALF = 0.5
"""A fractional value counts from this share of its maximum on."""

Stored = npt.NDArray[np.unsignedinteger[Any]]
Six = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class SegmentInfo:
    """What a segment says of itself; texts are '' where absent."""

    number: int
    label: str = ""
    description: str = ""
    category: Code | None = None
    type: Code | None = None
    tracking_uid: str = ""
    algorithm_type: str = ""
    algorithm_name: str = ""


@dataclass(frozen=True)
class Plane:
    """A frame, counted from 0: its segment (0 in a label map), centre of its first pixel (LPS)."""

    index: int
    segment: int
    position: Vector3


@dataclass(frozen=True)
class Source:
    """Where a source image lies: position, orientation, (row, column) spacing; LPS, mm."""

    position: Vector3
    orientation: Six
    spacing_mm: tuple[float, float]


Sources = Mapping[tuple[str, int], Source]
"""Source images by SOP Instance UID and frame number (from 1; 1 for a single-frame image)."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmentation; all its frames share orientation and spacing.

    ``orientation``: direction cosines of rows, then columns. ``between_mm``, ``thickness_mm``:
    distance and thickness of slices as the object states them, None where it does not.
    """

    dataset: Dataset
    segments: tuple[SegmentInfo, ...]
    planes: tuple[Plane, ...]
    orientation: Six
    spacing_mm: tuple[float, float]
    between_mm: float | None
    thickness_mm: float | None
    label_map: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.dataset.Rows), int(self.dataset.Columns)

    def values(self, index: int) -> Stored:
        """Decode a frame to [row, column]: 0 and 1, or segment numbers in a label map.

        Raises:
            AnnotationProblem: it cannot be decoded.
        """
        stored = _decode(self.dataset, index, self.shape)
        if self.label_map:
            return stored
        least = 1.0
        if text_of(self.dataset, "SegmentationType") == "FRACTIONAL":
            least = HALF * (number_of(self.dataset, "MaximumFractionalValue") or 255.0)
        return (stored >= least).astype(np.uint8)


def read_segmentation(dataset: Dataset, sources: Sources) -> Segmentation:
    """Read segments and geometry; pixels are decoded later, frame by frame.

    Raises:
        AnnotationProblem: it cannot be read, or its frames have no common geometry.
    """
    _check_size(dataset)
    label_map = (
        text_of(dataset, "SOPClassUID") == LABEL_MAP
        or text_of(dataset, "SegmentationType") == "LABELMAP"
    )
    shared = first_of(dataset, "SharedFunctionalGroupsSequence")
    groups = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    frames = int(number_of(dataset, "NumberOfFrames") or 1)
    if len(groups) != frames:
        raise AnnotationProblem(
            AnnotationReason.GEOMETRY, f"({frames} frames, {len(groups)} groups)"
        )
    places = [_place(group, shared, sources) for group in groups]
    planes = tuple(
        Plane(index, 0 if label_map else _segment_number(group, shared), place.position)
        for index, (group, place) in enumerate(zip(groups, places, strict=True))
    )
    first = places[0]
    for place in places[1:]:
        turned = np.abs(np.subtract(place.orientation, first.orientation)).max() > _COSINES
        if turned or not np.allclose(place.spacing_mm, first.spacing_mm, rtol=1e-3):
            raise AnnotationProblem(AnnotationReason.GEOMETRY, "(frames differ in their plane)")
    measures = _group(groups[0], shared, "PixelMeasuresSequence")
    return Segmentation(
        dataset, _segments(dataset, planes, label_map), planes, first.orientation,
        first.spacing_mm, _distance(measures, "SpacingBetweenSlices"),
        _distance(measures, "SliceThickness"), label_map,
    )  # fmt: skip


def _check_size(dataset: Dataset) -> None:
    """Refuse before anything of that size is decoded (G5)."""
    rows, columns, frames = (
        int(number_of(dataset, keyword) or 0) for keyword in ("Rows", "Columns", "NumberOfFrames")
    )
    good = (
        0 < rows * columns <= MAX_SLICE_PIXELS
        and 0 < frames <= MAX_FRAMES
        and rows * columns * frames <= MAX_PIXELS
        and len(items_of(dataset, "SegmentSequence")) <= MAX_SEGMENTS
        and int(number_of(dataset, "SamplesPerPixel") or 1) == 1
        and bool(dataset.get("PixelData"))
    )
    if not good:
        detail = f"({frames} frames of {rows} x {columns} pixels)"
        raise AnnotationProblem(AnnotationReason.UNREADABLE, detail)


def _segments(
    dataset: Dataset, planes: tuple[Plane, ...], label_map: bool
) -> tuple[SegmentInfo, ...]:
    """Return what is said of each segment; frames may name one that is not described."""
    found: dict[int, SegmentInfo] = {}
    for item in items_of(dataset, "SegmentSequence"):
        number = int(number_of(item, "SegmentNumber") or 0)
        if number > 0:  # 0 is the background of a label map
            found[number] = _segment(item, number)
    if not label_map:
        for plane in planes:
            found.setdefault(plane.segment, SegmentInfo(plane.segment))
    return tuple(found[number] for number in sorted(found))


def _segment(item: Dataset, number: int) -> SegmentInfo:
    return SegmentInfo(
        number=number,
        label=text_of(item, "SegmentLabel")[:64],
        description=text_of(item, "SegmentDescription")[:256],
        category=code_of(item, "SegmentedPropertyCategoryCodeSequence"),
        type=code_of(item, "SegmentedPropertyTypeCodeSequence"),
        tracking_uid=text_of(item, "TrackingUID"),
        algorithm_type=text_of(item, "SegmentAlgorithmType").upper(),
        algorithm_name=text_of(item, "SegmentAlgorithmName"),
    )


def _group(own: Dataset, shared: Dataset | None, keyword: str) -> Dataset | None:
    return first_of(own, keyword) or first_of(shared, keyword)


def _segment_number(own: Dataset, shared: Dataset | None) -> int:
    number = number_of(
        _group(own, shared, "SegmentIdentificationSequence"), "ReferencedSegmentNumber"
    )
    if number is None or number < 1:
        raise AnnotationProblem(AnnotationReason.UNREADABLE, "(a frame names no segment)")
    return int(number)


def _place(own: Dataset, shared: Dataset | None, sources: Sources) -> Source:
    position = numbers_of(_group(own, shared, "PlanePositionSequence"), "ImagePositionPatient", 3)
    plane = _group(own, shared, "PlaneOrientationSequence")
    orientation = numbers_of(plane, "ImageOrientationPatient", 6)
    measures = _group(own, shared, "PixelMeasuresSequence")
    spacing = numbers_of(measures, "PixelSpacing", 2)
    source = _source(own, shared, sources)
    if source is not None:
        position = position or source.position
        orientation = orientation or source.orientation
        spacing = spacing or source.spacing_mm
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        raise AnnotationProblem(AnnotationReason.GEOMETRY)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = (np.linalg.norm(row), np.linalg.norm(column), 1 + np.dot(row, column))
    if not np.allclose(lengths, 1, atol=0.01) or not np.isfinite([*position, *spacing]).all():
        raise AnnotationProblem(AnnotationReason.GEOMETRY)
    x, y, z = position
    a, b, c, d, e, f = orientation
    return Source((x, y, z), (a, b, c, d, e, f), (spacing[0], spacing[1]))


def _source(own: Dataset, shared: Dataset | None, sources: Sources) -> Source | None:
    derivation = _group(own, shared, "DerivationImageSequence")
    image = first_of(derivation, "SourceImageSequence")
    frame = int(number_of(image, "ReferencedFrameNumber") or 1)
    return sources.get((text_of(image, "ReferencedSOPInstanceUID"), frame))


def _distance(measures: Dataset | None, keyword: str) -> float | None:
    value = number_of(measures, keyword)
    return value if value is not None and np.isfinite(value) and value > 0 else None


def _decode(dataset: Dataset, index: int, shape: tuple[int, int]) -> Stored:
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    bits = int(number_of(dataset, "BitsAllocated") or 0)
    if bits == 1 and not syntax.is_compressed:
        return _bits(dataset.PixelData, index, shape)
    if bits not in (1, 8, 16):
        raise AnnotationProblem(AnnotationReason.UNREADABLE, f"({bits} bits allocated)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about padding; the shape is checked below
            array, _ = get_decoder(syntax).as_array(dataset, index=index)
    except Exception as error:  # each codec raises errors of its own
        detail = f"(frame {index + 1}: {type(error).__name__})"
        raise AnnotationProblem(AnnotationReason.UNREADABLE, detail) from error
    if array.shape != shape:
        raise AnnotationProblem(AnnotationReason.UNREADABLE, f"(frame {index + 1})")
    return np.asarray(array, dtype=np.uint8 if bits <= 8 else np.uint16)


def _bits(data: bytes, index: int, shape: tuple[int, int]) -> Stored:
    """Unpack a frame of single bits; frames follow each other without a gap (PS3.5 8.1.1)."""
    count = shape[0] * shape[1]
    start, stop = index * count, (index + 1) * count
    packed = np.frombuffer(data[start // 8 : (stop + 7) // 8], dtype=np.uint8)
    unpacked = np.unpackbits(packed, bitorder="little")[start % 8 : start % 8 + count]
    if unpacked.size != count:
        raise AnnotationProblem(AnnotationReason.UNREADABLE, f"(frame {index + 1} is cut off)")
    return unpacked.reshape(shape)
