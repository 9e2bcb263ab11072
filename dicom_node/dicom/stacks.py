"""Split series into stacks: frames of one orientation, contrast and b-value on a regular grid."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from dicom_node.dicom.bvalue import TAG_SOURCES
from dicom_node.dicom.records import FrameRecord, InstanceHeader

MIN_POSITIONS = 10
_COSINE_TOLERANCE = 1e-3
_SPACING_TOLERANCE_MM = 0.1
_SPACING_TOLERANCE = 0.01
_SAME_PLACE_MM = 0.05
_AXIAL_MIN = 0.8  # admits obliques up to about 37 degrees


class Orientation(StrEnum):
    """Main plane of a stack, by the dominant component of its normal."""

    AXIAL = "axial"
    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    OBLIQUE = "oblique"


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice image: an instance, or a frame of a multi-frame instance, with its geometry."""

    header: InstanceHeader
    index: int | None
    ipp: tuple[float, ...]
    iop: tuple[float, ...]
    spacing: tuple[float, ...]
    image_type: frozenset[str]
    b_value: float | None
    b_source: str
    directionality: str
    echo_time: float | None
    temporal_position: int | None
    time_s: float | None
    offset: float

    @property
    def record(self) -> FrameRecord | None:
        """Record of this frame in a multi-frame instance."""
        return None if self.index is None else self.header.frames[self.index]

    @property
    def key(self) -> tuple[str, int]:
        """Sort key: SOP instance UID and frame."""
        return (self.header.sop_instance_uid, -1 if self.index is None else self.index)


class FrameRef(NamedTuple):
    """Where the pixels of one slice are. ``frame_index`` counts from 0; None: single-frame."""

    sop_instance_uid: str
    frame_index: int | None


