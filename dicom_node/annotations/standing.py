"""What counts of the annotations of a study: part by part the latest, verdicts upon drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.annotations.agreement import Mask, NodeResult
from dicom_node.annotations.meaning import Meaning
from dicom_node.annotations.reading import ZONE_LABELS, Reading, union_of
from dicom_node.domain.annotation import AnnotationKind, Part, Verdict


@dataclass(frozen=True, eq=False)
class Standing:
    """The annotated truth of a study on its T2W grid; None where nobody said anything.

    ``lesions``: those that count as significant; empty where a person said that there is none.
    ``zones``: 1 PZ, 2 TZ.
    """

    lesions: Mask | None
    gland: Mask | None
    zones: npt.NDArray[np.uint8] | None


def standing(
    said: Sequence[tuple[AnnotationKind, Reading]], node: NodeResult | None
) -> Standing | None:
    """Join annotations of one study, given from the first made to the last.

    A drawn lesion counts unless a report made later rejects its finding. Without a drawing the
    findings count that a report accepts as significant. A key object that rejects counts only where
    there is neither: archives reject what an edited object replaced.

    Returns None where nobody said anything.
    """
    gland = _latest(said, Part.GLAND)
    zones = _latest(said, Part.ZONES)
    drawn_zones = None
    if zones is not None:
        drawn_zones = _zones(zones)
    found = Standing(
        _lesions(said, node),
        None if gland is None else union_of(gland.regions, Meaning.GLAND),
        drawn_zones,
    )
    return found if said else None


def _latest(said: Sequence[tuple[AnnotationKind, Reading]], part: Part) -> Reading | None:
    return next((one for _, one in reversed(said) if part in one.parts), None)


def _zones(reading: Reading) -> npt.NDArray[np.uint8]:
    zones = np.zeros(reading.regions[0].mask.shape, dtype=np.uint8)
    for region in reading.regions:
        if region.meaning in ZONE_LABELS:
            zones[region.mask] = ZONE_LABELS[region.meaning]
    return zones


def _lesions(
    said: Sequence[tuple[AnnotationKind, Reading]], node: NodeResult | None
) -> Mask | None:
    drawings = [place for place, (_, one) in enumerate(said) if Part.LESIONS in one.parts]
    if drawings:
        drawing = said[drawings[-1]][1]
        later = [one for kind, one in said[drawings[-1] + 1 :] if kind is AnnotationKind.SR]
        return _kept(drawing, _rejected(later))
    told = [one for kind, one in said if kind is AnnotationKind.SR] or [
        one for kind, one in said if kind is AnnotationKind.KEY_OBJECT
    ]
    if not told or node is None or node.gland is None:
        return None
    accepted = {
        one.finding
        for one in told[-1].agreements
        if one.verdict is Verdict.ACCEPTED and one.significant is not False
    }
    masks = [finding.mask for finding in node.findings if finding.rank in accepted]
    return _joined(np.zeros_like(node.gland), masks)


def _rejected(reports: Sequence[Reading]) -> set[int | None]:
    """Return the findings that the last report to speak of them rejects."""
    last = {one.finding: one.verdict for report in reports for one in report.agreements}
    return {finding for finding, verdict in last.items() if verdict is Verdict.REJECTED}


def _kept(drawing: Reading, rejected: set[int | None]) -> Mask:
    lesions = [one for one in drawing.regions if one.meaning is Meaning.LESION]
    kept = [
        one.mask for one in lesions if not one.findings or not set(one.findings) <= rejected
    ]  # fmt: skip
    return _joined(np.zeros_like(lesions[0].mask), kept)


def _joined(nothing: Mask, masks: Sequence[Mask]) -> Mask:
    found = nothing
    for mask in masks:
        found = found | mask
    return found
