"""Sites: a scanner with its protocol and habits. Ranges from published surveys of protocols."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Site:
    """One institution's scanner, protocol, intensity habits, artefacts and lesion mix."""

    name: str = "alpha"
    vendor: str = "vendor-a"
    model: str = "3T-a"
    field_strength_t: float = 3.0
    t2w_te_ms: float = 102.0
    t2w_tr_ms: float = 5000.0
    t2w_spacing_mm: float = 0.5625
    t2w_matrix: int = 320
    slice_mm: float = 3.0
    t2w_slices: int = 22
    t2w_snr: float = 25.0
    t2w_blur_mm: float = 0.5
    dwi_te_ms: float = 70.0
    dwi_spacing_mm: float = 2.0
    dwi_matrix: int = 100
    b_values: tuple[float, ...] = (50.0, 400.0, 800.0)
    high_b: float = 1400.0
    high_b_computed: bool = True
    dwi_snr_b800: float = 14.0
    adc_zero_fill: bool = True
    adc_bias: float = 1.0
    distortion_mm: float = 1.9
    phase_encoding: str = "AP"
    gas_shift_mm: float = 3.0
    dce_spacing_mm: float = 1.5
    dce_matrix: int = 128
    dce_interval_s: float = 8.0
    dce_tr_ms: float = 3.85
    dce_flip_deg: float = 12.0
    dce_aif_scale: float = 0.5
    dce_snr: float = 25.0
    has_dce: bool = True
    coil_bias: float = 0.15
    endorectal: bool = False
    gain: float = 300.0
    gamma: float = 1.0
    sharpen: float = 0.0
    motion_mm: float = 1.0
    motion_deg: float = 1.5
    positive_fraction: float = 0.28


_B_SETS: tuple[tuple[float, ...], ...] = (
    (50, 400, 800),
    (0, 100, 400, 800),
    (50, 500, 1000),
    (0, 800),
    (100, 500, 1400),
    (50, 1000, 1500),
)
_IN_PLANE = ((0.5, 0.46), (0.3, 0.26), (0.34, 0.15), (0.5625, 0.13))
_SLICE = ((3.0, 0.67), (3.6, 0.28), (3.3, 0.03), (3.5, 0.02))

NAMED_SITES: dict[str, Site] = {
    "alpha": Site(),
    "beta": Site(
        name="beta",
        vendor="vendor-b",
        model="3T-b",
        t2w_te_ms=115,
        t2w_spacing_mm=0.5,
        t2w_matrix=384,
        b_values=(0, 100, 400, 800),
        high_b=1500,
        adc_zero_fill=False,
        adc_bias=0.97,
        dwi_te_ms=62,
        dwi_spacing_mm=1.7,
        dwi_matrix=128,
        gain=900,
        coil_bias=0.28,
    ),
    "gamma": Site(
        name="gamma",
        vendor="vendor-c",
        model="1.5T-c",
        field_strength_t=1.5,
        t2w_te_ms=92,
        t2w_snr=16,
        t2w_blur_mm=0.8,
        b_values=(50, 1000, 1500),
        high_b=1500,
        high_b_computed=False,
        dwi_snr_b800=9,
        dwi_te_ms=88,
        dwi_spacing_mm=2.4,
        dwi_matrix=90,
        distortion_mm=1.2,
        slice_mm=3.6,
        gain=1500,
        has_dce=False,
    ),
}


def _pick(rng: np.random.Generator, table: tuple[tuple[float, float], ...]) -> float:
    values = np.array([v for v, _ in table])
    weights = np.array([w for _, w in table])
    return float(rng.choice(values, p=weights / weights.sum()))


def _distortion_mm(rng: np.random.Generator) -> float:
    """Mean shift of ordinary, distorted and hip-prosthesis examinations (PMC5629196)."""
    kind = rng.random()
    if kind < 0.03:
        return float(np.clip(rng.normal(8.1, 3.0), 3, 14))
    if kind < 0.18:
        return float(np.clip(rng.normal(4.4, 1.1), 2, 8))
    return float(np.clip(rng.normal(1.9, 0.6), 0.3, 4))


