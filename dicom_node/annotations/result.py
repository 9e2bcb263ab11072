"""Reads back what the node itself sent of a study: findings, gland, zones and report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_node.annotations.access import items_of, text_of
from dicom_node.annotations.agreement import Mask, NodeFinding, NodeResult
from dicom_node.annotations.meaning import Meaning, meaning_of
from dicom_node.annotations.placing import masks_on
from dicom_node.annotations.reading import ZONE_LABELS, StudyGrid
from dicom_node.annotations.report import Report, read_report
from dicom_node.annotations.segmentation import Segmentation, read_segmentation
from dicom_node.domain.profile import ResultKind

_RANK = re.compile(r"(\d+)\s*$")


@dataclass(frozen=True, eq=False)
class SentResult:
    """The objects of one revision: kind by SOP Instance UID, and the data sets that are read."""

    revision: int
    objects: Mapping[str, str]
    lesions: Dataset | None = None
    gland: Dataset | None = None
    zones: Dataset | None = None
    report: Dataset | None = None

    @property
    def lesion_series(self) -> str:
        """Series Instance UID of the lesions; '' where there are none."""
        return text_of(self.lesions, "SeriesInstanceUID")

    @property
    def tracking_uids(self) -> frozenset[str]:
        """Tracking UIDs of lesions, gland and zones."""
        parts = (self.lesions, self.gland, self.zones)
        segments = [one for part in parts for one in items_of(part, "SegmentSequence")]
        return frozenset({text_of(one, "TrackingUID") for one in segments} - {""})


def read_result(sent: SentResult, grid: StudyGrid) -> NodeResult:
    """Read a revision's result on the grid of its T2W images.

    Raises:
        AnnotationProblem: a segmentation of the result cannot be read.
    """
    gland = _masks(sent.gland, grid)
    return NodeResult(
        revision=sent.revision,
        objects=sent.objects,
        lesion_series=sent.lesion_series,
        findings=_findings(sent.lesions, grid),
        gland=np.logical_or.reduce(list(gland.values())) if gland else None,
        zones=_zones(sent.zones, grid),
        report=Report({}) if sent.report is None else read_report(sent.report),
        algorithms=_algorithms((sent.lesions, sent.gland)),
    )


def _masks(dataset: Dataset | None, grid: StudyGrid) -> dict[int, Mask]:
    if dataset is None:
        return {}
    return masks_on(read_segmentation(dataset, grid.sources), grid.geometry)


def _findings(dataset: Dataset | None, grid: StudyGrid) -> tuple[NodeFinding, ...]:
    if dataset is None:
        return ()
    segmentation: Segmentation = read_segmentation(dataset, grid.sources)
    masks = masks_on(segmentation, grid.geometry)
    return tuple(
        NodeFinding(
            _rank(one.label, one.number), one.tracking_uid, one.label, masks[one.number]
        )
        for one in segmentation.segments
        if one.number in masks
    )  # fmt: skip


def _rank(label: str, number: int) -> int:
    found = _RANK.search(label)
    return int(found.group(1)) if found else number


def _zones(dataset: Dataset | None, grid: StudyGrid) -> npt.NDArray[np.uint8] | None:
    if dataset is None:
        return None
    segmentation = read_segmentation(dataset, grid.sources)
    masks = masks_on(segmentation, grid.geometry)
    zones = np.zeros(grid.geometry.shape_zyx, dtype=np.uint8)
    for segment in segmentation.segments:
        meaning: Meaning = meaning_of(segment)[0]
        if meaning in ZONE_LABELS and segment.number in masks:
            zones[masks[segment.number]] = ZONE_LABELS[meaning]
    return zones


def _algorithms(parts: Sequence[Dataset | None]) -> frozenset[str]:
    found = set()
    for part in parts:
        for segment in items_of(part, "SegmentSequence"):
            found.add(text_of(segment, "SegmentAlgorithmName"))
            for one in items_of(segment, "SegmentationAlgorithmIdentificationSequence"):
                found.add(text_of(one, "AlgorithmName"))
    return frozenset(found - {""})


SENT_KINDS: Mapping[str, str] = {
    ResultKind.SEG_LESIONS: "lesions", ResultKind.SEG_GLAND: "gland",
    ResultKind.SEG_ZONES: "zones", ResultKind.SR: "report",
}  # fmt: skip
"""Kinds of result object that are read back, and the field of ``SentResult`` they go to."""
