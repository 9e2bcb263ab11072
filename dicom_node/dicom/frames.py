"""Frames: one record for each slice image, whatever kind of instance holds it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dicom_node.dicom.bvalue import TAG_SOURCES
from dicom_node.dicom.records import FrameRecord, InstanceHeader


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
        offset=along(ipp, normal(iop)),
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


def close(a: Sequence[float], b: Sequence[float], tolerance: float) -> bool:
    """Compare two vectors element by element."""
    return all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


def normal(iop: Sequence[float]) -> tuple[float, float, float]:
    """Return the slice normal: row direction x column direction (PS3.3 C.7.6.2.1.1)."""
    (a, b, c), (d, e, f) = iop[:3], iop[3:]
    return (b * f - c * e, c * d - a * f, a * e - b * d)


def along(point: Sequence[float], direction: Sequence[float]) -> float:
    """Return the position of a point along a direction, in mm."""
    return point[0] * direction[0] + point[1] * direction[1] + point[2] * direction[2]


def is_adc_type(image_type: frozenset[str]) -> bool:
    """Whether Image Type or Frame Type names an ADC map (``ADC``, ``..._ADC``), not an eADC."""
    return any("ADC" in token.upper().split("_") for token in image_type)


_TRACE = frozenset(("TRACEW", "TRACE", "ISOTROPIC", "COMBINED"))


def is_trace_type(image_type: frozenset[str]) -> bool:
    """Whether Image Type or Frame Type names a trace (direction-independent) diffusion image."""
    return bool(image_type & _TRACE)


def stated_by_tag(frame: Frame) -> bool:
    """Whether the b-value comes from an element about this image, not from a name."""
    return frame.b_source in TAG_SOURCES