def draw_site(rng: np.random.Generator) -> Site:
    """Draw a random site within the published ranges of protocols and habits."""
    weak = rng.random() < 0.31
    b_values = _B_SETS[int(rng.choice(6, p=[0.32, 0.2, 0.14, 0.1, 0.12, 0.12]))]
    spacing = _pick(rng, _IN_PLANE)
    fov = rng.uniform(170, 210)
    dwi_spacing = float(rng.uniform(1.4, 2.5))
    computed = bool(rng.random() < 0.65) or b_values[-1] < 1000
    high = float(rng.choice([1400, 1500, 2000])) if computed else b_values[-1]
    snr = float(rng.uniform(8, 25)) * (0.7 if weak else 1.0)
    return Site(
        name=f"site-{int(rng.integers(10**6)):06d}",
        vendor=f"vendor-{'abc'[int(rng.integers(3))]}",
        model="1.5T" if weak else "3T",
        field_strength_t=1.5 if weak else 3.0,
        t2w_te_ms=float(rng.uniform(80, 130)),
        t2w_tr_ms=float(rng.uniform(3000, 7500)),
        t2w_spacing_mm=spacing,
        t2w_matrix=int(fov / spacing / 16) * 16,
        slice_mm=_pick(rng, _SLICE),
        t2w_slices=int(rng.integers(19, 28)),
        t2w_snr=float(rng.uniform(14, 45)) * (0.6 if weak else 1.0),
        t2w_blur_mm=float(rng.uniform(0.3, 1.0)),
        dwi_te_ms=float(rng.uniform(55, 95)),
        dwi_spacing_mm=dwi_spacing,
        dwi_matrix=int(rng.uniform(180, 230) / dwi_spacing / 2) * 2,
        b_values=b_values,
        high_b=high,
        high_b_computed=computed,
        dwi_snr_b800=snr,
        adc_zero_fill=bool(rng.random() < 0.5),
        adc_bias=float(rng.uniform(0.95, 1.04)),
        distortion_mm=_distortion_mm(rng) * (0.6 if weak else 1.0),
        phase_encoding="AP" if rng.random() < 0.7 else "LR",
        gas_shift_mm=float(rng.uniform(0, 6)) * (0.5 if weak else 1.0),
        dce_spacing_mm=float(rng.uniform(1.2, 2.0)),
        dce_interval_s=float(rng.uniform(4, 9)),
        dce_aif_scale=float(rng.uniform(0.42, 0.58)),
        dce_flip_deg=float(rng.uniform(10, 15)),
        dce_snr=float(rng.uniform(12, 40)),
        has_dce=bool(rng.random() < 0.7),
        coil_bias=float(rng.uniform(0.05, 0.35)),
        endorectal=bool(rng.random() < 0.03),
        gain=float(np.exp(rng.uniform(np.log(100), np.log(2000)))),
        gamma=float(np.exp(rng.normal(0, 0.12))),
        sharpen=float(rng.uniform(0, 0.6)) if rng.random() < 0.4 else 0.0,
        positive_fraction=float(rng.uniform(0.22, 0.32)),
    )


def jitter_scan(rng: np.random.Generator, site: Site) -> Site:
    """Vary a site from day to day: small changes from scan to scan."""
    return replace(
        site,
        t2w_snr=site.t2w_snr * float(np.exp(rng.normal(0, 0.15))),
        dwi_snr_b800=site.dwi_snr_b800 * float(np.exp(rng.normal(0, 0.2))),
        gain=site.gain * float(np.exp(rng.normal(0, 0.15))),
        coil_bias=site.coil_bias * float(rng.uniform(0.6, 1.4)),
        gas_shift_mm=site.gas_shift_mm * float(rng.uniform(0, 1.5)),
        distortion_mm=site.distortion_mm * float(np.exp(rng.normal(0, 0.25))),
        dce_aif_scale=site.dce_aif_scale * float(rng.uniform(0.85, 1.2)),
    )


def site_to_dict(site: Site) -> dict[str, Any]:
    """Plain values of a site, for JSON."""
    return asdict(site)


def site_from_dict(data: dict[str, Any]) -> Site:
    """Make a site from plain values; missing fields take the defaults. Raises ValueError."""
    known = {f.name for f in fields(Site)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"unknown site fields {unknown}; known fields are {sorted(known)}")
    values = dict(data)
    if "b_values" in values:
        values["b_values"] = tuple(float(b) for b in values["b_values"])
    return Site(**values)


def load_sites(path: Path) -> tuple[Site, ...]:
    """Sites from a JSON list, or from TOML with ``[[sites]]`` tables. Raises ValueError."""
    text = path.read_text(encoding="utf-8")
    data = tomllib.loads(text)["sites"] if path.suffix == ".toml" else json.loads(text)
    if not isinstance(data, list) or not data:
        raise ValueError(f"{path}: expected a list of sites; write [[sites]] tables or a JSON list")
    return tuple(site_from_dict(d) for d in data)
