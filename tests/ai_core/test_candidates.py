"""Extraction of regions, features, sectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ai_core.candidates import Candidate, dilate_mm, extract_candidates
from ai_core.config import Candidates
from ai_core.features import FEATURES, Scene, candidate_features, longest_diameter_mm
from ai_core.geometry import grid_around
from ai_core.logistic import LogisticModel
from ai_core.sectors import sector_of

SHAPE, SPACING = (24, 60, 60), (3.0, 1.2, 1.2)
RULES = Candidates()
GLAND = np.zeros(SHAPE, dtype=bool)
GLAND[4:20, 12:48, 10:50] = True


def _heat(*peaks: tuple[tuple[int, int, int], float]) -> np.ndarray:  # type: ignore[type-arg]
    heat = np.zeros(SHAPE, dtype=np.float32)
    for place, value in peaks:
        spot = np.zeros(SHAPE, dtype=np.float32)
        spot[place] = 1.0
        spot = ndimage.gaussian_filter(spot, (1.0, 3.0, 3.0))
        heat = np.maximum(heat, value * spot / spot.max())
    return heat


def test_faint_and_bright_lesions_are_both_found_strongest_first() -> None:
    heat = _heat(((10, 20, 20), 0.2), ((14, 40, 40), 0.9))
    found = extract_candidates(heat, GLAND, SPACING, RULES)
    assert [c.peak_zyx for c in found] == [(14, 40, 40), (10, 20, 20)]
    for candidate in found:
        assert heat[candidate.mask].min() >= candidate.heat / RULES.peak_ratio
        assert candidate.mask[candidate.peak_zyx]


def test_nothing_far_from_the_gland_or_too_small_is_found() -> None:
    assert extract_candidates(_heat(((12, 2, 2), 0.9)), GLAND, SPACING, RULES) == []
    speck = np.zeros(SHAPE, dtype=np.float32)
    speck[10, 30, 30] = 0.9
    assert extract_candidates(speck, GLAND, SPACING, RULES) == []


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_candidates_are_few_apart_and_near_the_gland(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heat = ndimage.gaussian_filter(rng.random(SHAPE), (1, 2, 2)).astype(np.float32)
    heat = (heat - heat.min()) / np.ptp(heat)
    found = extract_candidates(heat, GLAND, SPACING, RULES)
    assert len(found) <= RULES.maximum_count
    near = dilate_mm(GLAND, RULES.gland_margin_mm, SPACING)
    total = np.zeros(SHAPE, dtype=int)
    for candidate in found:
        assert near[candidate.mask].all()
        total += candidate.mask
    assert total.max(initial=0) <= 1
    assert [c.heat for c in found] == sorted((c.heat for c in found), reverse=True)


def _scene(present: frozenset[str]) -> Scene:
    image = np.random.default_rng(0).normal(1, 0.2, (5, *SHAPE)).astype(np.float32)
    return Scene(image, present, GLAND, np.where(GLAND, 1, 0).astype(np.uint8), SPACING)


@pytest.mark.parametrize(
    "present", [frozenset({"t2w", "adc"}), frozenset({"t2w", "adc", "high_b", "dce"})]
)
def test_features_are_complete_and_none_only_where_a_modality_is_missing(
    present: frozenset[str],
) -> None:
    candidate = extract_candidates(_heat(((10, 20, 20), 0.8)), GLAND, SPACING, RULES)[0]
    table = candidate_features(candidate, _scene(present))
    assert set(table) == set(FEATURES)
    missing = {name for name, value in table.items() if value is None}
    assert all(
        name.split("_mean")[0].split("_var")[0].split("_contrast")[0] not in present
        for name in missing
    )
    assert all(np.isfinite(v) for v in table.values() if v is not None)


def test_a_darker_adc_raises_the_tissue_ratio() -> None:
    candidate = extract_candidates(_heat(((10, 20, 20), 0.8)), GLAND, SPACING, RULES)[0]
    scene = _scene(frozenset({"t2w", "adc"}))
    plain = candidate_features(candidate, scene)["tissue_llr"]
    scene.image[1][candidate.mask] *= 0.6
    dark = candidate_features(candidate, scene)["tissue_llr"]
    assert plain is not None
    assert dark is not None
    assert dark > plain + 1


def test_longest_diameter_of_a_bar() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[5, 10, 10:21] = True
    assert longest_diameter_mm(mask, SPACING) == pytest.approx(11 * 1.2)


def test_significance_explains_itself() -> None:
    model = LogisticModel(
        features=("a", "b"), mean=(1.0, 0.0), spread=(2.0, 1.0), weight=(0.5, -1.0), intercept=0.1
    )
    values = {"a": 3.0, "b": None}
    assert model.contributions(values) == {"a": 0.5, "b": 0.0}
    assert model.probability(values) == pytest.approx(1 / (1 + np.exp(-0.6)))


GRID = grid_around((0.0, 0.0, 0.0), (1.2, 1.2, 3.0), (60, 60, 24), np.eye(3))
UPSIDE_DOWN = grid_around((0.0, 0.0, 0.0), (1.2, 1.2, 3.0), (60, 60, 24), np.diag([1, 1, -1]))


def _zones() -> np.ndarray:  # type: ignore[type-arg]
    zones = np.zeros(SHAPE, dtype=np.uint8)
    zones[3:21, 12:48, 10:50] = 1
    zones[3:21, 12:36, 18:42] = 2
    return zones


@pytest.mark.parametrize(
    ("center_zyx", "key"),
    [
        ((12, 44, 38), "PZ/pm/mid/L"),
        ((12, 40, 47), "PZ/pl/mid/L"),
        ((12, 40, 13), "PZ/pl/mid/R"),
        ((5, 44, 25), "PZ/pm/apex/R"),
        ((19, 15, 47), "PZ/a/base/L"),
        ((12, 16, 25), "TZ/a/mid/R"),
        ((19, 33, 36), "TZ/p/base/L"),
    ],
)
def test_sector(center_zyx: tuple[int, int, int], key: str) -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    z, y, x = center_zyx
    mask[z, y - 1 : y + 2, x - 1 : x + 2] = True
    assert sector_of(mask, _zones(), GRID) == key


def test_level_follows_the_patient_not_the_slice_order() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[5, 40:43, 40:43] = True
    assert "/apex/" in sector_of(mask, _zones(), GRID)
    assert "/base/" in sector_of(mask, _zones(), UPSIDE_DOWN)


def test_a_finding_outside_the_gland_takes_the_nearest_zone() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[12, 49:51, 30:32] = True
    assert sector_of(mask, _zones(), GRID).startswith("PZ/pm/")


def test_the_core_is_measured_around_the_peak_and_against_its_zone() -> None:
    """A dark ball of 4 mm in an even zone: the ratio is that of the two, whatever the outline."""
    scene = _scene(frozenset({"t2w", "adc"}))
    z, y, x = np.argwhere(scene.gland).mean(0).round().astype(int)
    zone = 1 if scene.zones[z, y, x] == 1 else 2
    image = scene.image.copy()
    image[1] = np.where(scene.zones == zone, 1.6, 0.0)
    grid = np.indices(scene.gland.shape).reshape(3, -1).T - (z, y, x)
    near = ((grid * np.array(scene.spacing_zyx_mm)) ** 2).sum(1).reshape(scene.gland.shape) <= 16
    image[1][near] = 0.8
    outlines = (near, near | (np.abs(np.arange(near.shape[2]) - x) <= 6)[None, None] & scene.gland)
    for outline in outlines:
        candidate = Candidate(outline, (int(z), int(y), int(x)), 0.5)
        table = candidate_features(candidate, replace(scene, image=image))
        assert table["adc_core_ratio"] == pytest.approx(0.5, abs=0.01)
        assert table["high_b_core_ratio"] is None
