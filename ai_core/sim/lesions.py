"""Cancers and benign mimics: numbers, sizes, grades and contrasts at published rates.

Rates are counts of the public PI-CAI set (1,500 examinations): grade split of significant
cancers, lesions per positive case, PI-RADS by grade, lesion volume and position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ai_core.sim.params import Focus, FocusKind, GlandShape, Vec

Points = npt.NDArray[np.float32]
Zones = tuple[Points, Points]
_K = TypeVar("_K")

SIGNIFICANT_SPLIT: Mapping[int, float] = {2: 0.56, 3: 0.23, 4: 0.09, 5: 0.12}
LESIONS_PER_POSITIVE: Mapping[int, float] = {1: 0.91, 2: 0.08, 3: 0.01}
# PI-RADS of significant cancers by grade group, counts; 2 stands for MR-invisible.
PIRADS_OF_GRADE: Mapping[int, Mapping[int, int]] = {
    2: {2: 13, 3: 16, 4: 101, 5: 101},
    3: {2: 7, 3: 3, 4: 32, 5: 60},
    4: {2: 2, 4: 7, 5: 23},
    5: {3: 2, 4: 7, 5: 41},
}
_CANCERS = 404.0
# Per significant cancer: benign foci (no cancer) and grade group 1 of each PI-RADS.
# At PI-RADS 4: (149 + 93) benign for 147 cancers = 1.6.
BENIGN_PER_CANCER: Mapping[int, float] = {3: 139 / _CANCERS, 4: 149 / _CANCERS, 5: 60 / _CANCERS}
GRADE1_PER_CANCER: Mapping[int, float] = {3: 48 / _CANCERS, 4: 93 / _CANCERS, 5: 66 / _CANCERS}

_PZ_KINDS = {
    FocusKind.PROSTATITIS_FOCAL: 0.42,
    FocusKind.PROSTATITIS_WEDGE: 0.18,
    FocusKind.EXOPHYTIC_NODULE: 0.12,
    FocusKind.ATROPHY: 0.08,
    FocusKind.HAEMORRHAGE: 0.09,
    FocusKind.GRANULOMATOUS: 0.05,
    FocusKind.PSEUDOLESION: 0.06,
}
_TZ_KINDS = {
    FocusKind.STROMAL_NODULE: 0.75,
    FocusKind.PROSTATITIS_FOCAL: 0.15,
    FocusKind.HAEMORRHAGE: 0.10,
}


@dataclass(frozen=True)
class _Look:
    """Contrast habits of a kind: T2 ratio, Ktrans and kep ratios, outline."""

    t2: float
    ktrans: float
    kep: float
    roughness: float
    edge_mm: float
    texture_keep: float
    shape: str = "ellipsoid"


_LOOKS: Mapping[FocusKind, _Look] = {
    FocusKind.CANCER: _Look(0.60, 2.2, 1.9, 0.16, 1.2, 0.4),
    FocusKind.PROSTATITIS_FOCAL: _Look(0.74, 1.8, 1.5, 0.22, 2.2, 0.6),
    FocusKind.PROSTATITIS_WEDGE: _Look(0.70, 1.5, 1.4, 0.10, 1.4, 0.6, "wedge"),
    FocusKind.PROSTATITIS_DIFFUSE: _Look(0.76, 1.4, 1.3, 0.25, 3.0, 0.9, "diffuse"),
    FocusKind.ATROPHY: _Look(0.66, 1.0, 1.0, 0.10, 1.4, 0.6, "wedge"),
    FocusKind.STROMAL_NODULE: _Look(0.68, 1.7, 1.6, 0.05, 0.7, 0.4),
    FocusKind.EXOPHYTIC_NODULE: _Look(0.60, 1.9, 1.7, 0.05, 0.7, 0.5),
    FocusKind.GRANULOMATOUS: _Look(0.58, 2.4, 2.0, 0.16, 1.4, 0.4),
    FocusKind.HAEMORRHAGE: _Look(0.70, 1.0, 1.0, 0.25, 2.0, 0.6),
    FocusKind.PSEUDOLESION: _Look(0.62, 1.1, 1.1, 0.10, 1.5, 0.6),
}
_GRADE_ADC: Mapping[int, float] = {1: 0.70, 2: 0.62, 3: 0.57, 4: 0.51, 5: 0.49}


def _choose(rng: np.random.Generator, table: Mapping[_K, float]) -> _K:
    keys = list(table)
    weights = np.array([table[k] for k in keys], dtype=float)
    return keys[int(rng.choice(len(keys), p=weights / weights.sum()))]


def draw_foci(
    rng: np.random.Generator,
    gland: GlandShape,
    points: Zones,
    *,
    positive: bool,
    positive_fraction: float,
) -> tuple[Focus, ...]:
    """All foci of one patient; ``points``: of PZ and TZ, ``(n, 3)`` mm."""
    foci: list[Focus] = []
    if positive:
        for _ in range(_choose(rng, LESIONS_PER_POSITIVE)):
            grade = _choose(rng, SIGNIFICANT_SPLIT)
            score = _choose(rng, PIRADS_OF_GRADE[grade])
            foci.append(_draw(rng, gland, points, FocusKind.CANCER, (grade, score)))
    per_case = 1.1 * positive_fraction
    for score, rate in GRADE1_PER_CANCER.items():
        for _ in range(int(rng.poisson(rate * per_case))):
            foci.append(_draw(rng, gland, points, FocusKind.CANCER, (1, score)))
    for score, rate in BENIGN_PER_CANCER.items():
        for _ in range(int(rng.poisson(rate * per_case))):
            foci.append(_draw(rng, gland, points, None, (0, score)))
    # Unscored benign changes that every reader sees: they are not part of the rates above.
    for _ in range(int(rng.poisson(0.8))):
        foci.append(_draw(rng, gland, points, None, (0, 2)))
    if rng.random() < 0.18:
        foci.append(_draw(rng, gland, points, FocusKind.PROSTATITIS_DIFFUSE, (0, 2)))
    return _apart(foci)


def _apart(foci: list[Focus]) -> tuple[Focus, ...]:
    """Drop mimics whose centre lies inside another focus: one place has one truth."""
    kept: list[Focus] = []
    for focus in foci:
        clash = any(
            float(np.linalg.norm(np.subtract(focus.center, k.center)))
            < 0.8 * (np.median(focus.radii) + np.median(k.radii))
            for k in kept
            if FocusKind.PROSTATITIS_DIFFUSE not in (k.kind, focus.kind)
        )
        if not clash:
            kept.append(focus)
    return tuple(kept)


def _zone_of(rng: np.random.Generator, kind: FocusKind | None) -> int:
    if kind is FocusKind.CANCER:
        return 1 if rng.random() < 0.66 else 2
    if kind is FocusKind.PROSTATITIS_DIFFUSE:
        return 1
    return 1 if rng.random() < 0.55 else 2


def _center(
    rng: np.random.Generator, g: GlandShape, points: Points, zone: int, kind: FocusKind
) -> Vec:
    """Choose a position in the zone at the published levels (apex .25, mid .58, base .17)."""
    level = points[:, 2] / g.az
    third = np.where(level < -0.33, 0.25, np.where(level < 0.33, 0.58, 0.17))
    yc = (points[:, 1] - g.tilt * points[:, 2]) / g.ay
    lean = np.exp(1.0 * yc) if zone == 1 else np.exp(-0.8 * yc)
    weight = third * lean * (np.abs(level) < 0.88)
    if kind is FocusKind.PSEUDOLESION:
        weight = weight * (np.abs(points[:, 0]) < 5) * (yc > 0.2) + 1e-9
    weight = weight + 1e-12
    chosen = points[int(rng.choice(len(points), p=weight / weight.sum()))]
    jitter = rng.uniform(-1.2, 1.2, 3)
    return (
        float(chosen[0] + jitter[0]),
        float(chosen[1] + jitter[1]),
        float(chosen[2] + jitter[2]),
    )


def _axes(rng: np.random.Generator, g: GlandShape, center: Vec, zone: int) -> tuple[Vec, Vec, Vec]:
    """Rows: normal to the capsule, tangent in plane, the third; random in the TZ."""
    x, y, z = center
    normal = np.array([x / g.ax**2, y / g.ay**2, z / g.az**2]) + 1e-6
    if zone == 2:
        normal = rng.normal(size=3)
    else:
        normal = normal / np.linalg.norm(normal) + rng.normal(0, 0.2, 3)
    normal /= np.linalg.norm(normal)
    tangent = np.cross([0.0, 0.0, 1.0], normal)
    tangent /= np.linalg.norm(tangent) + 1e-9
    third = np.cross(normal, tangent)
    rows = [tuple(float(v) for v in row) for row in (normal, tangent, third)]
    return (rows[0], rows[1], rows[2])  # type: ignore[return-value]


def _radii(rng: np.random.Generator, kind: FocusKind, score: int) -> tuple[Vec, float]:
    """Half-axes (mm) and volume (mL) in keeping with the score's size rule (15 mm)."""
    if kind is FocusKind.PROSTATITIS_DIFFUSE:
        radii = (float(rng.uniform(6, 12)), float(rng.uniform(11, 20)), float(rng.uniform(9, 16)))
        return radii, 4.19e-3 * float(np.prod(radii))
    radii, volume = (4.0, 5.0, 6.0), 0.5
    for _ in range(60):
        # A quarter more than the published median: the zone's border cuts a part off.
        volume = float(np.clip(np.exp(rng.normal(0.25, 1.15)), 0.1, 20.0))
        ratios = np.array([1.0, rng.uniform(1.1, 1.9), rng.uniform(1.0, 1.7)])
        if kind in (FocusKind.STROMAL_NODULE, FocusKind.EXOPHYTIC_NODULE):
            ratios = np.array([1.0, rng.uniform(1.0, 1.2), rng.uniform(1.0, 1.2)])
        base = (volume * 1000 / 4.19 / float(np.prod(ratios))) ** (1 / 3)
        radii = (float(base), float(base * ratios[1]), float(base * ratios[2]))
        large = 2 * max(radii) >= 15.0
        if (score == 5) == large or (score <= 3 and rng.random() < 0.3):
            break
    return radii, volume


