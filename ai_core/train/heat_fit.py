"""Calibrates the fused map: from the network's logit to the log-odds of significant cancer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rich.progress import track

from ai_core.calibration import Calibration
from ai_core.localize import localize
from ai_core.nets.localizer import MODALITIES
from ai_core.release import Release
from ai_core.train.data import LesionSamples
from ai_core.train.logistic_fit import bounded_logistic
from ai_core.train.run import LATE_DROPOUT
from ai_core.train.source import Cases

#: Every so many voxels of a gland; neighbours say the same.
EVERY = 7
Bools = npt.NDArray[np.bool_]


def fit_heat(release: Release, source: Cases, cases: int) -> Calibration:
    """Fit slope and offset on the voxels of the glands of held-out cases 0, 2, 4, ...

    Cases are weighted to the prevalence in use. Too few of either kind: nothing is changed.
    The other numbers of the calibration stay as they are.
    """
    samples = LesionSamples(
        source, release.config, "calibrate", 1, LATE_DROPOUT, augment=False, in_order=True
    )
    odds: list[npt.NDArray[np.float64]] = []
    truth: list[Bools] = []
    for case in track(range(0, cases, 2), description="map"):
        logits, lesion = _voxels(samples, case, release)
        odds.append(logits)
        truth.append(lesion)
    positive = [bool(lesion.any()) for lesion in truth]
    if len(set(positive)) < 2:
        return release.calibration
    share, wanted = float(np.mean(positive)), release.config.training.prevalence
    up, down = wanted / share, (1 - wanted) / (1 - share)
    weights = [np.full(len(t), up if p else down) for t, p in zip(truth, positive, strict=True)]
    slope, offset = bounded_logistic(
        np.concatenate(odds)[:, None], np.concatenate(truth), (1,), np.concatenate(weights)
    )
    if slope[0] <= 0:
        return release.calibration
    return release.calibration.model_copy(
        update={"heat_slope": float(slope[0]), "heat_offset": offset}
    )


def _voxels(
    samples: LesionSamples, case: int, release: Release
) -> tuple[npt.NDArray[np.float64], Bools]:
    """Logits of the fused map in the gland, and whether each voxel lies in significant cancer."""
    batch = samples.batch(case)
    flags = zip(MODALITIES, batch["present"].tolist(), strict=True)
    maps = localize(batch["image"][0].numpy(), tuple(m for m, flag in flags if flag), release)
    inside = batch["zones"][0].numpy() > 0
    logits = maps.raw.lesion[0, 0].float().cpu().numpy()[inside][::EVERY]
    lesion = batch["lesion"][0, 0].numpy()[inside][::EVERY] > 0
    return logits.astype(np.float64), lesion
