"""Implicit functions of the gland and its zones, on warped patient coordinates (LPS mm)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ai_core.sim.params import GlandShape

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def gland_level(g: GlandShape, x: Array, y: Array, z: Array) -> Array:
    """Below 1 inside the gland; grows roughly in proportion to the distance from its centre."""
    t = z / g.az
    s = 1.0 + g.taper * np.clip(t, -1.3, 1.3)
    yn = (y - g.tilt * z) / (g.ay * s)
    xw = g.ax * s * (1.0 + g.wedge * np.clip(yn, -1.2, 1.2))
    dip = g.indent * np.exp(-np.square(x / (0.45 * g.ax)))
    yn = yn + np.where(yn > 0, dip, 0.0) * np.clip(yn * 3, 0, 1)
    p = g.power
    q = np.abs(x / xw) ** p + np.abs(yn) ** p + np.abs(t) ** p
    return np.asarray(q ** (1.0 / p), dtype=np.float32)


def gland_distance(g: GlandShape, level: Array, x: Array, y: Array, z: Array) -> Array:
    """Approximate signed distance (mm) to the gland surface, negative inside."""
    r = np.sqrt(x * x + np.square(y - g.tilt * z) + z * z)
    return np.asarray(r * (1.0 - 1.0 / np.maximum(level, 1e-3)), dtype=np.float32)


def _ramp(v: npt.NDArray[Any]) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-v, -30, 30))), dtype=np.float32)


def tz_level(g: GlandShape, x: Array, y: Array, z: Array) -> Array:
    """Level of the pair of transition-zone lobes before clipping to the gland."""
    yc = y - g.tilt * z
    side = np.where(x > 0, 1.0 + g.tz_asymmetry, 1.0 - g.tz_asymmetry)
    dx = np.abs(x) - g.tz_lx
    dx = np.where(dx < 0, dx * 0.7, dx)
    rx, ry, rz = g.tz_radii
    q = (dx / (rx * side)) ** 2 + ((yc - g.tz_y) / ry) ** 2 + ((z - g.tz_z) / rz) ** 2
    return np.asarray(np.sqrt(q) / g.tz_scale, dtype=np.float32)


def median_lobe(g: GlandShape, x: Array, y: Array, z: Array) -> Mask:
    """Mark the part of the transition zone that protrudes into the bladder."""
    if g.median_lobe_mm <= 0:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), dtype=bool)
    r = g.median_lobe_radius
    cz = 0.75 * g.az
    cy = g.tilt * g.az - 0.15 * g.ay
    height = 0.25 * g.az + g.median_lobe_mm
    q = (x / r) ** 2 + ((y - cy) / (0.9 * r)) ** 2 + ((z - cz) / height) ** 2
    return np.asarray((q < 1) & (z > 0.6 * g.az))


def urethra_y(g: GlandShape, z: Array) -> Array:
    """Course of the urethra: anterior at the bladder neck, bent at the verumontanum."""
    return np.asarray(
        g.tilt * z + 0.05 * g.ay - 0.35 * np.maximum(z, 0.0) + 0.06 * np.minimum(z, 0.0),
        dtype=np.float32,
    )


def zone_masks(g: GlandShape, level: Array, x: Array, y: Array, z: Array) -> dict[str, Mask]:
    """Masks ``gland, tz, afms, cz, urethra`` (``tz`` without the others) on the given points."""
    yc = y - g.tilt * z
    inside = level < 1
    lateral = _ramp((yc - g.horn_y) / 2.5)
    shifted = gland_level(
        g, x + np.sign(x) * g.horn_mm * lateral, y + g.pz_min_mm * lateral, z - 1.5 * lateral
    )
    lobe = median_lobe(g, x, y, z)
    afms = inside & (np.abs(x) < g.afms_half_width * (1.0 - 0.35 * z / g.az))
    afms &= yc < -0.98 * g.ay * (1 + g.taper * z / g.az) + g.afms_depth * (
        1.0 - 0.5 * np.square(x / g.afms_half_width)
    )
    cx = np.abs(x) - g.cz_x
    cz_r = 0.16 * g.ax * g.cz_scale + 1.5
    q = (cx / (1.3 * cz_r)) ** 2 + ((yc - 0.38 * g.ay) / cz_r) ** 2
    q = q + ((z - 0.8 * g.az) / (0.55 * g.az)) ** 2
    cz = inside & (q < 1) & (level < 0.97)
    ur = np.square(x) + np.square(y - urethra_y(g, z)) < g.urethra_radius**2
    tz = (tz_level(g, x, y, z) < 1) & (level < 0.955) & (shifted < 1)
    gland = inside | lobe
    ur &= gland
    afms &= ~ur
    cz &= ~ur & ~tz
    tz = (tz | lobe) & gland & ~ur & ~afms & ~cz
    return {"gland": gland, "tz": tz, "afms": afms, "cz": cz, "urethra": ur}
