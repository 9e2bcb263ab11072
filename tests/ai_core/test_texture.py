"""Shape and texture against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ai_core.texture import co_occurrence, principal_axes, wedge_index

SPACING = (3.0, 1.0, 1.0)


def _ball(radii_mm: tuple[float, float, float]) -> np.ndarray:
    z, y, x = np.indices((15, 61, 61))
    q = ((z - 7) * 3 / radii_mm[0]) ** 2 + ((y - 30) / radii_mm[1]) ** 2
    return np.asarray(q + ((x - 30) / radii_mm[2]) ** 2 <= 1)


def test_axes_of_ellipsoids_are_their_ratios() -> None:
    round_one = principal_axes(_ball((18, 18, 18)), SPACING)
    assert round_one.elongation == pytest.approx(1, abs=0.05)
    assert round_one.flatness == pytest.approx(1, abs=0.05)
    lens = principal_axes(_ball((18, 6, 24)), SPACING)
    assert lens.flatness == pytest.approx(6 / 24, abs=0.04)
    assert lens.elongation == pytest.approx(18 / 24, abs=0.05)


def test_a_wedge_widens_towards_the_capsule_and_a_ball_does_not() -> None:
    gland = _ball((18, 25, 28))
    z, y, x = np.indices(gland.shape)
    wedge = (np.abs(x - 30) <= 0.5 * (y - 34)) & (y > 34) & (y < 52) & (np.abs(z - 7) < 3)
    ball = (y - 43) ** 2 + (x - 30) ** 2 + (3 * (z - 7)) ** 2 < 60
    assert wedge_index(wedge, gland, SPACING) > 0.8
    assert abs(wedge_index(ball, gland, SPACING)) < 0.4
    assert wedge_index(ball, np.zeros_like(gland), SPACING) == 0.0


def test_co_occurrence_tells_flat_stripes_and_noise_apart() -> None:
    mask = _ball((9, 12, 12))
    flat = co_occurrence(np.full(mask.shape, 0.5, np.float32), mask, 0, 1)
    assert (flat.contrast, flat.homogeneity) == (0.0, pytest.approx(1.0))
    _, _, x = np.indices(mask.shape)
    smooth = co_occurrence((x / 60).astype(np.float32), mask, 0, 1)
    noise = co_occurrence(
        np.random.default_rng(1).random(mask.shape).astype(np.float32), mask, 0, 1
    )
    assert smooth.contrast < noise.contrast and smooth.correlation > 0.8
    assert abs(noise.correlation) < 0.15
    # Uniform noise on eight levels: mean squared difference of two of them is 2 (64 - 1) / 12.
    assert noise.contrast == pytest.approx(10.5, rel=0.12)


def test_values_outside_the_mask_do_not_count() -> None:
    mask = _ball((9, 8, 8))
    image = np.random.default_rng(2).random(mask.shape).astype(np.float32)
    other = np.where(mask, image, 5.0).astype(np.float32)
    assert co_occurrence(image, mask, 0, 1) == co_occurrence(other, mask, 0, 1)
