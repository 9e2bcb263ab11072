"""Drawing the hidden parameters of one simulated patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ai_core.sim.gland import gland_level, zone_masks
from ai_core.sim.lesions import draw_foci
from ai_core.sim.params import AnatomyParams, GlandShape, Nodule, PelvisShape, Tissue, Vec
from ai_core.sim.raster import LabelMaps, rasterise

__all__ = ["AnatomyParams", "LabelMaps", "draw_anatomy", "rasterise"]
Points = npt.NDArray[np.float32]
_STEP = 2.2


def draw_anatomy(
    rng: np.random.Generator,
    *,
    lesion: bool | None = None,
    positive_fraction: float = 0.28,
    volume_ml: float | None = None,
) -> AnatomyParams:
    """One patient. ``lesion`` forces (or forbids) significant cancer; volume 15-150 mL."""
    volume = volume_ml if volume_ml is not None else draw_volume_ml(rng)
    gland = _solve(_draw_gland(rng, volume))
    pz, tz = zone_points(gland)
    positive = bool(rng.random() < positive_fraction) if lesion is None else lesion
    foci = draw_foci(rng, gland, (pz, tz), positive=positive, positive_fraction=positive_fraction)
    pelvis = _draw_pelvis(rng, gland)
    return AnatomyParams(
        seed=int(rng.integers(2**31)),
        gland=gland,
        pelvis=pelvis,
        nodules=_draw_nodules(rng, gland, tz),
        foci=foci,
        vessels=_draw_vessels(rng, gland, pelvis),
        warp_coarse_mm=float(rng.uniform(0.5, 2.4)),
        warp_fine_mm=float(rng.uniform(0.2, 0.8)),
        age_years=float(np.clip(rng.normal(65.6, 7.2), 45, 85)),
        psa_ng_ml=float(np.exp(rng.normal(2.426 if positive else 2.063, 0.73))),
    )


def draw_volume_ml(rng: np.random.Generator) -> float:
    """Flat in part over the volume and in part over its logarithm, 15-150 mL."""
    if rng.random() < 0.35:
        return float(rng.uniform(15, 150))
    return float(np.exp(rng.uniform(np.log(15), np.log(150))))


def _draw_gland(rng: np.random.Generator, volume: float) -> GlandShape:
    """Gland before solving its scale and the size of the TZ."""
    pz_ml = float(np.exp(1.635 + 0.318 * np.log(volume) + rng.normal(0, 0.28)))
    size = (volume * 1000 / 4.19 / (0.79 * 0.80)) ** (1 / 3)
    ax = size * float(np.exp(rng.normal(0, 0.05)))
    ay = size * 0.79 * float(np.exp(rng.normal(0, 0.08)))
    az = size * 0.80 * float(np.exp(rng.normal(0, 0.09)))
    lobe = rng.random() < (0.10 if volume < 45 else 0.33)
    return GlandShape(
        volume_ml=volume,
        ax=ax,
        ay=ay,
        az=az,
        power=float(rng.uniform(2.0, 2.9)),
        taper=float(rng.uniform(0.02, 0.22)),
        wedge=float(rng.uniform(0.0, 0.16)),
        tilt=float(rng.uniform(-0.05, 0.30)),
        indent=float(rng.uniform(0.02, 0.20)),
        pz_fraction=float(np.clip(pz_ml / volume, 0.12, 0.70)),
        tz_lx=0.30 * ax,
        tz_radii=(0.40 * ax, 0.58 * ay, 0.66 * az),
        tz_y=float(rng.uniform(-0.32, -0.12)) * ay,
        tz_z=float(rng.uniform(0.08, 0.24)) * az,
        tz_scale=1.0,
        tz_asymmetry=float(np.clip(rng.normal(0, 0.07), -0.2, 0.2)),
        pz_min_mm=float(rng.uniform(3.0, 8.0)),
        horn_mm=float(rng.uniform(2.0, 8.0)),
        horn_y=float(rng.uniform(-0.55, 0.0)) * ay,
        afms_half_width=float(rng.uniform(0.22, 0.42)) * ax,
        afms_depth=float(rng.uniform(3.0, 9.0)),
        cz_scale=float(rng.uniform(0.6, 1.3)) * (0.8 if volume > 70 else 1.0),
        cz_x=float(rng.uniform(3.0, 6.5)),
        median_lobe_mm=float(rng.uniform(5, 22)) if lobe else 0.0,
        median_lobe_radius=float(rng.uniform(0.28, 0.5)) * ax,
        urethra_radius=float(rng.uniform(1.6, 3.4)),
        capsule_visible=bool(rng.random() < 0.7),
        surgical_capsule=bool(rng.random() < 0.75),
    )


def _coarse(g: GlandShape, step: float) -> tuple[Points, Points, Points]:
    reach = (1.25 * g.ax, 1.3 * g.ay + 0.3 * g.az, g.az + max(g.median_lobe_mm, 0) + step)
    axes = [np.arange(-r, r + step, step, dtype=np.float32) for r in reach]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return x, y, z


def _scaled(g: GlandShape, k: float) -> GlandShape:
    radii = tuple(r * k for r in g.tz_radii)
    return replace(
        g,
        ax=g.ax * k,
        ay=g.ay * k,
        az=g.az * k,
        tz_lx=g.tz_lx * k,
        tz_y=g.tz_y * k,
        tz_z=g.tz_z * k,
        horn_y=g.horn_y * k,
        afms_half_width=g.afms_half_width * k,
        tz_radii=(radii[0], radii[1], radii[2]),
    )


def _solve(g: GlandShape) -> GlandShape:
    """Scale the gland to its volume and the TZ lobes to their share of it."""
    for _ in range(2):
        x, y, z = _coarse(g, _STEP)
        gland = zone_masks(g, gland_level(g, x, y, z), x, y, z)["gland"]
        g = _scaled(g, float((g.volume_ml * 1000 / (gland.sum() * _STEP**3)) ** (1 / 3)))
    for _ in range(4):
        g, reached = _solve_tz(g)
        if reached:
            break
        # A thick PZ leaves too little room: make it thinner.
        g = replace(g, pz_min_mm=0.65 * g.pz_min_mm, horn_mm=0.65 * g.horn_mm)
    return g


def _solve_tz(g: GlandShape) -> tuple[GlandShape, bool]:
    x, y, z = _coarse(g, _STEP)
    level = gland_level(g, x, y, z)
    keep = level < 1.35
    x, y, z, level = x[keep], y[keep], z[keep], level[keep]
    low, high = 0.35, 2.4
    for _ in range(9):
        g = replace(g, tz_scale=(low + high) / 2)
        masks = zone_masks(g, level, x, y, z)
        share = sum(int(masks[n].sum()) for n in ("tz", "afms", "cz", "urethra"))
        if share / max(int(masks["gland"].sum()), 1) < 1 - g.pz_fraction:
            low = g.tz_scale
        else:
            high = g.tz_scale
    return g, g.tz_scale < 2.3


def zone_points(g: GlandShape) -> tuple[Points, Points]:
    """Points ``(n, 3)`` of PZ and of TZ proper, for placing foci and nodules."""
    x, y, z = _coarse(g, _STEP)
    masks = zone_masks(g, gland_level(g, x, y, z), x, y, z)
    rest = masks["tz"] | masks["cz"] | masks["afms"] | masks["urethra"]
    out = []
    for mask in (masks["gland"] & ~rest, masks["tz"]):
        out.append(np.stack((x[mask], y[mask], z[mask]), axis=1))
    return out[0], out[1] if len(out[1]) else out[0]


def _draw_nodules(rng: np.random.Generator, g: GlandShape, tz: Points) -> tuple[Nodule, ...]:
    tz_ml = len(tz) * _STEP**3 / 1000
    count = int(np.clip(rng.poisson(2.0 + tz_ml / 3.5), 0, 30))
    nodules = []
    for _ in range(count):
        c = tz[int(rng.integers(len(tz)))]
        r = float(np.clip(np.exp(rng.normal(np.log(4.8), 0.42)), 2.2, 0.32 * g.ax + 2))
        ratio = np.exp(rng.normal(0, 0.15, 3))
        kind = rng.choice(
            [Tissue.BPH_GLANDULAR, Tissue.BPH_STROMAL, Tissue.TZ, Tissue.CYST],
            p=[0.45, 0.33, 0.19, 0.03],
        )
        r = min(r, 4.0) if kind == Tissue.CYST else r
        radii = (float(r * ratio[0]), float(r * ratio[1]), float(r * ratio[2]))
        center = (float(c[0]), float(c[1]), float(c[2]))
        nodules.append(Nodule(center, radii, int(kind), bool(rng.random() < 0.55)))
    return tuple(nodules)


def _draw_pelvis(rng: np.random.Generator, g: GlandShape) -> PelvisShape:
    u = rng.uniform
    filling = str(rng.choice(["gas", "stool", "empty", "mixed"], p=[0.38, 0.22, 0.28, 0.12]))
    wide = u(0.9, 1.5) if filling != "empty" else u(0.55, 0.85)
    levator_gap = float(u(0.5, 4.5))
    thickness = float(u(2.2, 4.5))
    full = float(u(0.25, 1.0))
    return PelvisShape(
        rectum_gap=float(u(-1.0, 2.0)),
        rectum_rx=float(u(14, 21)) * (0.75 + 0.25 * wide),
        rectum_ry=float(u(10, 14)) * wide,
        rectum_wall=float(u(2.6, 5.5)),
        rectum_filling=filling,
        rectum_x=float(rng.normal(0, 2.5)),
        rectum_slope_up=float(u(0.15, 0.8)),
        rectum_slope_down=float(u(-0.05, 0.35)),
        bladder_radii=(float(u(28, 46)), float(u(22, 36)), 12 + 32 * full),
        bladder_y=float(u(-0.95, -0.30)) * g.ay,
        bladder_floor=float(u(0.30, 0.80)),
        bladder_wall=float(u(2.5, 5.5)),
        levator_gap=levator_gap,
        levator_thickness=thickness,
        levator_flare=float(u(0.5, 1.2)),
        levator_power=float(u(1.35, 2.2)),
        levator_top=float(u(0.15, 0.60)),
        obturator_x=max(float(u(31, 37)), g.ax * 1.04 + levator_gap + thickness + float(u(-1, 8))),
        obturator_thickness=float(u(14, 24)),
        obturator_slant=float(u(0.35, 0.65)),
        retropubic_gap=float(u(3, 12)),
        pubis_z=float(u(-0.75, 0.05)) * g.az,
        apron_mm=float(u(1.5, 7.0)) if rng.random() < 0.8 else 0.5,
        plexus_mm=float(u(1.5, 5.0)),
        plexus_fill=float(u(-0.3, 1.2)),
        sv_width=float(u(18, 34)),
        sv_height=float(u(2, 14)),
        sv_radius=float(u(4.0, 8.5)),
        sv_lumen=float(u(-0.6, 1.4)),
        pelvic_scale=float(u(0.92, 1.12)),
        subcutaneous_y=float(u(66, 95)) + max(0.0, g.ay - 20),
        coccyx_z=float(u(-12, 22)),
    )


def _draw_vessels(
    rng: np.random.Generator, g: GlandShape, p: PelvisShape
) -> tuple[tuple[Vec, Vec, float, int], ...]:
    """Small vessels beside the gland, at the pelvic wall and in the mesorectum."""
    kinds = (Tissue.VESSEL_VOID, Tissue.VESSEL_BRIGHT, Tissue.VESSEL_BRIGHT)
    vessels = []
    for _ in range(int(rng.integers(10, 26))):
        side = 1.0 if rng.random() < 0.5 else -1.0
        where = rng.random()
        z = float(rng.uniform(-30, 45))
        if where < 0.45:
            start = (side * (p.obturator_x - rng.uniform(1, 7)), float(rng.uniform(-25, 35)), z)
        elif where < 0.7:
            start = (side * rng.uniform(0, g.ax), -g.ay - rng.uniform(3, 10), z)
        else:
            start = (side * rng.uniform(4, 30), g.ay + rng.uniform(26, 42), abs(z))
        step = rng.normal(0, 1, 3) * (5, 5, 14)
        end = tuple(float(a + b) for a, b in zip(start, step, strict=True))
        kind = kinds[int(rng.integers(3))]
        first = (float(start[0]), start[1], start[2])
        vessels.append((first, (end[0], end[1], end[2]), float(rng.uniform(0.8, 2.0)), int(kind)))
    return tuple(vessels)
