"""Dynamic contrast enhancement: extended Tofts model, spoiled gradient echo.

AIF: Parker et al., Magn Reson Med 2006, doi 10.1002/mrm.21066, scaled to measured enhancement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ai_core.sim.render import Maps, Scene, Tensor, generator, resize_in_plane, rician
from ai_core.sim.sites import Site

_KEP_STEP = 0.1
_KEP_COUNT = 61
_R1_PER_MM_S = 4.5
_DISPERSION_MIN = 0.2


def parker_aif(times_min: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Plasma-side population concentration (mM) at minutes after arrival."""
    t = times_min
    out = np.zeros_like(t)
    for a, mu, s in ((0.809, 0.17046, 0.0563), (0.330, 0.365, 0.132)):
        out += a / (s * np.sqrt(2 * np.pi)) * np.exp(-((t - mu) ** 2) / (2 * s * s))
    out += 1.050 * np.exp(-0.1685 * t) / (1 + np.exp(-38.078 * (t - 0.483)))
    return np.where(t >= 0, out, 0.0) / (1 - 0.42)


def _tables(times_s: Sequence[float], scale: float) -> tuple[npt.NDArray[np.float32], Tensor]:
    """Plasma concentration at the times and its convolution, per kep node ``(times, kep)``."""
    dt = 1.0 / 60.0
    grid = np.arange(0, max(*times_s, 1.0) / 60.0 + 2 * dt, dt)
    plasma = parker_aif(grid) * scale
    # Bolus dispersion between the population's artery and the gland; unit area.
    spread = np.exp(-grid / _DISPERSION_MIN)
    plasma = np.convolve(plasma, spread / spread.sum())[: len(grid)]
    index = np.clip(np.asarray(times_s) / 60.0, 0, None)
    table = np.empty((len(times_s), _KEP_COUNT), dtype=np.float32)
    for k in range(_KEP_COUNT):
        kernel = np.exp(-k * _KEP_STEP * grid)
        conv = np.convolve(plasma, kernel)[: len(grid)] * dt
        table[:, k] = np.interp(index, grid, conv)
    return np.interp(index, grid, plasma).astype(np.float32), torch.from_numpy(table)


def enhancement(maps: Maps, times_s: Sequence[float], site: Site) -> Tensor:
    """Signals ``(times, z, y, x)``, times (s) after arrival, without noise; before 0: none."""
    plasma, table = _tables(times_s, site.dce_aif_scale)
    table = table.to(maps.kep.device)
    kep = (maps.kep / _KEP_STEP).clamp(0, _KEP_COUNT - 1.001)
    low = kep.long()
    frac = kep - low
    angle = np.deg2rad(site.dce_flip_deg)
    signals = []
    for i, _ in enumerate(times_s):
        conv = table[i][low] * (1 - frac) + table[i][low + 1] * frac
        conc = maps.vp * float(plasma[i]) + maps.ktrans * conv
        rate = 1000.0 / maps.t1 + _R1_PER_MM_S * conc
        e1 = torch.exp(-site.dce_tr_ms / 1000.0 * rate)
        signals.append((1 - e1) * float(np.sin(angle)) / (1 - e1 * float(np.cos(angle))))
    return torch.stack(signals)


def render_dce(
    scene: Scene, maps: Maps, times_s: Sequence[float], site: Site, rng: np.random.Generator
) -> Tensor:
    """Noisy phases ``(times, z, y, x)`` on the DCE grid of the same field of view."""
    gen = generator(rng, maps.t1.device)
    _, sy, sx = scene.spacing_zyx_mm
    rows = max(8, round(scene.labels.shape[1] * sy / site.dce_spacing_mm))
    cols = max(8, round(scene.labels.shape[2] * sx / site.dce_spacing_mm))
    names = ("t2w", "t1", "ktrans", "kep", "vp")
    stacked = torch.stack([getattr(maps, n) for n in names])
    small = torch.nn.functional.interpolate(
        stacked, size=(rows, cols), mode="bilinear", align_corners=False
    )
    coarse = replace(maps, **{n: small[i] for i, n in enumerate(names)})
    signals = enhancement(coarse, times_s, site) * (0.4 + 0.6 * (coarse.t2w > 0.02).float())
    return rician(signals, 0.03 * 3.0 / site.dce_snr, gen)


def dce_features(scene: Scene, maps: Maps, site: Site, rng: np.random.Generator) -> Tensor:
    """Two channels ``(2, z, y, x)`` on the scene's grid: early relative enhancement, washout.

    Early: mean relative enhancement 15-30 s after arrival. Washout: slope of the relative
    enhancement between 60 and 180 s, per minute (negative: contrast leaves).
    """
    late = float(rng.normal(0, 2.5))
    times = [-1.0] + [max(t + late, 4.0) for t in (15.0, 30.0, 60.0, 180.0)]
    phases = render_dce(scene, maps, times, site, rng)
    base = phases[0].clamp(min=0.25 * float(phases[0].mean()) + 1e-6)
    relative = (phases[1:] - phases[0]) / base
    early = (relative[0] + relative[1]) / 2
    slope = (relative[3] - relative[2]) / 2.0
    size = (scene.labels.shape[1], scene.labels.shape[2])
    return torch.stack([resize_in_plane(v, size) for v in (early, slope)])
