"""Which drawn lesion is which finding, and how far drawing and finding agree. Pure geometry.

A hit follows PI-CAI: an intersection over union of at least 0.10. Drawing and finding belong
together also where they cover half of the smaller one: a finding split in two, or two drawn as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.annotations.meaning import Meaning
from dicom_node.annotations.report import Report
from dicom_node.domain.annotation import Verdict

Mask = npt.NDArray[np.bool_]
HIT_IOU = 0.10
COVERED = 0.5


@dataclass(frozen=True, eq=False)
class NodeFinding:
    """A finding of the node: rank, the UID it is tracked by, its name and mask on the T2W grid."""

    rank: int
    tracking_uid: str
    label: str
    mask: Mask


@dataclass(frozen=True, eq=False)
class NodeResult:
    """What the node said of a study in one revision, with masks on the T2W grid.

    ``objects``: kind of each object by SOP Instance UID; ``series``: of the lesions.
    ``zones``: 1 PZ, 2 TZ.
    """

    revision: int
    objects: Mapping[str, str]
    lesion_series: str
    findings: tuple[NodeFinding, ...]
    gland: Mask | None
    zones: npt.NDArray[np.uint8] | None
    report: Report
    algorithms: frozenset[str]

    @property
    def tracking_uids(self) -> dict[int, str]:
        """Tracking UIDs of the findings by rank."""
        return {finding.rank: finding.tracking_uid for finding in self.findings}


@dataclass(frozen=True, eq=False)
class Region:
    """One segment of an annotation on the T2W grid. ``by``: what says its meaning."""

    segment: int
    label: str
    meaning: Meaning
    by: str
    tracking_uid: str
    mask: Mask
    findings: tuple[int, ...] = ()

    def described(self, voxel_ml: float) -> dict[str, Any]:
        """Return plain values, without the mask."""
        voxels = int(self.mask.sum())
        return {
            "segment": self.segment, "label": self.label, "meaning": self.meaning.value,
            "by": self.by, "findings": list(self.findings), "voxels": voxels,
            "volume_ml": round(voxels * voxel_ml, 3),
        }  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """What an annotation says of one finding, or of a lesion that is none (``finding`` None).

    ``dice`` and ``hit``: None where nothing was drawn. ``segments`` of the annotation.
    """

    finding: int | None
    verdict: Verdict
    segments: tuple[int, ...] = ()
    dice: float | None = None
    hit: bool | None = None
    significant: bool | None = None
    changes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "finding": self.finding, "verdict": self.verdict.value,
            "segments": list(self.segments),
            "dice": None if self.dice is None else round(self.dice, 4), "hit": self.hit,
            "significant": self.significant, "changes": list(self.changes),
        }  # fmt: skip


def dice(one: Mask, other: Mask) -> float:
    """Dice coefficient of two masks; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def findings_of(mask: Mask, tracking_uid: str, findings: Sequence[NodeFinding]) -> tuple[int, ...]:
    """Ranks of the findings that a drawn lesion stands for: by tracking UID, and by place."""
    return tuple(
        finding.rank
        for finding in findings
        if (tracking_uid and tracking_uid == finding.tracking_uid) or _together(mask, finding.mask)
    )


def _together(one: Mask, other: Mask) -> bool:
    common = int((one & other).sum())
    smaller = min(int(one.sum()), int(other.sum()))
    return common > 0 and (iou(one, other) >= HIT_IOU or common >= COVERED * smaller)


def agreements(
    regions: Sequence[Region], node: NodeResult | None, *, edited: bool
) -> tuple[Agreement, ...]:
    """Compare the lesions of an annotation with the findings of the node.

    Args:
        regions: of the annotation, linked to findings; those that are no lesions do not count.
        node: None where the study has no result.
        edited: the annotation is an edited copy of the findings, so that what is gone was removed.
    """
    lesions = [region for region in regions if region.meaning is Meaning.LESION]
    if node is None:
        return tuple(Agreement(None, Verdict.NEW, (one.segment,)) for one in lesions)
    found = [_of_finding(finding, lesions, edited) for finding in node.findings]
    missed = [
        Agreement(None, Verdict.MISSED, (one.segment,)) for one in lesions if not one.findings
    ]
    return (*found, *missed)


def _of_finding(finding: NodeFinding, lesions: Sequence[Region], edited: bool) -> Agreement:
    mine = [region for region in lesions if finding.rank in region.findings]
    if not mine:
        return Agreement(finding.rank, Verdict.REJECTED if edited else Verdict.NOT_DRAWN)
    drawn = np.logical_or.reduce([region.mask for region in mine])
    return Agreement(
        finding.rank, Verdict.ACCEPTED, tuple(region.segment for region in mine),
        dice(drawn, finding.mask), iou(drawn, finding.mask) >= HIT_IOU, True,
    )  # fmt: skip
