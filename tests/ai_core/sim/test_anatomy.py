"""One patient on any grid: determinism, volumes, contact of organs, lesion rules and rates."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from ai_core.geometry import grid_around, index_to_lps
from ai_core.sim.anatomy import draw_anatomy, draw_volume_ml, rasterise, zone_points
from ai_core.sim.dataset import cache_geometry
from ai_core.sim.lesions import Points, draw_foci
from ai_core.sim.params import Focus, FocusKind, GlandShape, Tissue, from_json, to_json

AXIAL = np.eye(3)
SAGITTAL = np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])


def test_same_seed_same_patient_other_seed_other_patient() -> None:
    first = draw_anatomy(np.random.default_rng(4))
    assert first == draw_anatomy(np.random.default_rng(4))
    assert first != draw_anatomy(np.random.default_rng(5))
    grid = grid_around((0, 0, 0), (2.0, 2.0, 4.0), (60, 60, 16), AXIAL)
    assert np.array_equal(rasterise(first, grid).labels, rasterise(first, grid).labels)


def test_parameters_survive_json() -> None:
    params = draw_anatomy(np.random.default_rng(8), lesion=True)
    assert from_json(to_json(params)) == params


@pytest.mark.parametrize("volume", [16.0, 45.0, 140.0])
def test_gland_has_the_drawn_volume_and_zone_share(volume: float) -> None:
    params = draw_anatomy(np.random.default_rng(int(volume)), volume_ml=volume)
    grid = grid_around((0, 0, 0), (1.5, 1.5, 2.0), (90, 90, 64), AXIAL)
    zones = rasterise(params, grid).zones
    measured = (zones > 0).sum() * grid.voxel_volume_mm3 / 1000
    assert measured == pytest.approx(volume, rel=0.12)
    share = (zones == 1).sum() / (zones > 0).sum()
    assert share == pytest.approx(params.gland.pz_fraction, abs=0.10)


def test_volume_prior_reaches_small_and_large_glands() -> None:
    rng = np.random.default_rng(0)
    volumes = np.array([draw_volume_ml(rng) for _ in range(2000)])
    assert volumes.min() >= 15 and volumes.max() <= 150
    assert 0.15 < (volumes < 30).mean() < 0.45
    assert 0.10 < (volumes > 100).mean() < 0.45


def _labels_at(
    labels: npt.NDArray[np.uint8], inverse: npt.NDArray[Any], points: npt.NDArray[Any]
) -> npt.NDArray[np.uint8]:
    index = np.round((inverse @ points)[:3]).astype(int)
    return np.asarray(labels[index[2], index[1], index[0]])


def test_axial_and_sagittal_grids_show_the_same_patient() -> None:
    params = draw_anatomy(np.random.default_rng(21), lesion=True, volume_ml=50)
    axial = grid_around((0, 0, 0), (1.0, 1.0, 3.0), (96, 96, 24), AXIAL)
    sagittal = grid_around((0, 0, 0), (1.0, 1.0, 3.0), (96, 96, 24), SAGITTAL)
    a, s = rasterise(params, axial), rasterise(params, sagittal)
    rng = np.random.default_rng(0)
    points = np.vstack([rng.uniform(-30, 30, (3, 4000)), np.ones(4000)])
    # Compare at centres of axial voxels, where only the sagittal grid has to be rounded.
    forward = index_to_lps(axial)
    points = forward @ np.round(np.linalg.inv(forward) @ points)
    on_axial = _labels_at(a.zones, np.linalg.inv(forward), points)
    on_sagittal = _labels_at(s.zones, np.linalg.inv(index_to_lps(sagittal)), points)
    assert (on_axial == on_sagittal).mean() > 0.93
    assert (a.zones > 0).sum() == pytest.approx((s.zones > 0).sum(), rel=0.05)


def test_organs_touch_the_gland_and_lie_on_the_right_side() -> None:
    params = draw_anatomy(np.random.default_rng(3), volume_ml=45)
    labels = rasterise(params, cache_geometry()).labels
    zones = rasterise(params, cache_geometry()).zones
    gland = np.argwhere(zones > 0).mean(0)
    for tissue, axis, sign in (
        (Tissue.RECTAL_WALL, 1, 1),
        (Tissue.SYMPHYSIS, 1, -1),
        (Tissue.BLADDER_URINE, 0, 1),
        (Tissue.PENILE_BULB, 0, -1),
    ):
        middle = np.argwhere(labels == tissue).mean(0)
        assert sign * (middle[axis] - gland[axis]) > 0, tissue
    near = ndimage.binary_dilation(zones > 0, iterations=6)
    mid = slice(14, 18)
    assert (labels[mid][near[mid]] == Tissue.RECTAL_WALL).any()
    assert (labels[mid][near[mid]] == Tissue.LEVATOR).any()
    used = np.unique(labels)
    assert len(used) >= 25


@cache
def _gland() -> tuple[GlandShape, tuple[Points, Points]]:
    gland = draw_anatomy(np.random.default_rng(6), volume_ml=60).gland
    return gland, zone_points(gland)


def _foci(rng: np.random.Generator, positive: bool) -> tuple[Focus, ...]:
    gland, points = _gland()
    return draw_foci(rng, gland, points, positive=positive, positive_fraction=0.5)


def test_cancers_keep_the_ordering_constraints() -> None:
    rng = np.random.default_rng(1)
    foci = [f for _ in range(300) for f in _foci(rng, True) if f.kind is FocusKind.CANCER]
    seen = [f for f in foci if f.significant and f.pirads >= 4]
    assert len(seen) > 200
    assert all(f.adc_ratio < 0.85 for f in seen)
    assert np.mean([f.t2_ratio < 0.95 for f in seen]) > 0.9
    assert all((f.pirads == 5) == (2 * max(f.radii) >= 15) for f in seen)
    low = np.mean([f.adc_ratio for f in foci if f.isup == 2 and f.pirads >= 4])
    high = np.mean([f.adc_ratio for f in foci if f.isup >= 4 and f.pirads >= 4])
    assert high < low - 0.05


def test_mimics_come_at_the_published_rates() -> None:
    rng = np.random.default_rng(2)
    cancers: Counter[int] = Counter()
    benign: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    for i in range(1600):
        for focus in _foci(rng, i % 2 == 0):
            (cancers if focus.significant else benign)[focus.pirads] += 1
            if focus.kind is not FocusKind.CANCER:
                kinds[focus.kind] += 1
    # PI-CAI: 242 benign or grade group 1 foci of PI-RADS 4 for 147 cancers of PI-RADS 4.
    assert benign[4] / cancers[4] == pytest.approx(1.6, abs=0.4)
    assert benign[5] / cancers[5] == pytest.approx(0.56, abs=0.2)
    assert set(kinds) == {k for k in FocusKind if k is not FocusKind.CANCER}
