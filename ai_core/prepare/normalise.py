"""Intensity normalisation (claims 18 and 20), the same functions in training and in use.

NumPy alone. All arrays are ``[z, y, x]`` on one grid. Voxels outside an image's field of view hold
exactly 0 and stay 0. ADC keeps its absolute meaning; T2W and high b, which have none, are measured
against the gland's own tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.config import Normalise
from ai_core.site_profile import SiteProfile
from ai_core.types import FloatArray, Modality

Mask = npt.NDArray[np.bool_]
MINIMUM_SAMPLE = 50
IQR_TO_SD = 1.349


@dataclass(frozen=True)
class Images:
    """Images of one examination on one grid; None where not there.

    ``adc_um2_s`` in 10^-6 mm^2/s; ``dce`` is ``(2, z, y, x)``: relative enhancement early after
    onset, and slope after it (per minute).
    """

    t2w: FloatArray
    adc_um2_s: FloatArray | None = None
    high_b: FloatArray | None = None
    dce: FloatArray | None = None

    def present(self) -> tuple[Modality, ...]:
        """Modalities that are there."""
        pairs = (
            (Modality.T2W, self.t2w),
            (Modality.ADC, self.adc_um2_s),
            (Modality.HIGH_B, self.high_b),
            (Modality.DCE, self.dce),
        )
        return tuple(name for name, image in pairs if image is not None)

    def without(self, absent: frozenset[Modality]) -> Images:
        """Return the same images less some; T2W stays."""
        return Images(
            self.t2w,
            None if Modality.ADC in absent else self.adc_um2_s,
            None if Modality.HIGH_B in absent else self.high_b,
            None if Modality.DCE in absent else self.dce,
        )


def whole_image_z(t2w: FloatArray, rules: Normalise) -> FloatArray:
    """T2W for the gland finder: percentile clip, then z-score over the field of view."""
    inside = t2w[t2w > 0]
    if inside.size < MINIMUM_SAMPLE:
        return np.zeros_like(t2w, dtype=np.float32)
    low, high = np.percentile(inside, rules.t2w_percentiles)
    clipped = np.clip(t2w, low, high)
    valid = t2w > 0
    mean, spread = float(clipped[valid].mean()), float(clipped[valid].std())
    z = (clipped - mean) / max(spread, 1e-6)
    return np.where(valid, z, 0.0).astype(np.float32)


def gland_z(t2w: FloatArray, gland: Mask, rules: Normalise) -> FloatArray:
    """T2W against the gland: robust z-score (median, interquartile range) of gland tissue."""
    tissue = _tissue(t2w, gland)
    first, median, third = np.percentile(tissue, (25, 50, 75))
    spread = max(float(third - first) / IQR_TO_SD, 0.05 * abs(float(median)), 1e-6)
    z = np.clip((t2w - median) / spread, -rules.t2w_limit, rules.t2w_limit)
    return np.where(t2w > 0, z, 0.0).astype(np.float32)


def physical_adc(adc_um2_s: FloatArray, rules: Normalise) -> FloatArray:
    """ADC in 10^-3 mm^2/s, clipped; zero-filled background stays 0."""
    clipped = np.clip(adc_um2_s, 0.0, rules.adc_limit_um2_s)
    return np.asarray(clipped / 1000.0, dtype=np.float32)


def gland_ratio(high_b: FloatArray, gland: Mask, rules: Normalise) -> FloatArray:
    """High-b signal divided by its median in the gland."""
    median = max(float(np.median(_tissue(high_b, gland))), 1e-6)
    return np.asarray(np.clip(high_b / median, 0.0, rules.high_b_limit), dtype=np.float32)


def enhancement_ratio(dce: FloatArray, gland: Mask, rules: Normalise) -> FloatArray:
    """DCE maps divided by the median early enhancement of the gland."""
    tissue = _tissue(dce[0], gland)
    median = max(float(np.median(tissue)), 0.05)
    limit = rules.dce_limit
    return np.asarray(np.clip(dce / median, -limit, limit), dtype=np.float32)


def network_input(
    images: Images, gland: Mask, rules: Normalise, profile: SiteProfile | None = None
) -> FloatArray:
    """Return the localizer's input ``(5, z, y, x)``; absent modalities are 0.

    ``profile``: of the site whose scanners made the images; brings them to what the networks know.
    """
    stack = np.zeros((5, *images.t2w.shape), dtype=np.float32)
    stack[0] = gland_z(images.t2w, gland, rules)
    if images.adc_um2_s is not None:
        stack[1] = physical_adc(images.adc_um2_s, rules)
    if images.high_b is not None:
        stack[2] = gland_ratio(images.high_b, gland, rules)
    if images.dce is not None:
        stack[3:5] = enhancement_ratio(images.dce, gland, rules)
    return stack if profile is None else _harmonised(stack, images, rules, profile)


def _harmonised(
    stack: FloatArray, images: Images, rules: Normalise, profile: SiteProfile
) -> FloatArray:
    """Apply the landmarks of a site; voxels outside the field of view stay 0."""
    t2w = np.clip(profile.t2w.apply(stack[0]), -rules.t2w_limit, rules.t2w_limit)
    stack[0] = np.where(images.t2w > 0, t2w, 0.0)
    stack[1] = np.clip(stack[1] * profile.adc_scale, 0.0, rules.adc_limit_um2_s / 1000.0)
    if images.high_b is not None:
        high_b = np.clip(profile.high_b.apply(stack[2]), 0.0, rules.high_b_limit)
        stack[2] = np.where(images.high_b > 0, high_b, 0.0)
    return stack


def _tissue(image: FloatArray, gland: Mask) -> FloatArray:
    """Gland voxels inside the field of view; the whole image where there are too few."""
    for choice in (gland & (image > 0), image > 0):
        if int(choice.sum()) >= MINIMUM_SAMPLE:
            return image[choice]
    return np.ones(1, dtype=np.float32)
