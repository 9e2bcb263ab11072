"""From a stored object to what it says: who, which parts and regions, how far the node agrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ai_core.types import Geometry
from dicom_node.annotations.access import items_of, text_of
from dicom_node.annotations.agreement import (
    Agreement,
    Mask,
    NodeResult,
    Region,
    agreements,
    dice,
    findings_of,
)
from dicom_node.annotations.maker import (
    Maker,
    has_derived_uid,
    predecessors_of,
    read_maker,
    references_of,
)
from dicom_node.annotations.meaning import Meaning, meaning_of
from dicom_node.annotations.placing import masks_on
from dicom_node.annotations.report import read_report, rejected_by_key_object, verdicts
from dicom_node.annotations.segmentation import (
    Segmentation,
    SegmentInfo,
    Sources,
    read_segmentation,
)
from dicom_node.domain.annotation import (
    AnnotationKind,
    AnnotationProblem,
    AnnotationReason,
    Part,
    Verdict,
)
from dicom_node.domain.profile import ResultKind

SAME_GLAND = 0.7
"""Dice from which on an unnamed segment is the gland, or one of the name of a finding its copy."""
INSIDE = 0.5
"""Share of an unnamed segment inside the gland from which on it is a lesion."""
_PARTS = {
    Meaning.LESION: Part.LESIONS, Meaning.GLAND: Part.GLAND,
    Meaning.PERIPHERAL_ZONE: Part.ZONES, Meaning.TRANSITION_ZONE: Part.ZONES,
}  # fmt: skip
ZONE_LABELS = {Meaning.PERIPHERAL_ZONE: 1, Meaning.TRANSITION_ZONE: 2}
_TELLS_FINDINGS = frozenset({ResultKind.SEG_LESIONS, ResultKind.SR})


@dataclass(frozen=True, eq=False)
class StudyGrid:
    """The axial T2W images of a study: their grid, and what can name or replace a position.

    ``frames_of_reference``: of every series of the study, by Series Instance UID.
    """

    geometry: Geometry
    frame_of_reference_uid: str
    frames_of_reference: Mapping[str, str]
    sources: Sources


@dataclass(frozen=True, eq=False)
class Reading:
    """What an annotation says. ``links``: what ties it to a result of the node."""

    maker: Maker
    parts: frozenset[Part]
    agreements: tuple[Agreement, ...]
    regions: tuple[Region, ...] = ()
    links: tuple[str, ...] = ()
    dices: Mapping[str, float] | None = None

    def described(self, voxel_ml: float) -> dict[str, Any]:
        """Return plain values, without masks."""
        return {
            "verified": self.maker.verified, "links": list(self.links),
            "regions": [region.described(voxel_ml) for region in self.regions],
            "findings": [one.as_dict() for one in self.agreements],
            "dice": {name: round(value, 4) for name, value in (self.dices or {}).items()},
        }  # fmt: skip


@dataclass(frozen=True)
class Named:
    """How an object can name a result: what it replaces, refers to, tracks, where it stands."""

    predecessors: frozenset[str]
    references: frozenset[str]
    tracking_uids: frozenset[str]
    series_uid: str
    algorithms: frozenset[str]

    def links(self, objects: Mapping[str, str], tracking: frozenset[str], series: str) -> list[str]:
        """Return in which ways a result is named; its algorithm alone does not count."""
        ways = {
            "predecessor": self.predecessors & set(objects),
            "reference": self.references & set(objects),
            "tracking": self.tracking_uids & tracking,
            "series": {self.series_uid} & {series} - {""},
        }
        return [way for way, found in ways.items() if found]


def named_by(dataset: Dataset, kind: AnnotationKind) -> Named:
    """Read the UIDs by which an object names results of the node."""
    segments = items_of(dataset, "SegmentSequence")
    if kind is AnnotationKind.SR:
        tracked = set(read_report(dataset).groups)
    else:
        tracked = {text_of(one, "TrackingUID") for one in segments} - {""}
    return Named(
        predecessors_of(dataset), references_of(dataset), frozenset(tracked),
        text_of(dataset, "SeriesInstanceUID"),
        frozenset({text_of(one, "SegmentAlgorithmName") for one in segments} - {""}),
    )  # fmt: skip


def read_annotation(
    dataset: Dataset, kind: AnnotationKind, grid: StudyGrid | None, node: NodeResult | None
) -> Reading:
    """Read an annotation against the images of its study and a result of the node.

    Args:
        dataset: with file meta information, and pixel data in a segmentation.
        kind: what kind of object it is.
        grid: None where the study has no axial T2W images; needed for a segmentation.
        node: None where the study has no result.

    Raises:
        AnnotationProblem: it is not used, or cannot be yet.
    """
    maker, named = read_maker(dataset), named_by(dataset, kind)
    derived = maker.own_product and has_derived_uid(text_of(dataset, "SOPInstanceUID"))
    if kind is AnnotationKind.SEG:
        return _read_seg(dataset, maker, named, derived, grid, node)
    if derived and not maker.verified:
        raise AnnotationProblem(AnnotationReason.MACHINE_MADE)
    if node is None:
        raise AnnotationProblem(AnnotationReason.NOTHING_SAID)
    if kind is AnnotationKind.SR:
        return _read_sr(dataset, maker, named, node)
    return _read_key_object(dataset, maker, node)


# --- reports and key objects ------------------------------------------------------------------


def _read_sr(dataset: Dataset, maker: Maker, named: Named, node: NodeResult) -> Reading:
    report = read_report(dataset)
    ours = set(report.groups) & (set(node.report.groups) | set(node.tracking_uids.values()))
    replaces = bool(named.predecessors & set(node.objects))
    if not ours and not (replaces and maker.verified):
        raise AnnotationProblem(AnnotationReason.NOTHING_SAID)
    said = verdicts(report, node.report, node.tracking_uids, removal_counts=True)
    changed = any(one.changes or one.verdict is not Verdict.ACCEPTED for one in said.values())
    if not changed and not maker.verified:
        raise AnnotationProblem(AnnotationReason.NOTHING_SAID)
    agreed = tuple(
        Agreement(rank, one.verdict, significant=one.significant, changes=one.changes)
        for rank, one in sorted(said.items())
    )
    links = ["tracking"] * bool(ours) + ["predecessor"] * replaces
    return Reading(maker, frozenset({Part.FINDINGS}), agreed, links=tuple(links))


def _read_key_object(dataset: Dataset, maker: Maker, node: NodeResult) -> Reading:
    rejected = rejected_by_key_object(dataset)
    about = {node.objects[uid] for uid in rejected if uid in node.objects} & _TELLS_FINDINGS
    if not about or not node.findings:
        raise AnnotationProblem(AnnotationReason.NOTHING_SAID)
    words = ("rejected with the object that holds it",)
    agreed = tuple(
        Agreement(one.rank, Verdict.REJECTED, significant=False, changes=words)
        for one in node.findings
    )
    return Reading(maker, frozenset({Part.FINDINGS}), agreed, links=("reference",))


# --- segmentations ----------------------------------------------------------------------------


def _read_seg(
    dataset: Dataset, maker: Maker, named: Named, derived: bool, grid: StudyGrid | None,
    node: NodeResult | None,
) -> Reading:  # fmt: skip
    if grid is None:
        raise AnnotationProblem(AnnotationReason.NO_IMAGES)
    links = _links(named, node)
    _refuse_machines(dataset, derived, bool(links))
    _check_frame_of_reference(dataset, grid)
    segmentation = read_segmentation(dataset, grid.sources)
    masks = masks_on(segmentation, grid.geometry)
    if not masks:
        marked = any(segmentation.values(plane.index).any() for plane in segmentation.planes)
        raise AnnotationProblem(AnnotationReason.OUTSIDE if marked else AnnotationReason.EMPTY)
    regions = tuple(
        _region(segment, masks[segment.number], node)
        for segment in segmentation.segments
        if segment.number in masks
    )
    parts = frozenset(_PARTS[one.meaning] for one in regions if one.meaning in _PARTS)
    if not parts:
        unnamed = any(one.meaning is Meaning.UNKNOWN for one in regions)
        raise AnnotationProblem(
            AnnotationReason.UNNAMED if unnamed else AnnotationReason.NOTHING_SAID
        )
    edited = node is not None and _is_edited_copy(segmentation, regions, named, node)
    agreed = agreements(regions, node, edited=edited) if Part.LESIONS in parts else ()
    return Reading(maker, parts, agreed, regions, tuple(links), _dices(regions, node))


def _links(named: Named, node: NodeResult | None) -> list[str]:
    if node is None:
        return []
    tracking = frozenset(node.report.groups) | frozenset(node.tracking_uids.values())
    links = named.links(node.objects, tracking, node.lesion_series)
    return links + ["algorithm"] * bool(named.algorithms & node.algorithms)


def _refuse_machines(dataset: Dataset, derived: bool, linked: bool) -> None:
    """Refuse what a program made: all AUTOMATIC, and nothing ties it to a result of this node."""
    segments = items_of(dataset, "SegmentSequence")
    automatic = bool(segments) and all(
        text_of(one, "SegmentAlgorithmType").upper() == "AUTOMATIC" for one in segments
    )
    if automatic and (derived or not linked):
        raise AnnotationProblem(AnnotationReason.MACHINE_MADE)


def _check_frame_of_reference(dataset: Dataset, grid: StudyGrid) -> None:
    """Positions count in one frame of reference only (PS3.3 C.7.4.1)."""
    uid = text_of(dataset, "FrameOfReferenceUID")
    series = [
        text_of(one, "SeriesInstanceUID") for one in items_of(dataset, "ReferencedSeriesSequence")
    ]
    known = [one for one in series if one in grid.frames_of_reference]
    if not uid and known:
        uid = grid.frames_of_reference[known[0]]
    if uid == grid.frame_of_reference_uid:
        return
    foreign = bool(series) and not known
    raise AnnotationProblem(
        AnnotationReason.OTHER_STUDY if foreign else AnnotationReason.OTHER_FRAME_OF_REFERENCE
    )


def _region(segment: SegmentInfo, mask: Mask, node: NodeResult | None) -> Region:
    meaning, by = meaning_of(segment)
    findings = node.findings if node is not None else ()
    if by != "code" and segment.tracking_uid in {one.tracking_uid for one in findings}:
        meaning, by = Meaning.LESION, "tracking"
    region = Region(segment.number, segment.label, meaning, by, segment.tracking_uid, mask)
    if meaning is Meaning.UNKNOWN and node is not None:
        region = _by_place(region, node)
    if region.meaning is not Meaning.LESION:
        return region
    return replace(region, findings=findings_of(mask, segment.tracking_uid, findings))


def _by_place(region: Region, node: NodeResult) -> Region:
    """Tell a segment without code and name by where it lies."""
    if node.gland is not None and dice(region.mask, node.gland) >= SAME_GLAND:
        return replace(region, meaning=Meaning.GLAND, by="place")
    inside = node.gland is not None and (
        int((region.mask & node.gland).sum()) >= INSIDE * int(region.mask.sum())
    )
    if inside or findings_of(region.mask, "", node.findings):
        return replace(region, meaning=Meaning.LESION, by="place")
    return region


def _is_edited_copy(
    segmentation: Segmentation, regions: Sequence[Region], named: Named, node: NodeResult
) -> bool:
    """Whether the lesions are the node's, changed: then a finding that is gone was removed."""
    lesions = {one.segment: one for one in regions if one.meaning is Meaning.LESION}
    replaced = {node.objects.get(uid) for uid in named.predecessors | named.references}
    tracked = {one.tracking_uid for one in lesions.values()} & set(node.tracking_uids.values())
    same_algorithm = any(
        one.number in lesions and one.algorithm_name in node.algorithms
        for one in segmentation.segments
    )
    same_name = any(
        one.label == finding.label and dice(one.mask, finding.mask) >= SAME_GLAND
        for one in lesions.values()
        for finding in node.findings
    )
    same_series = bool(node.lesion_series) and named.series_uid == node.lesion_series
    by_uid = bool(tracked) or ResultKind.SEG_LESIONS in replaced
    return by_uid or same_series or same_algorithm or same_name


def _dices(regions: Sequence[Region], node: NodeResult | None) -> dict[str, float]:
    """Return the Dice of gland and zones with the node's, where both drew them."""
    if node is None:
        return {}
    found = {}
    if node.gland is not None and (drawn := union_of(regions, Meaning.GLAND)) is not None:
        found["gland"] = dice(drawn, node.gland)
    for meaning, label in ZONE_LABELS.items():
        drawn = union_of(regions, meaning)
        if node.zones is not None and drawn is not None:
            found[meaning.value] = dice(drawn, node.zones == label)
    return found


def union_of(regions: Sequence[Region], meaning: Meaning) -> Mask | None:
    """Return all regions of one meaning as one mask; None where there is none."""
    masks = [region.mask for region in regions if region.meaning is meaning]
    return np.logical_or.reduce(masks) if masks else None
