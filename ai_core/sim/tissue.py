"""Tissue properties as data, and the two draws of them: physics and broad random contrast.

T1, T2 (ms), ADC (1e-3 mm2/s), Ktrans (1/min) at 3 T from the published studies named in the
simulator's documentation. Fat and muscle carry *effective* T2 of turbo spin echo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.sim.params import Tissue
from ai_core.sim.sites import Site

Array = npt.NDArray[np.float32]
COUNT = len(Tissue)


@dataclass(frozen=True)
class TissueRow:
    """Mean and between-subject spread of a tissue; texture is the voxel CV inside it."""

    t1: float
    t1_sd: float
    t2: float
    t2_sd: float
    adc: float
    adc_sd: float
    pd: float
    ktrans: float
    ktrans_sd: float
    ve: float
    vp: float
    kurtosis: float
    t2_texture: float
    adc_texture: float
    dwi_factor: float = 1.0


_R = TissueRow
_MUSCLE = _R(1250, 120, 46, 5, 1.35, 0.15, 0.85, 0.08, 0.03, 0.12, 0.02, 0.6, 0.18, 0.15, 0.6)
_FAT = _R(382, 13, 230, 25, 0.05, 0.03, 1.0, 0.02, 0.01, 0.1, 0.01, 0.0, 0.09, 0.2, 0.08)
_BONE = _R(800, 100, 12, 3, 0.2, 0.1, 0.06, 0.02, 0.01, 0.1, 0.0, 0.0, 0.2, 0.2)
_MARROW = _R(586, 73, 80, 10, 0.3, 0.12, 0.8, 0.03, 0.01, 0.1, 0.02, 0.3, 0.22, 0.2, 0.15)
_VEIN = _R(1850, 150, 150, 30, 1.5, 0.2, 0.9, 0.4, 0.1, 0.4, 0.4, 0.4, 0.25, 0.2, 0.4)
_WALL = _R(1300, 120, 54, 7, 1.3, 0.15, 0.85, 0.25, 0.08, 0.3, 0.05, 0.6, 0.2, 0.18)

TABLE: dict[Tissue, TissueRow] = {
    Tissue.AIR: _R(1000, 0, 5, 0, 0.0, 0, 0.0, 0, 0, 0.1, 0, 0, 0.0, 0.0),
    Tissue.FAT: _FAT,
    Tissue.PELVIC_FAT: _R(
        450, 40, 130, 20, 0.15, 0.08, 0.95, 0.03, 0.01, 0.1, 0.02, 0.0, 0.34, 0.3, 0.14
    ),
    Tissue.GLUTEUS: _MUSCLE,
    Tissue.OBTURATOR_INT: _MUSCLE,
    Tissue.OBTURATOR_EXT: _MUSCLE,
    Tissue.LEVATOR: _MUSCLE,
    Tissue.CORTICAL: _BONE,
    Tissue.MARROW: _MARROW,
    Tissue.FEMORAL_HEAD: _MARROW,
    Tissue.SYMPHYSIS: _R(
        1100, 100, 42, 6, 1.0, 0.2, 0.7, 0.05, 0.02, 0.2, 0.01, 0.4, 0.2, 0.2, 0.6
    ),
    Tissue.COCCYX: _MARROW,
    Tissue.BLADDER_URINE: _R(
        3500, 500, 1200, 300, 2.9, 0.15, 1.1, 0.0, 0.0, 0.1, 0.0, 0.0, 0.04, 0.05
    ),
    Tissue.BLADDER_WALL: _WALL,
    Tissue.RECTAL_WALL: _WALL,
    Tissue.RECTAL_MUCOSA: _R(
        1500, 200, 84, 16, 1.5, 0.2, 0.95, 0.35, 0.1, 0.35, 0.08, 0.5, 0.25, 0.2
    ),
    Tissue.STOOL: _R(900, 300, 75, 35, 1.0, 0.5, 0.6, 0.0, 0.0, 0.1, 0.0, 0.4, 0.4, 0.4),
    Tissue.GAS: _R(1000, 0, 5, 0, 0.0, 0, 0.01, 0, 0, 0.1, 0, 0, 0.2, 0.0),
    Tissue.ANAL_CANAL: _R(
        1250, 120, 58, 8, 1.3, 0.15, 0.85, 0.2, 0.06, 0.25, 0.04, 0.6, 0.22, 0.18
    ),
    Tissue.SV_LUMEN: _R(2400, 250, 250, 70, 1.9, 0.2, 1.05, 0.1, 0.05, 0.25, 0.03, 0.2, 0.25, 0.2),
    Tissue.SV_WALL: _R(1500, 150, 78, 10, 1.3, 0.15, 0.9, 0.25, 0.08, 0.35, 0.05, 0.6, 0.2, 0.18),
    Tissue.PLEXUS: _R(1800, 150, 128, 28, 1.5, 0.2, 0.9, 0.35, 0.1, 0.4, 0.2, 0.4, 0.42, 0.25),
    Tissue.NVB: _R(1700, 150, 95, 22, 1.45, 0.2, 0.88, 0.3, 0.1, 0.35, 0.12, 0.5, 0.4, 0.25),
    Tissue.VESSEL_VOID: _R(
        1850, 150, 40, 12, 1.5, 0.2, 0.5, 0.4, 0.1, 0.4, 0.5, 0.0, 0.25, 0.2, 0.2
    ),
    Tissue.VESSEL_BRIGHT: _VEIN,
    Tissue.FASCIA: _R(1100, 120, 58, 10, 1.0, 0.2, 0.8, 0.1, 0.04, 0.2, 0.03, 0.6, 0.28, 0.2, 0.7),
    Tissue.PZ: _R(2000, 350, 158, 32, 1.84, 0.17, 1.0, 0.15, 0.06, 0.30, 0.03, 0.65, 0.36, 0.25),
    Tissue.TZ: _R(1650, 200, 88, 13, 1.36, 0.13, 0.95, 0.25, 0.09, 0.40, 0.04, 0.75, 0.33, 0.15),
    Tissue.BPH_GLANDULAR: _R(
        1900, 250, 132, 28, 1.58, 0.14, 1.0, 0.30, 0.1, 0.45, 0.04, 0.6, 0.32, 0.15
    ),
    Tissue.BPH_STROMAL: _R(
        1500, 150, 70, 9, 1.15, 0.13, 0.90, 0.45, 0.14, 0.45, 0.06, 0.8, 0.22, 0.13
    ),
    Tissue.NODULE_RIM: _R(1350, 120, 56, 8, 1.1, 0.12, 0.84, 0.2, 0.08, 0.3, 0.04, 0.8, 0.2, 0.13),
    Tissue.AFMS: _R(1300, 100, 52, 8, 1.05, 0.12, 0.80, 0.08, 0.03, 0.20, 0.02, 0.7, 0.22, 0.13),
    Tissue.CZ: _R(1600, 150, 76, 10, 1.13, 0.12, 0.92, 0.25, 0.08, 0.35, 0.04, 0.8, 0.22, 0.13),
    Tissue.URETHRA: _R(1700, 150, 150, 30, 1.7, 0.2, 1.0, 0.2, 0.06, 0.3, 0.03, 0.4, 0.3, 0.2),
    Tissue.CAPSULE: _R(1300, 120, 62, 10, 1.2, 0.13, 0.85, 0.12, 0.05, 0.25, 0.03, 0.7, 0.2, 0.13),
    Tissue.PENILE_BULB: _R(1800, 150, 165, 30, 1.6, 0.2, 1.0, 0.3, 0.1, 0.4, 0.15, 0.4, 0.2, 0.18),
    Tissue.SPHINCTER: _R(
        1300, 120, 60, 8, 1.25, 0.15, 0.85, 0.15, 0.05, 0.25, 0.03, 0.6, 0.2, 0.15
    ),
    Tissue.CYST: _R(3000, 400, 600, 200, 2.5, 0.2, 1.05, 0.0, 0.0, 0.1, 0.0, 0.0, 0.08, 0.08),
}
_GLAND = np.array(
    [t in range(Tissue.PZ, Tissue.PENILE_BULB) or t == Tissue.CYST for t in range(COUNT)]
)


@dataclass(frozen=True)
class TissueDraw:
    """Per-label properties of one rendering, arrays of length ``COUNT``; PZ T2W signal is 1."""

    t2w: Array
    s0: Array
    adc: Array
    kurtosis: Array
    t1: Array
    ktrans: Array
    kep: Array
    vp: Array
    t2_texture: Array
    adc_texture: Array
    lesion_t2_free: bool


def _column(name: str) -> Array:
    return np.array([getattr(TABLE[Tissue(i)], name) for i in range(COUNT)], dtype=np.float32)


_COLUMNS = {n: _column(n) for n in TissueRow.__dataclass_fields__}


def _spread(rng: np.random.Generator, name: str, widen: float = 1.0) -> Array:
    noise = np.clip(rng.standard_normal(COUNT, dtype=np.float32), -2, 2)
    value = _COLUMNS[name] + np.float32(widen) * _COLUMNS[f"{name}_sd"] * noise
    return np.asarray(np.maximum(value, 0.25 * _COLUMNS[name]), dtype=np.float32)


def _spin_echo(pd: Array, t1: Array, t2: Array, te: float, tr: float) -> Array:
    return np.asarray(pd * np.exp(-te / t2) * (1 - np.exp(-tr / t1)), dtype=np.float32)


def draw_tissue(rng: np.random.Generator, site: Site, contrast: str = "mix") -> TissueDraw:
    """Properties for one rendering. ``contrast``: "physics", "random" or "mix" (half and half).

    The random family keeps ADC quantitative (wider spread, common scale +-10 %) and keeps the
    lesions' ordering, which lives in the ratios of the foci. Raises ValueError.
    """
    if contrast not in ("mix", "physics", "random"):
        raise ValueError(f"contrast {contrast!r}: use mix, physics or random")
    random = contrast == "random" or (contrast == "mix" and rng.random() < 0.5)
    weak = site.field_strength_t < 2.5
    t1 = _spread(rng, "t1") / (1.21 if weak else 1.0)
    t2 = _spread(rng, "t2") * (1.10 if weak else 1.0)
    t2w = _spin_echo(_COLUMNS["pd"], t1, t2, site.t2w_te_ms, site.t2w_tr_ms)
    s0 = _spin_echo(_COLUMNS["pd"], t1, t2, site.dwi_te_ms, 4000.0) * _COLUMNS["dwi_factor"]
    # Fat suppression works more or less well from site to site, mostly well.
    leak = float(np.clip(np.exp(rng.normal(np.log(0.4), 0.7)), 0.05, 2.0))
    s0[[Tissue.FAT, Tissue.PELVIC_FAT]] *= np.float32(leak)
    adc = _spread(rng, "adc", 1.5 if random else 1.0) * np.float32(site.adc_bias)
    ktrans = _spread(rng, "ktrans")
    t2w = t2w / t2w[Tissue.PZ]
    s0 = s0 / s0[Tissue.PZ]
    if random:
        t2w, s0, adc, ktrans = _randomise(rng, s0, adc, ktrans)
    else:
        t2w = t2w ** np.float32(rng.uniform(0.80, 1.35))
    return TissueDraw(
        t2w=t2w,
        s0=s0,
        adc=adc,
        kurtosis=_COLUMNS["kurtosis"] * np.float32(rng.uniform(0.8, 1.2)),
        t1=t1,
        ktrans=ktrans,
        kep=0.8 * ktrans / _COLUMNS["ve"],
        vp=_COLUMNS["vp"] * np.float32(rng.uniform(0.6, 1.4)),
        t2_texture=_COLUMNS["t2_texture"] * rng.uniform(0.7, 1.25, COUNT).astype(np.float32),
        adc_texture=_COLUMNS["adc_texture"] * rng.uniform(0.8, 1.25, COUNT).astype(np.float32),
        lesion_t2_free=bool(random and rng.random() < 0.10),
    )


def _randomise(
    rng: np.random.Generator, s0: Array, adc: Array, ktrans: Array
) -> tuple[Array, Array, Array, Array]:
    t2w = rng.uniform(0.05, 2.0, COUNT).astype(np.float32)
    t2w[Tissue.AIR] = t2w[Tissue.GAS] = np.float32(rng.uniform(0.0, 0.15))
    t2w = t2w / max(float(t2w[Tissue.PZ]), 0.3)
    s0 = s0 * np.exp(rng.normal(0, 0.35, COUNT)).astype(np.float32)
    s0[~_GLAND] *= np.exp(rng.normal(0, 0.5, int((~_GLAND).sum()))).astype(np.float32)
    scale = np.float32(rng.uniform(0.9, 1.1))
    other = rng.uniform(0.05, 2.4, COUNT).astype(np.float32)
    mixed = np.where(_GLAND | (rng.random(COUNT) < 0.5), adc, other) * scale
    ktrans = ktrans * np.exp(rng.normal(0, 0.35, COUNT)).astype(np.float32)
    return t2w, s0, np.asarray(mixed, dtype=np.float32), ktrans
