"""Which candidate counts as which lesion: the rule of the PI-CAI challenge.

A candidate may hit a lesion where their intersection over union is at least 0.10. Pairs are chosen
so that as many lesions as possible are hit, then for the largest overlap. Split-merge tolerant:
a further candidate with enough overlap is neither hit nor false (Saha et al., PI-CAI protocol,
doi 10.5281/zenodo.6667655). Regions are 26-connected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from ai_core.candidates import CUBE_26
from ai_core.train.matching import HIT_IOU

Labels = npt.NDArray[np.integer]
#: Preference of any allowed pair over the largest overlap (which is at most 1).
ANY_PAIR = 1.0


@dataclass(frozen=True)
class Assignment:
    """What became of one candidate.

    ``lesion``: number of the lesion it hits, 0 for none. ``false``: it is a false positive.
    Neither: it overlaps a lesion that another candidate hits. ``overlap``: largest intersection
    over union with a lesion.
    """

    lesion: int
    false: bool
    overlap: float


def components(detection_map: npt.NDArray[np.floating]) -> tuple[Labels, tuple[float, ...]]:
    """Label the 26-connected regions of a detection map; returns labels and their maxima."""
    labels, count = ndimage.label(detection_map, CUBE_26)
    if count == 0:
        return labels, ()
    peaks = ndimage.maximum(detection_map, labels, np.arange(1, count + 1))
    return labels, tuple(float(peak) for peak in peaks)


def assign(candidates: Labels, lesions: Labels) -> tuple[Assignment, ...]:
    """Match candidates 1..n with lesions 1..m, both label images ``[z, y, x]`` of one grid.

    Raises:
        ValueError: the two grids differ.
    """
    if candidates.shape != lesions.shape:
        raise ValueError(f"candidates {candidates.shape} and lesions {lesions.shape} differ")
    overlap = _overlaps(candidates, lesions)
    allowed = np.where(overlap >= HIT_IOU, overlap + ANY_PAIR, 0.0)
    hits = {
        int(row): int(column) + 1
        for row, column in zip(*linear_sum_assignment(allowed, maximize=True), strict=True)
        if allowed[row, column] > 0
    }
    near = [bool(row.any()) for row in allowed > 0]
    best = overlap.max(axis=1, initial=0.0)
    return tuple(
        Assignment(hits.get(i, 0), not near[i], float(best[i])) for i in range(len(overlap))
    )


def _overlaps(candidates: Labels, lesions: Labels) -> npt.NDArray[np.float64]:
    """Intersection over union, ``(candidates, lesions)``."""
    n, m = int(candidates.max(initial=0)), int(lesions.max(initial=0))
    pairs = np.bincount(
        (candidates.astype(np.int64) * (m + 1) + lesions).ravel(), minlength=(n + 1) * (m + 1)
    ).reshape(n + 1, m + 1)
    both = pairs[1:, 1:].astype(np.float64)
    union = pairs[1:].sum(1)[:, None] + pairs[:, 1:].sum(0)[None] - both
    return np.asarray(both / np.maximum(union, 1.0))
