"""Uncertainty of findings, quality of the input, and familiarity of the images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ai_core.calibration import Calibration
from ai_core.errors import ReleaseError
from ai_core.familiarity import MINIMUM_CASES, Familiarity, fit_familiarity
from ai_core.nets.classifier import Classifier
from ai_core.pipeline import analyse
from ai_core.predict import Inputs, as_report
from ai_core.quality import LIMITS, judge_measures, signal_to_noise
from ai_core.release import (
    FAMILIARITY,
    PACKAGED,
    PACKAGED_NAME,
    Release,
    load_release,
    write_release,
)
from ai_core.types import Case, DwiVolume, Quality, Volume


def _elsewhere(release: Release) -> Familiarity:
    """Statistics of images that are nothing like an examination."""
    width = release.config.nets.fusion[-1]
    unit = tuple(tuple(float(i == j) for j in range(width)) for i in range(width))
    return Familiarity(mean=(100.0,) * width, precision=unit, limit=1.0, cases=MINIMUM_CASES)


def test_familiar_cases_score_below_one_and_others_above() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    fitted = fit_familiarity([mix @ rng.normal(size=6) for _ in range(300)])
    assert fitted is not None
    near = [fitted.score(mix @ rng.normal(size=6)) for _ in range(200)]
    assert np.mean(np.array(near) < 1) > 0.95
    assert fitted.score(mix @ np.full(6, 4.0)) > 1
    assert Familiarity.model_validate_json(fitted.model_dump_json()) == fitted


def test_too_few_cases_fit_nothing() -> None:
    assert fit_familiarity([np.zeros(3)] * (MINIMUM_CASES - 1)) is None


@torch.inference_mode()
def test_head_dropout_spreads_and_is_the_same_every_time() -> None:
    torch.manual_seed(0)
    network = Classifier((4, 8, 8)).eval()
    pooled = torch.randn(3, network.hidden[0].in_features)  # type: ignore[arg-type]
    first = network.dropout_logits(pooled, 16, 7)
    assert first.shape == (16, 3)
    assert torch.equal(first, network.dropout_logits(pooled, 16, 7))
    assert not torch.equal(first, network.dropout_logits(pooled, 16, 8))
    assert float(first.std(0).min()) > 0
    many = network.dropout_logits(pooled, 4000, 1).mean(0)
    exact = network.significance(network.hidden(pooled)).squeeze(1)
    assert torch.allclose(many, exact, atol=0.02)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_measure_beyond_its_limit_is_told(name: str) -> None:
    limit = LIMITS[name]
    if np.isfinite(limit.least):
        good, bad = limit.least, limit.least - 0.1
    else:
        good, bad = limit.most, limit.most + 0.1
    assert judge_measures({name: good}) == []
    (finding,) = judge_measures({name: bad})
    assert (finding.code, finding.value) == (limit.code, pytest.approx(bad, abs=0.01))
    assert judge_measures({}) == []


def test_noise_is_measured() -> None:
    rng = np.random.default_rng(0)
    gland = np.zeros((6, 60, 60), dtype=bool)
    gland[2:4, 20:40, 20:40] = True
    image = (100 + rng.normal(0, 5, gland.shape)).astype(np.float32)
    assert signal_to_noise(image, gland) == pytest.approx(20, rel=0.15)
    assert signal_to_noise(image, np.zeros_like(gland)) is None


def test_every_analysis_says_what_its_input_was_worth(case: Case, packaged: Release) -> None:
    result = analyse(case, packaged)
    assert {"snr_t2w", "snr_dwi", "gland_overlap_dwi_t2w"} <= set(result.measures)
    assert result.measures["gland_overlap_dwi_t2w"] > 0.65
    report = as_report(result, Inputs(Path("t"), Path("a"), None, 0, (), 0), [], {})
    quality = report["input_quality"]
    assert quality["adequate"] == (not quality["reasons"])
    assert set(quality["measures"]) == set(result.measures)


@pytest.mark.slow
def test_diffusion_that_lies_elsewhere_is_told_and_not_refused(
    case: Case, packaged: Release
) -> None:
    def moved(volume: Volume) -> Volume:
        x, y, z = volume.geometry.origin_lps_mm
        return Volume(
            volume.array, dataclasses.replace(volume.geometry, origin_lps_mm=(x, y - 22.0, z))
        )

    away = dataclasses.replace(
        case,
        dwi=tuple(DwiVolume(moved(d.volume), d.b_value_s_per_mm2) for d in case.dwi),
    )
    result = analyse(away, packaged)
    assert result.gland.credible
    assert result.measures["gland_overlap_dwi_t2w"] < 0.65
    assert Quality.DISTORTION in {q.code for q in result.inadequate}


def test_a_release_may_carry_its_familiarity(packaged: Release, tmp_path: Path) -> None:
    """Unlike images are told; a release without the file stays usable; a broken file is not."""
    known = _elsewhere(packaged)
    weights = {
        name: dict(getattr(packaged, name).state_dict())
        for name in ("gland", "localizer", "classifier")
    }
    models = (packaged.significance, packaged.presence)
    write_release(tmp_path, packaged.config, weights, Calibration(), *models, "# Card\n", known)
    release = load_release(tmp_path, "cpu")
    assert release.familiarity == known
    (tmp_path / FAMILIARITY).write_text(json.dumps({"mean": []}))
    with pytest.raises(ReleaseError, match="SHA-256 differs"):
        load_release(tmp_path, "cpu")


def test_images_unlike_the_training_are_told(case: Case, packaged: Release) -> None:
    known = _elsewhere(packaged)
    result = analyse(case, dataclasses.replace(packaged, familiarity=known))
    assert result.measures["out_of_distribution"] > 1
    assert Quality.UNFAMILIAR in {q.code for q in result.inadequate}


def test_the_packaged_release_loads_with_or_without_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    shutil.copytree(PACKAGED / PACKAGED_NAME, folder)
    listed = json.loads((folder / "manifest.json").read_text())
    listed["files"].pop(FAMILIARITY, None)
    (folder / "manifest.json").write_text(json.dumps(listed))
    assert load_release(folder, "cpu").familiarity is None
