"""The baseline to beat: a likelihood ratio from the tissue table, voxel by voxel, no learning.

Log-likelihood ratio of cancer against other tissue from ADC, high b and (half weight) T2W,
smoothed, turned into a posterior with the share of cancer voxels in a gland as prior. Only the
gland outline comes from the networks.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ai_core.candidates import Candidate, extract_candidates
from ai_core.config import Candidates
from ai_core.features import CHANNEL, TISSUE_TABLE, Scene
from ai_core.types import FloatArray

SMOOTHING_MM = 2.5
WEIGHT = {"adc": 1.0, "high_b": 1.0, "t2w": 0.5}
#: About 1 mL of cancer in 50 mL of gland, in one of four glands.
PRIOR_LOG_ODDS = float(np.log(0.005))


def tissue_map(scene: Scene) -> FloatArray:
    """Posterior 0-1 of cancer by voxel, ``[z, y, x]`` on the grid of the scene.

    0 outside the gland. Beyond the table's means a value says no more than the mean does:
    artefacts would win else.
    """
    total = np.zeros(scene.gland.shape, dtype=np.float64)
    for name, (cancer, other, spread) in TISSUE_TABLE.items():
        if name not in scene.present:
            continue
        values = scene.image[CHANNEL[name]].astype(np.float64)
        valid = values != 0
        if name == "adc":
            inside = values[scene.gland & (values > 0)]
            values = values / max(float(np.median(inside)) if inside.size else 1.0, 0.1)
        bounded = np.clip(values, min(cancer, other), max(cancer, other))
        ratio = ((bounded - other) ** 2 - (bounded - cancer) ** 2) / (2 * spread**2)
        total += WEIGHT[name] * np.where(valid, ratio, 0.0)
    sigma = [SMOOTHING_MM / step for step in scene.spacing_zyx_mm]
    odds = ndimage.gaussian_filter(np.where(scene.gland, total, 0.0), sigma) + PRIOR_LOG_ODDS
    return np.where(scene.gland, 1 / (1 + np.exp(-odds)), 0.0).astype(np.float32)


def tissue_candidates(scene: Scene, rules: Candidates) -> list[Candidate]:
    """Return candidates of the tissue map, cut out by the rules of the release."""
    return extract_candidates(tissue_map(scene), scene.gland, scene.spacing_zyx_mm, rules)
