"""Split series into stacks: frames of one orientation, contrast and b-value on a regular grid."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from dicom_node.dicom.frames import Frame, along, close, is_adc_type, normal
from dicom_node.dicom.records import InstanceHeader

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
            and close(mine.spacing, theirs.spacing, 1e-3)
            and close(mine.iop, theirs.iop, _COSINE_TOLERANCE)
            and math.dist(mine.ipp, theirs.ipp) < 0.5
            and math.dist(self.frames[-1].ipp, other.frames[-1].ipp) < 0.5
        )


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
        if value == other or close(value, other, tolerance):
            return other
    known.append(value)
    return value


_TIME_PARTS: tuple[Callable[[Frame], int | None], ...] = (
    lambda frame: frame.temporal_position,
    lambda frame: frame.header.acquisition_number,
)


def _part_in_time(group: list[Frame]) -> list[Stack]:
    direction = normal(group[0].iop)
    shared = group[0].iop
    placed = [f if f.iop == shared else replace(f, offset=along(f.ipp, direction)) for f in group]
    if not _has_duplicates(placed):
        return [_stack(placed, direction)]
    for part in _TIME_PARTS:
        parts: dict[int | None, list[Frame]] = defaultdict(list)
        for frame in placed:
            parts[part(frame)].append(frame)
        if len(parts) > 1 and not any(_has_duplicates(frames) for frames in parts.values()):
            return [_stack(frames, direction) for frames in parts.values()]
    return _by_occurrence(placed, direction)


def _has_duplicates(frames: Sequence[Frame]) -> bool:
    offsets = sorted(f.offset for f in frames)
    return any(b - a < _SAME_PLACE_MM for a, b in pairwise(offsets))


MIN_REPEATS = 5
"""This many images at every position are a dynamic series; fewer are duplicates."""


def _by_occurrence(frames: list[Frame], direction: tuple[float, float, float]) -> list[Stack]:
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
        return [_stack(point, direction) for point in points]
    stack = _stack([place[-1] for place in ordered], direction)  # the latest acquisition is kept
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


def _stack(frames: list[Frame], direction: tuple[float, float, float]) -> Stack:
    ordered = sorted(frames, key=lambda f: (f.offset, f.key))
    return Stack(tuple(ordered), tuple(f.offset for f in ordered), direction)
