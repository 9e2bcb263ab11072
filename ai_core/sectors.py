"""PI-RADS v2.1 sector of a finding, from masks. An own rule: thirds, sides and angles.

Keys read ``zone/position/level/side``: ``PZ/pl/mid/R``, ``TZ/a/base/L``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai_core.geometry import index_to_lps
from ai_core.types import Geometry, LabelArray

Mask = npt.NDArray[np.bool_]
#: Angle from straight posterior, seen from the gland's centroid in the axial plane.
POSTEROMEDIAL_UP_TO_DEG = 40.0
POSTEROLATERAL_UP_TO_DEG = 100.0


def sector_of(mask: Mask, zones: LabelArray, geometry: Geometry) -> str:
    """Sector key of a finding.

    Args:
        mask: finding ``[z, y, x]``.
        zones: 1 PZ, 2 TZ, 0 outside, on the same grid.
        geometry: the grid (LPS: +x left, +y posterior, +z superior).
    """
    gland = zones > 0
    to_lps = index_to_lps(geometry)
    finding, center = _centroid_lps(mask, to_lps), _centroid_lps(gland, to_lps)
    dx, dy = finding[0] - center[0], finding[1] - center[1]
    side = "L" if dx >= 0 else "R"
    level = _level(mask, gland, geometry)
    if _zone(mask, zones, geometry) == 1:
        return f"PZ/{_pz_position(dx, dy)}/{level}/{side}"
    return f"TZ/{'a' if dy < 0 else 'p'}/{level}/{side}"


def _centroid_lps(mask: Mask, to_lps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    z, y, x = np.argwhere(mask).mean(0)
    return np.asarray((to_lps @ np.array([x, y, z, 1.0]))[:3])


def _level(mask: Mask, gland: Mask, geometry: Geometry) -> str:
    """Third of the gland's extent along the slice normal; the superior third is the base."""
    slices = np.flatnonzero(gland.any(axis=(1, 2)))
    middle = float(np.argwhere(mask)[:, 0].mean())
    share = (middle - slices[0] + 0.5) / (slices[-1] - slices[0] + 1)
    superior = share if geometry.direction[2][2] >= 0 else 1 - share
    return "apex" if superior < 1 / 3 else "mid" if superior < 2 / 3 else "base"


def _zone(mask: Mask, zones: LabelArray, geometry: Geometry) -> int:
    """Majority zone; of the nearest gland voxels where the finding lies outside."""
    inside = zones[mask]
    inside = inside[inside > 0]
    if inside.size == 0:
        spacing = geometry.spacing_xyz_mm[::-1]
        nearest = ndimage.distance_transform_edt(
            zones == 0, sampling=spacing, return_distances=False, return_indices=True
        )
        inside = zones[tuple(nearest)][mask]
    return 1 if int((inside == 1).sum()) * 2 >= inside.size else 2


def _pz_position(dx: float, dy: float) -> str:
    angle = float(np.rad2deg(np.arctan2(abs(dx), dy)))
    if angle < POSTEROMEDIAL_UP_TO_DEG:
        return "pm"
    return "pl" if angle < POSTEROLATERAL_UP_TO_DEG else "a"