@dataclass(frozen=True)
class Stack:
    """Slices of one geometry and contrast, ordered along the slice normal (row x column).

    ``positions_mm`` are the distances along the normal; spacing is (between rows, between columns).
    """

    frames: tuple[Frame, ...]
    positions_mm: tuple[float, ...]
    normal: tuple[float, float, float]
    duplicates: tuple[Frame, ...] = ()

    @property
    def header(self) -> InstanceHeader:
        """Header of the first slice: what all slices share."""
        return self.frames[0].header

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self.header.series_uid

    @property
    def description(self) -> str:
        """Series description, or the protocol name where it is empty."""
        return self.header.series_description or self.header.protocol_name

    @property
    def b_value(self) -> float | None:
        """b-value in s/mm^2."""
        return self.frames[0].b_value

    @property
    def refs(self) -> tuple[FrameRef, ...]:
        """Instances and frames in stack order."""
        return tuple(FrameRef(f.header.sop_instance_uid, f.index) for f in self.frames)

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        """Instances in stack order, each once."""
        return tuple(dict.fromkeys(f.header.sop_instance_uid for f in self.frames))

    @cached_property
    def gaps_mm(self) -> tuple[float, ...]:
        """Distances between neighbouring slices."""
        return tuple(b - a for a, b in pairwise(self.positions_mm))

    @cached_property
    def slice_spacing_mm(self) -> float:
        """Median distance between slices; the thickness where there is one slice only."""
        if not self.gaps_mm:
            return self.header.slice_thickness or 0.0
        return sorted(self.gaps_mm)[len(self.gaps_mm) // 2]

    @cached_property
    def uniform(self) -> bool:
        """Whether no slice is missing: spacing equal within 1 % or 0.1 mm."""
        tolerance = max(_SPACING_TOLERANCE_MM, _SPACING_TOLERANCE * self.slice_spacing_mm)
        return all(abs(gap - self.slice_spacing_mm) <= tolerance for gap in self.gaps_mm)

    @property
    def coverage_mm(self) -> float:
        """Length covered along the normal, outer slices included."""
        return self.positions_mm[-1] - self.positions_mm[0] + self.slice_spacing_mm

    @cached_property
    def orientation(self) -> Orientation:
        """Main plane."""
        size = [abs(v) for v in self.normal]
        axis = size.index(max(size))
        if size[axis] < _AXIAL_MIN:
            return Orientation.OBLIQUE
        return (Orientation.SAGITTAL, Orientation.CORONAL, Orientation.AXIAL)[axis]

    @cached_property
    def time_s(self) -> float | None:
        """Earliest acquisition time of its slices, seconds since an arbitrary midnight."""
        times = [f.time_s for f in self.frames if f.time_s is not None]
        return min(times) if times else None

    @cached_property
    def corners_lps_mm(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Box along the patient axes around the voxel centres: lowest and highest corner."""
        points = [corner for f in (self.frames[0], self.frames[-1]) for corner in _slice_corners(f)]
        axes = tuple(zip(*points, strict=True))
        return tuple(map(min, axes)), tuple(map(max, axes))

    def same_grid(self, other: Stack) -> bool:
        """Whether another stack has the same frame of reference, slices and pixels."""
        mine, theirs = self.frames[0], other.frames[0]
        return (
            mine.header.frame_of_reference_uid == theirs.header.frame_of_reference_uid
            and len(self.frames) == len(other.frames)
            and (mine.header.rows, mine.header.columns)
            == (theirs.header.rows, theirs.header.columns)
            and _close(mine.spacing, theirs.spacing, 1e-3)
            and _close(mine.iop, theirs.iop, _COSINE_TOLERANCE)
            and math.dist(mine.ipp, theirs.ipp) < 0.5
            and math.dist(self.frames[-1].ipp, other.frames[-1].ipp) < 0.5
        )


class Unplaced(NamedTuple):
    """An image that belongs to no stack, and why."""

    header: InstanceHeader
    reason: str


def expand(headers: Iterable[InstanceHeader]) -> tuple[list[Frame], list[Unplaced]]:
    """Frames of all instances in a fixed order, and images whose geometry cannot be read."""
    frames: list[Frame] = []
    unplaced: list[Unplaced] = []
    for header in sorted(headers, key=lambda h: h.sop_instance_uid):
        for record in header.frames or (None,):
            frame = _frame(header, record)
            if isinstance(frame, str):
                unplaced.append(Unplaced(header, frame))
                break
            frames.append(frame)
    return frames, unplaced


def _frame(header: InstanceHeader, record: FrameRecord | None) -> Frame | str:
    own = record or FrameRecord(index=0)
    ipp, iop = own.ipp or header.ipp, own.iop or header.iop
    spacing = own.pixel_spacing or header.pixel_spacing
    if ipp is None or iop is None:
        return "image position or orientation is missing"
    if not header.frame_of_reference_uid:
        return "the frame of reference is missing"
    if spacing is None or min(spacing) <= 0 or not header.rows or not header.columns:
        return "pixel spacing or matrix size is missing"
    if not _orthonormal(iop):
        return "the image orientation is not a pair of perpendicular unit vectors"
    b_value, b_source = own.b_value, own.b_source
    if b_value is None:
        b_value, b_source = header.b_value, header.b_source
    return Frame(
        header=header,
        index=None if record is None else record.index,
        ipp=ipp,
        iop=iop,
        spacing=spacing,
        image_type=frozenset(own.image_type or header.image_type),
        b_value=b_value,
        b_source=b_source,
        directionality=own.directionality or header.directionality,
        echo_time=own.echo_time if own.echo_time is not None else header.echo_time,
        temporal_position=own.temporal_position or header.temporal_position,
        time_s=_time_of(header, own),
        offset=_along(ipp, _normal(iop)),
    )


def _time_of(header: InstanceHeader, record: FrameRecord) -> float | None:
    stamp = record.acquisition_datetime or header.acquisition_datetime
    if stamp:
        return seconds_of(stamp[:8], stamp[8:])
    return seconds_of(header.acquisition_date, header.acquisition_time)


_TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2}(?:\.\d+)?)?")


def seconds_of(date: str, time: str) -> float | None:
    """Seconds of a DA and a TM value (PS3.5 6.2) on a scale that only grows; None if unreadable."""
    match = _TIME.match(time)
    if not match:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    digits = date.replace(".", "")
    days = 0
    if len(digits) >= 8 and digits[:8].isdigit():
        # 31-day months keep the order and the difference of two times within one month
        days = (int(digits[:4]) * 12 + int(digits[4:6])) * 31 + int(digits[6:8])
    return days * 86400.0 + hours * 3600 + minutes * 60 + seconds


def _orthonormal(iop: Sequence[float]) -> bool:
    a, b, c, d, e, f = iop
    return (
        abs(math.hypot(a, b, c) - 1) < 0.01
        and abs(math.hypot(d, e, f) - 1) < 0.01
        and abs(a * d + b * e + c * f) < 0.01
    )


def _close(a: Sequence[float], b: Sequence[float], tolerance: float) -> bool:
    return all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


def _slice_corners(frame: Frame) -> list[tuple[float, ...]]:
    rows, columns = frame.header.rows or 1, frame.header.columns or 1
    right = [v * frame.spacing[1] * (columns - 1) for v in frame.iop[:3]]
    down = [v * frame.spacing[0] * (rows - 1) for v in frame.iop[3:]]
    return [
        tuple(p + i * r + j * d for p, r, d in zip(frame.ipp, right, down, strict=True))
        for i in (0, 1)
        for j in (0, 1)
    ]


def split(frames: Sequence[Frame]) -> list[Stack]:
    """Stacks of all series (results in a fixed order whatever the order of the images).

    Frames differ in stack by frame of reference, orientation, matrix, spacing, image type,
    b-value, directionality and echo time. Where that leaves several images at one position, they
    are parted in time: temporal position, acquisition number, then order of acquisition.
    """
    groups: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    known: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for frame in _fill_b_zero(frames):
        header = frame.header
        key = (
            header.series_uid,
            header.frame_of_reference_uid,
            _representative(frame.iop, known[header.series_uid], _COSINE_TOLERANCE),
            header.rows,
            header.columns,
            tuple(round(v, 3) for v in frame.spacing),
            tuple(sorted(frame.image_type)),
            None if is_adc_type(frame.image_type) else frame.b_value,
            frame.directionality,
            None if frame.echo_time is None else round(frame.echo_time, 1),
            header.flip_angle,
            header.has_pixel_data,
        )
        groups[key].append(frame)
    return [stack for group in groups.values() for stack in _part_in_time(group)]


def is_adc_type(image_type: frozenset[str]) -> bool:
    """Whether Image Type or Frame Type names an ADC map (``ADC``, ``..._ADC``), not an eADC."""
    return any("ADC" in token.upper().split("_") for token in image_type)


def _fill_b_zero(frames: Sequence[Frame]) -> list[Frame]:
    """GE writes the public b-value but leaves it out for b = 0."""
    with_b = {f.header.series_uid for f in frames if f.b_source in ("public", "ge") and f.b_value}
    return [
        replace(f, b_value=0.0, b_source="absent-means-zero")
        if f.b_value is None
        and f.header.series_uid in with_b
        and f.header.manufacturer.upper().startswith("GE")
        and not is_adc_type(f.image_type)
        else f
        for f in frames
    ]


def _representative(
    value: tuple[float, ...], known: list[tuple[float, ...]], tolerance: float
) -> tuple[float, ...]:
    for other in known:
        if value == other or _close(value, other, tolerance):
            return other
    known.append(value)
    return value


_TIME_PARTS: tuple[Callable[[Frame], int | None], ...] = (
    lambda frame: frame.temporal_position,
    lambda frame: frame.header.acquisition_number,
)


def _part_in_time(group: list[Frame]) -> list[Stack]:
    normal = _normal(group[0].iop)
    shared = group[0].iop
    placed = [f if f.iop == shared else replace(f, offset=_along(f.ipp, normal)) for f in group]
    if not _has_duplicates(placed):
        return [_stack(placed, normal)]
    for part in _TIME_PARTS:
        parts: dict[int | None, list[Frame]] = defaultdict(list)
        for frame in placed:
            parts[part(frame)].append(frame)
        if len(parts) > 1 and not any(_has_duplicates(frames) for frames in parts.values()):
            return [_stack(frames, normal) for frames in parts.values()]
    return _by_occurrence(placed, normal)


def _along(point: Sequence[float], normal: Sequence[float]) -> float:
    return point[0] * normal[0] + point[1] * normal[1] + point[2] * normal[2]


def _has_duplicates(frames: Sequence[Frame]) -> bool:
    offsets = sorted(f.offset for f in frames)
    return any(b - a < _SAME_PLACE_MM for a, b in pairwise(offsets))


MIN_REPEATS = 5
"""This many images at every position are a dynamic series; fewer are duplicates."""


def _by_occurrence(frames: list[Frame], normal: tuple[float, float, float]) -> list[Stack]:
    """Images at one position in order of acquisition: time points, or duplicates of one stack."""
    places: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda f: (f.offset, f.key)):
        if places and frame.offset - places[-1][0].offset < _SAME_PLACE_MM:
            places[-1].append(frame)
        else:
            places.append([frame])
    ordered = [sorted(place, key=_acquired) for place in places]
    repeats = max(len(place) for place in ordered)
    if repeats >= MIN_REPEATS and len(places) >= MIN_POSITIONS:
        points = [[p[i] for p in ordered if i < len(p)] for i in range(repeats)]
        return [_stack(point, normal) for point in points]
    stack = _stack([place[-1] for place in ordered], normal)  # the latest acquisition is kept
    return [replace(stack, duplicates=tuple(f for place in ordered for f in place[:-1]))]


def _acquired(frame: Frame) -> tuple[float, float, int, int, tuple[str, int]]:
    header = frame.header
    return (
        frame.time_s if frame.time_s is not None else -1.0,
        header.trigger_time if header.trigger_time is not None else -1.0,
        header.acquisition_number or 0,
        header.instance_number or 0,
        frame.key,
    )


def _normal(iop: Sequence[float]) -> tuple[float, float, float]:
    (a, b, c), (d, e, f) = iop[:3], iop[3:]
    return (b * f - c * e, c * d - a * f, a * e - b * d)


def _stack(frames: list[Frame], normal: tuple[float, float, float]) -> Stack:
    ordered = sorted(frames, key=lambda f: (f.offset, f.key))
    return Stack(tuple(ordered), tuple(f.offset for f in ordered), normal)


def stated_by_tag(frame: Frame) -> bool:
    """Whether the b-value comes from an element about this image, not from a name."""
    return frame.b_source in TAG_SOURCES
