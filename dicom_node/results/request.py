"""What the encoder is asked for, and what it hands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydicom.dataset import Dataset

from ai_core.types import CaseResult, Volume
from dicom_node.domain.profile import DEFAULT_KINDS, Variant
from dicom_node.domain.reasons import Reason


@dataclass(frozen=True, eq=False)
class KeyImageVolumes:
    """The images shown on key images, each on its own grid. ``high_b_label`` names the b-value."""

    t2w: Volume
    adc: Volume | None = None
    high_b: Volume | None = None
    high_b_label: str = "high b"


@dataclass(frozen=True, eq=False)
class Analysed:
    """The core's result, and the images to show with it."""

    result: CaseResult
    images: KeyImageVolumes


@dataclass(frozen=True)
class NotAnalysed:
    """Why there is no result. ``message`` is plain words for the radiologist."""

    state: Literal["not_analysable", "failed"]
    reason: Reason
    message: str


@dataclass(frozen=True)
class SelectionSummary:
    """Which series were used, which were not and why, what is odd about them, as short texts."""

    chosen: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarlierObject:
    """An object of an earlier revision of the same study that a destination holds."""

    kind: str
    variant: str
    revision: int
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str


@dataclass(frozen=True)
class Psa:
    """Serum PSA in ng/mL, and where the value is from, in words (source, date)."""

    value_ng_ml: float
    source: str


@dataclass(frozen=True, eq=False)
class ResultRequest:
    """Everything that goes into the result objects of one study revision.

    ``sources`` are the T2W headers in stack order (index z of the result arrays), as read from
    the received files: text elements not touched before, so that they can be copied byte for byte.
    For an Enhanced MR source: the one data set, and ``frames``, its frame numbers (from 1) in
    stack order. ``other_sources`` are further images used (ADC, DWI, DCE); for a study that was
    not analysed any images of the study, so that the report can stand in it.
    ``content_time`` is stored with the result and never read from the clock here.
    Digests are hexadecimal SHA-256. ``kinds`` are the objects to encode (those that the outcome
    allows); with ``variants`` the report in every form that a destination may need.
    ``earlier``: what was sent of earlier revisions of this study.
    """

    sources: Sequence[Dataset]
    outcome: Analysed | NotAnalysed
    inputs_digest: str
    config_digest: str
    content_time: datetime
    installation_id: str
    software_version: str
    other_sources: Sequence[Dataset] = ()
    selection: SelectionSummary = field(default_factory=SelectionSummary)
    frames: tuple[int, ...] | None = None
    revision: int = 1
    earlier: tuple[EarlierObject, ...] = ()
    psa: Psa | None = None
    kinds: frozenset[str] = frozenset(DEFAULT_KINDS)
    variants: bool = False


@dataclass(frozen=True)
class ResultObject:
    """One encoded object: ``data`` is a complete Part 10 file, Explicit VR Little Endian.

    ``variant``: which form of its kind (`domain.profile.Variant`).
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    data: bytes = field(repr=False)
    sha256: str
    variant: str = Variant.PLAIN
