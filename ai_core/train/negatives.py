"""T2W-like volumes without a prostate, so that the gland finder learns to say "not here".

Smooth noise, random tissue mosaics, head-like nested shells, limb-like cylinders.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from ai_core.types import FloatArray

Rng = np.random.Generator
Shape = tuple[int, int, int]
#: Slices are about twice as thick as pixels on the gland grid: fields are smoothed less along z.
Z_RATIO = 0.5


def smooth_field(rng: Rng, shape: Shape, sigma: float) -> FloatArray:
    """Gaussian random field of unit variance; ``sigma`` in pixels of the slice plane."""
    noise = rng.standard_normal(shape).astype(np.float32)
    field = ndimage.gaussian_filter(noise, (sigma * Z_RATIO, sigma, sigma))
    return np.asarray(field / max(float(field.std()), 1e-6), dtype=np.float32)


def mosaic(rng: Rng, shape: Shape) -> FloatArray:
    """Random tissues: at each voxel the strongest of several smooth fields gives the intensity."""
    count = int(rng.integers(3, 9))
    sigma = float(rng.uniform(2.0, 9.0))
    fields = np.stack([smooth_field(rng, shape, sigma) for _ in range(count)])
    levels = rng.uniform(0.05, 1.0, count).astype(np.float32)
    return np.asarray(levels[fields.argmax(0)], dtype=np.float32)


def _noise(rng: Rng, shape: Shape) -> FloatArray:
    sigma = float(rng.choice([0.0, 0.7, 2.0, 5.0]))
    field = smooth_field(rng, shape, sigma) if sigma else rng.standard_normal(shape)
    return np.abs(1.0 + rng.uniform(0.1, 1.0) * field).astype(np.float32)


def _radius(rng: Rng, shape: Shape, flat: bool) -> FloatArray:
    """Normalised distance from a random centre: ellipsoid, or cylinder along z if ``flat``."""
    half = np.array(shape) / 2
    centre = half + rng.uniform(-0.15, 0.15, 3) * np.array(shape)
    radii = np.array(shape) * rng.uniform(0.25, 0.65, 3)
    z, y, x = (a.astype(np.float32) for a in np.indices(shape, sparse=True))
    along = 0.0 * z if flat else ((z - centre[0]) / radii[0]) ** 2
    across = ((y - centre[1]) / radii[1]) ** 2 + ((x - centre[2]) / radii[2]) ** 2
    warp = 0.08 * smooth_field(rng, shape, 6.0)
    return np.asarray(np.sqrt(along + across) + warp, dtype=np.float32)


def _head(rng: Rng, shape: Shape) -> FloatArray:
    radius = _radius(rng, shape, flat=False)
    edges = np.sort(rng.uniform(0.25, 1.1, int(rng.integers(3, 6))))
    levels = rng.uniform(0.05, 1.0, edges.size + 1).astype(np.float32)
    shells = levels[np.digitize(radius, edges)]
    inside = radius < edges[-2]
    return np.where(inside, 0.5 * shells + 0.5 * mosaic(rng, shape), shells).astype(np.float32)


def _limbs(rng: Rng, shape: Shape) -> FloatArray:
    image = np.full(shape, 0.03, dtype=np.float32)
    for _ in range(int(rng.integers(1, 3))):
        radius = _radius(rng, shape, flat=True)
        image[radius < 1.0] = rng.uniform(0.5, 1.0)
        image[radius < rng.uniform(0.75, 0.92)] = rng.uniform(0.1, 0.5)
        image[radius < rng.uniform(0.2, 0.35)] = rng.uniform(0.0, 0.9)
    return image


MAKERS: tuple[Callable[[Rng, Shape], FloatArray], ...] = (_noise, mosaic, _head, _limbs)


def no_prostate(rng: Rng, shape: Shape) -> FloatArray:
    """Return a volume ``[z, y, x]`` with positive intensities and no prostate in it."""
    image = MAKERS[int(rng.integers(len(MAKERS)))](rng, shape)
    image = image * np.exp(0.25 * smooth_field(rng, shape, float(rng.uniform(1.0, 4.0))))
    image = image * np.exp(0.2 * smooth_field(rng, shape, 25.0))
    blurred = ndimage.gaussian_filter(image, (0.0, *(2 * [float(rng.uniform(0.0, 1.0))])))
    noise = rng.standard_normal(shape) * rng.uniform(0.01, 0.08)
    return np.asarray(np.abs(blurred + noise) + 1e-3, dtype=np.float32)
