"""Diffusion arithmetic, enhancement maps, normalisation, registration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ai_core.config import Normalise
from ai_core.geometry import grid_around
from ai_core.prepare.diffusion import adc_unit, extrapolate, fit_adc
from ai_core.prepare.enhancement import enhancement_maps
from ai_core.prepare.geometry import resample, to_sitk
from ai_core.prepare.normalise import Images, gland_z, network_input, whole_image_z
from ai_core.prepare.registration import align
from ai_core.types import Volume

SHAPE = (4, 12, 12)
GLAND = np.zeros(SHAPE, dtype=bool)
GLAND[1:3, 3:9, 3:9] = True
RULES = Normalise()


@given(st.floats(300, 3000), st.sampled_from([(50, 800), (0, 400, 800), (50, 500, 1000, 2000)]))
def test_adc_fit_recovers_the_decay(adc: float, b_values: tuple[int, ...]) -> None:
    signals = [np.full(SHAPE, 500 * np.exp(-b * adc * 1e-6), np.float32) for b in b_values]
    assert fit_adc(signals, b_values) == pytest.approx(adc, rel=1e-2)


def test_adc_fit_needs_two_b_values() -> None:
    with pytest.raises(ValueError, match="two different"):
        fit_adc([np.ones(SHAPE, np.float32)] * 2, [800, 800])


def test_noise_has_no_adc() -> None:
    low = np.full(SHAPE, 400.0, np.float32)
    low[0] = 1.0
    fitted = fit_adc([low, low * 0.4], [0, 800])
    assert (fitted[0] == 0).all()
    assert (fitted[1] > 0).all()


def test_computed_high_b_follows_the_decay() -> None:
    adc = np.full(SHAPE, 1000.0, np.float32)
    computed = extrapolate(np.full(SHAPE, 100.0, np.float32), 800, adc, 1400)
    assert computed == pytest.approx(100 * np.exp(-0.6), rel=1e-5)


@pytest.mark.parametrize(
    ("median", "stated", "factor", "known"),
    [
        (1.4, None, 1000.0, True),
        (140.0, None, 10.0, True),
        (1400.0, None, 1.0, True),
        (1400.0, 1.0, 1.0, True),
        (1.4, 1000.0, 1000.0, True),
        (1400.0, 1000.0, 1000.0, False),
        (35.0, None, 1300.0 / 35.0, False),
    ],
)
def test_unit_of_adc(median: float, stated: float | None, factor: float, known: bool) -> None:
    unit = adc_unit(np.full(SHAPE, median, np.float32), stated, GLAND)
    assert unit.factor == pytest.approx(factor, rel=1e-4)
    assert unit.known is known


def test_enhancement_maps_find_arrival_and_washout() -> None:
    times = [0.0, 10.0, 20.0, 30.0, 40.0, 80.0, 140.0, 200.0]
    curve = [100, 100, 200, 200, 200, 200, 180, 160]
    phases = [np.full(SHAPE, value, np.float32) for value in curve]
    maps = enhancement_maps(phases, times, GLAND)
    assert maps is not None
    assert maps[0] == pytest.approx(1.0, abs=0.01)
    assert (maps[1] < 0).all()


def test_a_series_without_contrast_is_not_used() -> None:
    phases = [np.full(SHAPE, 100.0, np.float32)] * 5
    assert enhancement_maps(phases, [0, 10, 20, 30, 40], GLAND) is None


@given(st.floats(0.01, 1000), st.floats(0.0, 50))
def test_t2w_normalisation_ignores_gain(gain: float, noise: float) -> None:
    image = np.random.default_rng(3).uniform(20, 200 + noise, SHAPE).astype(np.float32)
    assert np.allclose(
        gland_z(image, GLAND, RULES), gland_z(image * np.float32(gain), GLAND, RULES), atol=1e-3
    )


def test_outside_the_field_of_view_stays_zero() -> None:
    image = np.random.default_rng(3).uniform(20, 200, SHAPE).astype(np.float32)
    image[:, :, :2] = 0
    assert (whole_image_z(image, RULES)[:, :, :2] == 0).all()
    stack = network_input(Images(image, image * 10, image), GLAND, RULES)
    assert (stack[:, :, :, :2] == 0).all()
    assert (stack[3:] == 0).all()
    assert stack.dtype == np.float32


def test_adc_keeps_its_absolute_value() -> None:
    t2w = np.full(SHAPE, 100.0, np.float32)
    stack = network_input(Images(t2w, np.full(SHAPE, 900.0, np.float32)), GLAND, RULES)
    assert stack[1] == pytest.approx(0.9)


@pytest.mark.parametrize("kind", ["t2w", "adc", "high_b", "dce"])
def test_an_empty_image_gives_finite_input(kind: str) -> None:
    full, empty = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    images = {name: (empty if name == kind else full) for name in ("t2w", "adc", "high_b", "dce")}
    stack = network_input(
        Images(images["t2w"], images["adc"], images["high_b"], np.stack([images["dce"]] * 2)),
        GLAND,
        RULES,
    )
    assert np.isfinite(stack).all()


def _blobs(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    noise = np.random.default_rng(seed).standard_normal((24, 80, 80))
    smooth = ndimage.gaussian_filter(noise, (1.0, 3.0, 3.0))
    return (200 + 100 * smooth / smooth.std()).clip(1).astype(np.float32)


def test_registration_finds_a_shift_and_improves() -> None:
    grid = grid_around((0.0, 0.0, 0.0), (1.2, 1.2, 3.0), (80, 80, 24), np.eye(3))
    moved = grid_around((3.0, -2.0, 0.0), (1.2, 1.2, 3.0), (80, 80, 24), np.eye(3))
    image = _blobs(1)
    moving = to_sitk(Volume(400 - image, moved))
    alignment = align(image, moving, grid)
    assert alignment.transform is not None
    assert alignment.shift_mm == pytest.approx(np.hypot(3, 2), abs=1.5)
    before = np.corrcoef(resample(moving, grid).ravel(), image.ravel())[0, 1]
    after = np.corrcoef(resample(moving, grid, alignment.transform).ravel(), image.ravel())[0, 1]
    assert after < before


def test_registration_leaves_aligned_images_alone() -> None:
    grid = grid_around((0.0, 0.0, 0.0), (1.2, 1.2, 3.0), (80, 80, 24), np.eye(3))
    image = _blobs(2)
    alignment = align(image, to_sitk(Volume(400 - image, grid)), grid)
    assert alignment.shift_mm < 1.5
    assert not alignment.rejected
