"""Remarks about the input that the other steps do not make themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai_core.types import FloatArray, Geometry, Quality, QualityFinding

Mask = npt.NDArray[np.bool_]
#: Immerkaer 1996, doi 10.1006/cviu.1996.0060: responds to noise, not to edges.
NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
LOWEST_SNR = 3.0
#: Within this of the end of the stack the gland counts as cut off (share of its widest slice).
CUT_SHARE = 0.25


def noise_level(image: FloatArray) -> float:
    """Return standard deviation of noise, robust (median), from a kernel of norm 6."""
    response = ndimage.convolve(image.astype(np.float32), NOISE_KERNEL[None])
    inside = np.abs(response[image > 0])
    if inside.size == 0:
        return 0.0
    return float(np.median(inside) / (0.6745 * 6.0))


def low_snr(image: FloatArray, gland: Mask) -> QualityFinding | None:
    """Return a remark where the gland's diffusion signal hardly stands above the noise."""
    tissue = image[gland & (image > 0)]
    noise = noise_level(image)
    if tissue.size == 0 or noise <= 0:
        return None
    ratio = float(np.median(tissue)) / noise
    if ratio >= LOWEST_SNR:
        return None
    return QualityFinding(Quality.LOW_SNR, "The diffusion images are noisy.", round(ratio, 1))


def gland_cut_off(gland: Mask, geometry: Geometry) -> QualityFinding | None:
    """Return a remark where the gland reaches the first or last slice of T2W with a large cut."""
    areas = gland.sum(axis=(1, 2)).astype(float)
    if areas.max(initial=0.0) == 0:
        return None
    cut = max(areas[0], areas[-1]) / areas.max()
    if cut < CUT_SHARE or geometry.size_xyz[2] < 2:
        return None
    return QualityFinding(
        Quality.GLAND_CUT_OFF, "The T2W stack does not cover the whole gland.", round(cut, 2)
    )
