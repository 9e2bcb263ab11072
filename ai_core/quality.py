"""Remarks about the input that the other steps do not make themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai_core.types import FloatArray, Geometry, Quality, QualityFinding

Mask = npt.NDArray[np.bool_]
#: Immerkaer 1996, doi 10.1006/cviu.1996.0060: responds to noise, not to edges.
NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)


@dataclass(frozen=True)
class Limit:
    """Where a measure of the input becomes a remark: below ``least`` or above ``most``."""

    code: Quality
    message: str
    least: float = float("-inf")
    most: float = float("inf")

    def broken_by(self, value: float) -> bool:
        """Whether a value lies outside."""
        return not self.least <= value <= self.most


LIMITS: dict[str, Limit] = {
    "snr_dwi": Limit(Quality.LOW_SNR, "The diffusion images are noisy.", least=3.0),
    "snr_t2w": Limit(Quality.LOW_T2W_SNR, "The T2W images are noisy.", least=4.0),
    "gland_overlap_dwi_t2w": Limit(
        Quality.DISTORTION, "The gland lies elsewhere on diffusion than on T2W.", least=0.65
    ),
    "out_of_distribution": Limit(
        Quality.UNFAMILIAR, "The images are unlike those of the training.", most=1.0
    ),
}
#: Within this of the end of the stack the gland counts as cut off (share of its widest slice).
CUT_SHARE = 0.25


def noise_level(image: FloatArray) -> float:
    """Return standard deviation of noise, robust (median), from a kernel of norm 6."""
    response = ndimage.convolve(image.astype(np.float32), NOISE_KERNEL[None])
    inside = np.abs(response[image > 0])
    if inside.size == 0:
        return 0.0
    return float(np.median(inside) / (0.6745 * 6.0))


def signal_to_noise(image: FloatArray, gland: Mask) -> float | None:
    """Median signal of the gland over the noise of the image; None where there is no gland."""
    tissue = image[gland & (image > 0)]
    noise = noise_level(image)
    if tissue.size == 0 or noise <= 0:
        return None
    return float(np.median(tissue)) / noise


def judge_measures(measures: Mapping[str, float]) -> list[QualityFinding]:
    """Return a remark for every measure on the wrong side of its limit (`LIMITS`)."""
    return [
        QualityFinding(limit.code, limit.message, round(measures[name], 2))
        for name, limit in LIMITS.items()
        if name in measures and limit.broken_by(measures[name])
    ]


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