def _adc_ratio(rng: np.random.Generator, kind: FocusKind, isup: int, score: int) -> float:
    if score == 2:
        return float(np.clip(rng.normal(0.94, 0.04), 0.86, 1.05))
    if score == 3:
        return float(np.clip(rng.normal(0.845, 0.03), 0.785, 0.90))
    if isup > 0:
        return float(np.clip(rng.normal(_GRADE_ADC[isup], 0.075), 0.36, 0.78))
    mean = 0.52 if kind is FocusKind.GRANULOMATOUS else 0.69
    return float(np.clip(rng.normal(mean, 0.06), 0.45, 0.78))


def _draw(
    rng: np.random.Generator,
    g: GlandShape,
    points: Zones,
    kind: FocusKind | None,
    grade_score: tuple[int, int],
) -> Focus:
    isup, score = grade_score
    zone = _zone_of(rng, kind)
    kind = kind or _choose(rng, _PZ_KINDS if zone == 1 else _TZ_KINDS)
    look = _LOOKS[kind]
    center = _center(rng, g, points[zone - 1], zone, kind)
    radii, volume = _radii(rng, kind, score)
    adc = _adc_ratio(rng, kind, isup, score)
    # T2 goes with the ADC in part; the TZ is darker, so less contrast is left there.
    t2 = look.t2 + 0.45 * (adc - 0.68) + rng.normal(0, 0.07) + (0.08 if zone == 2 else 0.0)
    t2 = float(np.clip(t2, 0.4, 0.93 if score > 2 else 1.0))
    s0 = float(np.clip(t2**0.6 * np.exp(rng.normal(0, 0.05)), 0.5, 1.1))
    damp = 0.5 if zone == 2 else 1.0
    focus = Focus(
        kind=kind,
        zone=zone,
        center=center,
        radii=radii,
        axes=_axes(rng, g, center, zone),
        shape=look.shape,
        roughness=look.roughness * float(rng.uniform(0.6, 1.4)),
        edge_mm=look.edge_mm * float(rng.uniform(0.6, 1.5)),
        epe_mm=float(rng.uniform(1, 4)) if isup >= 2 and zone == 1 and rng.random() < 0.2 else 0.0,
        volume_ml=volume,
        isup=isup,
        pirads=score,
        adc_ratio=adc,
        t2_ratio=t2,
        s0_ratio=s0,
        ktrans_ratio=1 + damp * (look.ktrans * float(np.exp(rng.normal(0, 0.3))) - 1),
        kep_ratio=1 + damp * (look.kep * float(np.exp(rng.normal(0, 0.25))) - 1),
        texture_keep=float(np.clip(look.texture_keep * rng.uniform(0.5, 1.6), 0.15, 1.0)),
    )
    return replace(focus, pirads=pirads_score(focus))


def pirads_score(focus: Focus) -> int:
    """PI-RADS-like score 2-5: size, ADC, high-b contrast, T2; DWI leads in PZ, T2 in TZ.

    Rules in the manner of PI-RADS v2.1, on the drawn contrast instead of a reader's eye.
    """
    high_b = focus.s0_ratio * float(np.exp(1.4 * 1.45 * (1 - focus.adc_ratio)))
    large = 2 * max(focus.radii) >= 15.0
    marked = focus.adc_ratio <= 0.785 and high_b >= 1.1
    if marked and (focus.zone == 1 or focus.t2_ratio <= 0.95):
        return 5 if large else 4
    return 3 if focus.adc_ratio <= 0.90 else 2
