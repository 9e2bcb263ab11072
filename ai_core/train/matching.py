"""Which candidate is which simulated lesion: labels for classifier and significance model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.candidates import Candidate

LabelMap = npt.NDArray[np.integer]
#: PI-CAI hit criterion (picai_eval): intersection over union of at least 0.10.
HIT_IOU = 0.10
#: Score of a place where nothing was simulated: PI-RADS 1.
NOTHING = 1


@dataclass(frozen=True)
class Truth:
    """What was simulated. ``instances`` holds lesion numbers 1.., 0 elsewhere; tables by number."""

    instances: LabelMap
    isup: dict[int, int]
    pirads: dict[int, int]


@dataclass(frozen=True)
class Match:
    """Truth of one candidate: csPCa (ISUP >= 2) or not, suspicion 1-5, lesion number or 0."""

    significant: bool
    score: int
    lesion: int


def match(candidate: Candidate, truth: Truth) -> Match:
    """Return the lesion a candidate hits: its peak lies inside, or the overlap is large enough."""
    here = int(truth.instances[candidate.peak_zyx])
    if here == 0:
        here = _overlapping(candidate, truth)
    if here == 0:
        return Match(False, NOTHING, 0)
    return Match(truth.isup.get(here, 0) >= 2, truth.pirads.get(here, 2), here)


def _overlapping(candidate: Candidate, truth: Truth) -> int:
    inside = truth.instances[candidate.mask]
    best, best_iou = 0, HIT_IOU
    for number in np.unique(inside[inside > 0]):
        lesion = truth.instances == number
        union = float((lesion | candidate.mask).sum())
        iou = float((lesion & candidate.mask).sum()) / max(union, 1.0)
        if iou >= best_iou:
            best, best_iou = int(number), iou
    return best
