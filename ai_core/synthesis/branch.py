"""The synthesis branch of a release: the generator, and what normal differences look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ai_core.candidates import Mask
from ai_core.config import CoreConfig
from ai_core.nets.synthesis import Generator
from ai_core.synthesis.compare import Abnormality, NormalSpread, judge
from ai_core.synthesis.complete import Prostate, normal_image
from ai_core.types import FloatArray

#: A region is as abnormal as its most abnormal part of this share.
REGION_SHARE = 0.25
#: A gland is as abnormal as its most abnormal part of this volume.
PEAK_ML = 0.25


@dataclass(frozen=True)
class Branch:
    """A second opinion beside the localizer; it sees the same images and zones, not its maps."""

    generator: Generator
    spread: NormalSpread

    def opinion(self, prostate: Prostate, config: CoreConfig) -> Abnormality:
        """Synthesise the normal image and compare.

        Raises:
            ValueError: there is no gland.
        """
        return judge(prostate, normal_image(prostate, self.generator, config), self.spread, config)


def in_region(abnormality: FloatArray, region: Mask, gland: Mask) -> float:
    """Return how abnormal a region is: the mean of the most abnormal share of its gland voxels."""
    values = np.sort(abnormality[region & gland])[::-1]
    if not values.size:
        return 0.0
    return float(values[: max(1, round(values.size * REGION_SHARE))].mean())


def in_gland(abnormality: FloatArray, gland: Mask, voxel_ml: float) -> float:
    """Return how abnormal a gland is: the mean of its most abnormal `PEAK_ML`."""
    values = np.sort(abnormality[gland])[::-1]
    return float(values[: max(1, round(PEAK_ML / voxel_ml))].mean()) if values.size else 0.0
