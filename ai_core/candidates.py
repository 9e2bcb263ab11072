"""Cuts suspicious regions out of a localization map.

Dynamic threshold as in Bosma et al. (report-guided annotation): each region reaches from its peak
down to a fixed share of it, so that faint and bright lesions are both outlined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai_core.config import Candidates
from ai_core.types import FloatArray

Mask = npt.NDArray[np.bool_]
CUBE_26 = np.ones((3, 3, 3), dtype=bool)
ROUNDS_PER_CANDIDATE = 6


@dataclass(frozen=True)
class Candidate:
    """One region: its mask ``[z, y, x]``, its peak voxel and the map's value there."""

    mask: Mask
    peak_zyx: tuple[int, int, int]
    heat: float


def dilate_mm(mask: Mask, margin_mm: float, spacing_zyx_mm: tuple[float, float, float]) -> Mask:
    """All voxels within ``margin_mm`` of the mask."""
    if not mask.any():
        return mask.copy()
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing_zyx_mm)
    return np.asarray(distance <= margin_mm)


def extract_candidates(
    heat: FloatArray,
    gland: Mask,
    spacing_zyx_mm: tuple[float, float, float],
    rules: Candidates,
) -> list[Candidate]:
    """Regions of the map in and near the gland, strongest first.

    A peak within ``separation_mm`` of a stronger region is its rim, not a region of its own.

    Args:
        heat: localization map 0-1, ``[z, y, x]``.
        gland: gland mask on the same grid.
        spacing_zyx_mm: voxel size.
        rules: thresholds.
    """
    allowed = dilate_mm(gland, rules.gland_margin_mm, spacing_zyx_mm)
    left = np.where(allowed, heat, 0.0).astype(np.float32)
    taken = np.zeros(left.shape, dtype=bool)
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000.0
    found: list[Candidate] = []
    for _ in range(rules.maximum_count * ROUNDS_PER_CANDIDATE):
        candidate = _strongest(left, rules)
        if candidate is None or len(found) == rules.maximum_count:
            break
        left[candidate.mask] = 0.0
        big = candidate.mask.sum() * voxel_ml >= rules.minimum_volume_ml
        if big and not taken[candidate.peak_zyx]:
            found.append(candidate)
            taken |= dilate_mm(candidate.mask, rules.separation_mm, spacing_zyx_mm)
    return found


def _strongest(left: FloatArray, rules: Candidates) -> Candidate | None:
    z, y, x = np.unravel_index(int(left.argmax()), left.shape)
    heat = float(left[z, y, x])
    if heat < rules.minimum_peak:
        return None
    labels, _ = ndimage.label(left >= heat / rules.peak_ratio, CUBE_26)
    return Candidate(labels == labels[z, y, x], (int(z), int(y), int(x)), heat)
