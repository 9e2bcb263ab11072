"""The calibration of the fused map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai_core.calibration import Calibration
from ai_core.localize import localize
from ai_core.nets.localizer import MODALITIES
from ai_core.release import Release
from ai_core.sim.dataset import build_cache
from ai_core.train.data import LesionSamples
from ai_core.train.heat_fit import fit_heat
from ai_core.train.run import LATE_DROPOUT
from ai_core.train.source import Source

CASES = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder: Path = tmp_path_factory.mktemp("cache")
    build_cache(folder, CASES, seed=8)
    return Source((folder,), 0)


@pytest.mark.slow
def test_slope_and_offset_act_on_the_logits_of_both_views(
    source: Source, packaged: Release
) -> None:
    stack = np.zeros((5, *packaged.config.lesion_grid.shape_zyx), np.float32)
    stack[:, 8:12, 30:40, 30:40] = 1.0
    calibrated = replace(packaged, calibration=Calibration(heat_slope=0.5, heat_offset=-1.5))
    maps = localize(stack, MODALITIES, calibrated)
    raw = maps.raw.lesion[:, 0].numpy()
    odds = 0.5 * np.stack([raw[0], raw[1][..., ::-1]]) - 1.5
    assert np.allclose(maps.heat, (1 / (1 + np.exp(-odds))).mean(0), atol=1e-5)


@pytest.mark.slow
def test_the_calibrated_map_says_how_much_of_the_glands_is_cancer(
    source: Source, packaged: Release
) -> None:
    """Weighted to the prevalence in use, the mean of the map is the share of cancer voxels."""
    plain = replace(packaged, calibration=Calibration(report_from=0.3))
    fitted = fit_heat(plain, source, CASES)
    assert fitted.report_from == 0.3
    assert 0 < fitted.heat_slope < 3
    calibrated = replace(packaged, calibration=fitted)
    samples = LesionSamples(
        source, packaged.config, "calibrate", 1, LATE_DROPOUT, augment=False, in_order=True
    )
    said: dict[bool, list[float]] = {True: [], False: []}
    true: dict[bool, list[float]] = {True: [], False: []}
    for case in range(0, CASES, 2):
        batch = samples.batch(case)
        present = tuple(
            m for m, flag in zip(MODALITIES, batch["present"].tolist(), strict=True) if flag
        )
        maps = localize(batch["image"][0].numpy(), present, calibrated)
        inside = batch["zones"][0].numpy() > 0
        lesion = batch["lesion"][0, 0].numpy()[inside] > 0
        said[bool(lesion.any())] += maps.heat[inside].tolist()
        true[bool(lesion.any())] += lesion.tolist()
    assert said[True], "no case with cancer: choose another seed"
    assert said[False], "no case without cancer: choose another seed"
    prevalence = packaged.config.training.prevalence
    share = len([1 for c in range(0, CASES, 2) if samples.batch(c)["lesion"].any()]) / (CASES / 2)

    def weighted(values: dict[bool, list[float]]) -> float:
        up, down = prevalence / share, (1 - prevalence) / (1 - share)
        total = up * len(values[True]) + down * len(values[False])
        return (up * sum(values[True]) + down * sum(values[False])) / total

    assert weighted(said) == pytest.approx(weighted(true), rel=0.25)


def test_without_cases_of_both_kinds_nothing_changes(source: Source, packaged: Release) -> None:
    assert fit_heat(packaged, source, 1) == packaged.calibration
