"""Shape and texture of a region, by the definitions of the Image Biomarker Standardisation
Initiative (IBSI reference manual, arXiv 1612.07003): principal axes and grey-level co-occurrence.
"""  # noqa: D205

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.feature import graycomatrix, graycoprops

from ai_core.types import FloatArray

Mask = npt.NDArray[np.bool_]
#: Grey levels inside a region; 0 stands for outside and takes no part.
LEVELS = 8
DIRECTIONS = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
FEWEST_VOXELS = 8
RADIAL_BIN_MM = 1.5
FEWEST_BINS = 3


@dataclass(frozen=True)
class Texture:
    """Grey-level co-occurrence of neighbours within slices, all directions together."""

    contrast: float
    homogeneity: float
    correlation: float


@dataclass(frozen=True)
class Axes:
    """Ratios of the principal axes, 0-1: 1 is round. ``flatness``: least to major axis."""

    elongation: float
    flatness: float


def principal_axes(mask: Mask, spacing_zyx_mm: tuple[float, float, float]) -> Axes:
    """Elongation and flatness (IBSI Q3CK, N17B) of a mask ``[z, y, x]``; 1 for a single voxel."""
    points = np.argwhere(mask) * np.array(spacing_zyx_mm)
    if len(points) < FEWEST_VOXELS:
        return Axes(1.0, 1.0)
    # A voxel has an extent of its own: without it a region of one slice would have no thickness.
    own = np.diag(np.square(spacing_zyx_mm) / 12.0)
    least, minor, major = np.linalg.eigvalsh(np.cov(points.T) + own)
    return Axes(float(np.sqrt(minor / major)), float(np.sqrt(least / major)))


def wedge_index(mask: Mask, gland: Mask, spacing_zyx_mm: tuple[float, float, float]) -> float:
    """How much a region widens away from the gland's middle, -1 to 1.

    Correlation of the distance from the middle (slice plane) with the region's width there: a
    wedge with its base at the capsule has about 1, a ball 0.
    """
    if not gland.any() or mask.sum() < FEWEST_VOXELS:
        return 0.0
    _, sy, sx = spacing_zyx_mm
    middle = np.argwhere(gland).mean(0)[1:]
    places = (np.argwhere(mask)[:, 1:] - middle) * np.array([sy, sx])
    bins = np.floor(np.hypot(places[:, 0], places[:, 1]) / RADIAL_BIN_MM).astype(int)
    counts = np.bincount(bins - bins.min()).astype(float)
    if counts.size < FEWEST_BINS or counts.std() == 0:
        return 0.0
    return float(np.corrcoef(np.arange(counts.size), counts)[0, 1])


def co_occurrence(image: FloatArray, mask: Mask, low: float, high: float) -> Texture:
    """Texture of ``image`` in a mask, both ``[z, y, x]``, in `LEVELS` steps from low to high.

    Fixed limits, so that regions of different patients compare (IBSI: fixed bin size).
    """
    share = np.clip((image - low) / max(high - low, 1e-6), 0, 1 - 1e-6)
    levels = np.where(mask, (share * LEVELS).astype(np.uint8) + 1, 0).astype(np.uint8)
    places = np.argwhere(mask)
    if len(places) < FEWEST_VOXELS:
        return Texture(0.0, 1.0, 0.0)
    (z0, y0, x0), (z1, y1, x1) = places.min(0), places.max(0) + 1
    matrix = np.zeros((LEVELS, LEVELS, 1, 1))
    for plane in levels[z0:z1, y0:y1, x0:x1]:
        pairs = graycomatrix(plane, (1,), DIRECTIONS, LEVELS + 1, symmetric=True)
        matrix[:, :, 0, 0] += pairs[1:, 1:].sum(axis=(2, 3))
    if matrix.sum() == 0:
        return Texture(0.0, 1.0, 0.0)
    matrix /= matrix.sum()
    values = (
        float(graycoprops(matrix, name)[0, 0])
        for name in ("contrast", "homogeneity", "correlation")
    )
    return Texture(*values)
