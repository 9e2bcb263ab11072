"""From labels to images: property maps, T2W, diffusion. Torch, on any device.

Arrays are ``[z, y, x]``; ADC in um2/s (1e-6 mm2/s) at the outside, 1e-3 mm2/s within.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ai_core.sim.fields import Lattice, noise_lattice
from ai_core.sim.params import Focus, Tissue
from ai_core.sim.sites import Site
from ai_core.sim.tissue import TissueDraw

Tensor = torch.Tensor
# Share of the T2 texture that the ADC follows: the lumen fraction drives both (r about .5 in PZ).
_SHARED = 0.6


@dataclass(frozen=True)
class Scene:
    """Labels of one grid as tensors ``[z, y, x]`` with patient coordinates (mm)."""

    labels: Tensor
    zones: Tensor
    lesion_weight: Tensor
    lesion_id: Tensor
    mimic_weight: Tensor
    mimic_id: Tensor
    points_xyz: tuple[Tensor, Tensor, Tensor]
    spacing_zyx_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Maps:
    """Physical properties per voxel; ADC in 1e-3 mm2/s, Ktrans and kep per minute."""

    t2w: Tensor
    s0: Tensor
    adc: Tensor
    kurtosis: Tensor
    t1: Tensor
    ktrans: Tensor
    kep: Tensor
    vp: Tensor


@dataclass(frozen=True)
class Textures:
    """Patient-fixed noise: fine (shared, ADC) and coarse (shared, ADC, perfusion)."""

    fine: Lattice
    coarse: Lattice

    @staticmethod
    def draw(
        rng: np.random.Generator,
        half_xyz_mm: tuple[float, float, float],
        device: torch.device | str = "cpu",
    ) -> Textures:
        """Textures of 2-10 mm correlation over the box ``-half..half``."""
        fine = float(rng.uniform(1.6, 2.6))
        coarse = float(rng.uniform(4.0, 7.0))
        return Textures(
            noise_lattice(rng, half_xyz_mm, (fine, fine, 3.2), 2, device),
            noise_lattice(rng, half_xyz_mm, (coarse, coarse, coarse), 3, device),
        )

    def sample(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """Fine ``(2, z, y, x)`` and coarse ``(3, z, y, x)`` noise at the scene's points."""
        x, y, z = scene.points_xyz
        return self.fine.sample(x, y, z), self.coarse.sample(x, y, z)


def grid_textures(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing_zyx_mm: tuple[float, float, float],
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """As ``Textures.sample`` for one grid that needs no partner: faster."""
    out = []
    fine, coarse = float(rng.uniform(1.6, 2.6)), float(rng.uniform(4.0, 7.0))
    for channels, step, step_z in ((2, fine, 3.2), (3, coarse, coarse)):
        steps = (step_z, step, step)
        nodes = [
            max(2, round(n * s / t) + 1)
            for n, s, t in zip(shape, spacing_zyx_mm, steps, strict=True)
        ]
        noise = rng.standard_normal((1, channels, *nodes), dtype=np.float32) * np.float32(1.84)
        seed = torch.from_numpy(noise).to(device)
        field = functional.interpolate(seed, size=shape, mode="trilinear", align_corners=True)
        out.append(field[0])
    return out[0], out[1]


def generator(rng: np.random.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a torch generator seeded from the NumPy one."""
    return torch.Generator(device=device).manual_seed(int(rng.integers(2**62)))


def property_maps(
    scene: Scene,
    draw: TissueDraw,
    lesions: Sequence[Focus],
    mimics: Sequence[Focus],
    textures: tuple[Tensor, Tensor],
) -> Maps:
    """Tissue means, mixed with lesions and mimics, times their texture (fine, coarse)."""
    fine, coarse = textures
    shared = 0.60 * fine[0] + 0.80 * coarse[0]
    own = 0.60 * fine[1] + 0.80 * coarse[1]

    def lut(values: np.ndarray) -> Tensor:
        table = torch.from_numpy(np.asarray(values, dtype=np.float32)).to(scene.labels.device)
        return table[scene.labels]

    t2_cv, adc_cv = lut(draw.t2_texture), lut(draw.adc_texture)
    t2_tex = torch.exp(t2_cv * shared - 0.5 * t2_cv**2)
    adc_tex = (1 + adc_cv * (_SHARED * shared + 0.8 * own)).clamp(0.3, 1.9)
    out = {
        n: lut(getattr(draw, n))
        for n in ("t2w", "s0", "adc", "kurtosis", "t1", "ktrans", "kep", "vp")
    }
    keep = torch.ones_like(t2_tex)
    for foci, weight, ids in (
        (mimics, scene.mimic_weight, scene.mimic_id),
        (lesions, scene.lesion_weight, scene.lesion_id),
    ):
        if foci:
            _mix(out, keep, draw, foci, (weight, ids))
    t2_tex = 1 + keep * (t2_tex - 1)
    adc_tex = 1 + keep * (adc_tex - 1)
    k_tex = torch.exp(0.3 * coarse[2])
    adc = out["adc"] * adc_tex
    # The kurtosis lowers the fitted ADC; the table speaks of fitted values at b 0-900.
    adc = adc / (1 - out["kurtosis"] * adc * 0.13).clamp(min=0.6)
    return Maps(
        t2w=out["t2w"] * t2_tex,
        s0=out["s0"] * t2_tex.clamp(0.05, 4) ** 0.7,
        adc=adc,
        kurtosis=out["kurtosis"],
        t1=out["t1"],
        ktrans=out["ktrans"] * k_tex,
        kep=out["kep"] * k_tex**0.5,
        vp=out["vp"],
    )


_RATIOS = {
    "t2w": "t2_ratio",
    "s0": "s0_ratio",
    "adc": "adc_ratio",
    "ktrans": "ktrans_ratio",
    "kep": "kep_ratio",
}


# Share of a drawn ADC contrast that is left in the median voxel of a rendered focus: edges and EPI
# pixels take the rest. 0.8 (1 - exp(-radius / 4 mm)), fitted to 93 foci without distortion.
_RECOVERED, _RECOVERY_MM = 0.8, 4.0
_LOWEST_CORE = 0.35


def core_adc_ratio(focus: Focus) -> float:
    """ADC ratio of a focus' core, so that the ratio drawn is what is seen in the image.

    Published ratios were measured in images, where blur has taken its part. They were measured in
    the middle of lesions: half of the loss (its root) is made up for.
    """
    radius_mm = math.prod(focus.radii) ** (1 / 3)
    recovered = math.sqrt(_RECOVERED * (1 - math.exp(-radius_mm / _RECOVERY_MM)))
    return max(_LOWEST_CORE, 1 - (1 - focus.adc_ratio) / recovered)


def _mix(
    out: dict[str, Tensor],
    keep: Tensor,
    draw: TissueDraw,
    foci: Sequence[Focus],
    where_what: tuple[Tensor, Tensor],
) -> None:
    """Blend foci into the maps and the texture share ``keep``, in place."""
    weight, ids = where_what
    device = weight.device
    where = torch.nonzero(weight.reshape(-1) > 0)[:, 0]
    w, number = weight.reshape(-1)[where], ids.reshape(-1)[where]
    reference = [Tissue.PZ if f.zone == 1 else Tissue.TZ for f in foci]

    def blend(target: Tensor, values: list[float]) -> None:
        table = torch.tensor([0.0, *values], dtype=torch.float32, device=device)
        flat = target.view(-1)
        flat[where] = flat[where] * (1 - w) + table[number] * w

    for name, ratio in _RATIOS.items():
        base = getattr(draw, name)
        factors = [getattr(f, ratio) for f in foci]
        if name == "adc":
            factors = [core_adc_ratio(f) for f in foci]
        if name == "t2w" and draw.lesion_t2_free:
            factors = [2.0 - f for f in factors]
        blend(out[name], [float(base[t]) * f for t, f in zip(reference, factors, strict=True)])
    blend(keep, [f.texture_keep for f in foci])


def blur_in_plane(image: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of each slice, ``[..., y, x]``; nothing below a quarter of a pixel."""
    if sigma_px < 0.25:
        return image
    radius = max(1, math.ceil(2.5 * sigma_px))
    x = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    # Shifted sums: several times faster than a one-channel convolution on a CPU.
    for axis in (-1, -2):
        pad = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
        padded = functional.pad(image, pad, mode="replicate")
        size = image.shape[axis]
        image = torch.zeros_like(image)
        for tap, value in enumerate(kernel.tolist()):
            image.add_(padded.narrow(axis, tap, size), alpha=value)
    return image


def rician(signal: Tensor, sigma: float, gen: torch.Generator) -> Tensor:
    """Magnitude of the signal with complex Gaussian noise."""
    noise = torch.randn((2, *signal.shape), generator=gen, device=signal.device) * sigma
    return torch.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2)


def smooth_noise(
    shape: Sequence[int],
    nodes: Sequence[int],
    gen: torch.Generator,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Very smooth random field of about unit variance, ``[z, y, x]``."""
    seed = torch.randn((1, 1, *nodes), generator=gen, device=device)
    out = functional.interpolate(seed, size=tuple(shape), mode="trilinear", align_corners=True)
    return out[0, 0]


def render_t2w(
    signal: Tensor,
    spacing_zyx_mm: tuple[float, float, float],
    site: Site,
    rng: np.random.Generator,
) -> Tensor:
    """Turbo-spin-echo image in arbitrary units from the signal map (PZ = 1)."""
    gen = generator(rng, signal.device)
    sigma = site.t2w_blur_mm * float(rng.uniform(0.6, 1.3)) / spacing_zyx_mm[1]
    image = blur_in_plane(signal, sigma)
    if site.sharpen > 0:
        image = (image + site.sharpen * (image - blur_in_plane(image, 1.2))).clamp(min=0)
    bias = torch.exp(site.coil_bias * smooth_noise(signal.shape, (2, 4, 4), gen, signal.device))
    if site.endorectal:
        rows = torch.linspace(-1, 1, signal.shape[1], device=signal.device)[None, :, None]
        bias = bias * torch.exp(1.2 * rows)
    image = rician(image * bias, 1.0 / site.t2w_snr, gen)
    if site.gamma != 1.0:
        image = 2.0 * (image / 2.0) ** site.gamma
    return image * site.gain


@dataclass(frozen=True)
class Diffusion:
    """Diffusion images on the EPI grid ``[z, y, x]``; ``adc`` in um2/s; signals in gain units."""

    b_values: tuple[float, ...]
    signals: Tensor
    adc: Tensor
    high_b: Tensor
    spacing_zyx_mm: tuple[float, float, float]


def _gas_field(labels: Tensor, spacing: tuple[float, float, float]) -> Tensor:
    """Smooth field 0-1 that decays over about 12 mm from the rectal gas."""
    gas = (labels == Tissue.GAS).float()
    near = blur_in_plane(gas, 9.0 / spacing[1] if spacing[1] > 0.9 else 9.0)
    return (near / 0.35).clamp(max=1.0)


def _displacement(
    scene: Scene, site: Site, rng: np.random.Generator, gen: torch.Generator
) -> Tensor:
    """Shift (mm) along the phase-encoding axis, ``[z, y, x]``."""
    shape, device = scene.labels.shape, scene.labels.device
    field = smooth_noise(shape, (3, 5, 5), gen, device) * site.distortion_mm * 0.9
    sign = 1.0 if rng.random() < 0.5 else -1.0
    small = functional.interpolate(
        scene.labels[None].float(), scale_factor=(0.5, 0.5), mode="nearest"
    ).long()[0]
    half = (scene.spacing_zyx_mm[0], 2 * scene.spacing_zyx_mm[1], 2 * scene.spacing_zyx_mm[2])
    gas = functional.interpolate(
        _gas_field(small, half)[None], size=shape[1:], mode="bilinear", align_corners=False
    )[0]
    return field + sign * site.gas_shift_mm * gas + float(rng.normal(0, 0.7 * site.motion_mm))


def render_dwi(scene: Scene, maps: Maps, site: Site, rng: np.random.Generator) -> Diffusion:
    """Multi-b EPI with kurtosis, distortion, Rician noise; ADC refitted from the noisy images."""
    gen = generator(rng, scene.labels.device)
    bs = list(site.b_values) + ([] if site.high_b_computed else [site.high_b])
    b = torch.tensor(bs, device=scene.labels.device).view(-1, 1, 1, 1) / 1000.0
    bd = b * maps.adc
    # Beyond b = 3 / (D K) the kurtosis series turns upwards; hold its minimum there.
    quad = torch.minimum(bd * maps.kurtosis / 3, torch.ones_like(bd))
    signals = maps.s0 * torch.exp(-bd * (1 - 0.5 * quad))
    signals = _to_epi(scene, signals, site, rng, gen)
    spacing = _epi_spacing(scene, signals)
    bias = torch.exp(
        site.coil_bias * smooth_noise(signals.shape[1:], (2, 4, 4), gen, signals.device)
    )
    signals = signals * bias
    zones = functional.interpolate(
        (scene.zones > 0).float()[None], size=signals.shape[-2:], mode="nearest"
    )[0]
    i800 = int(np.argmin(np.abs(np.array(site.b_values) - 800)))
    inside = float((signals[i800] * zones).sum() / zones.sum().clamp(min=1))
    expected = math.exp(-(site.b_values[i800] - 800) / 1000 * 1.3)
    sigma = max(inside, 0.02) / expected / site.dwi_snr_b800
    signals = rician(signals, sigma, gen)
    high = signals[-1]
    signals = signals[: len(site.b_values)]
    log_s0, adc = fit_adc(signals, site.b_values)
    computed = torch.exp((log_s0 - site.high_b / 1000 * adc).clamp(max=4))
    high = computed if site.high_b_computed else high
    if site.adc_zero_fill:
        dark = signals[0] < sigma * float(rng.uniform(2.5, 5.0))
        adc = torch.where(dark, torch.zeros_like(adc), adc)
        if site.high_b_computed:
            high = torch.where(dark, torch.zeros_like(high), high)
    gain = 0.5 * site.gain
    return Diffusion(site.b_values, signals * gain, adc * 1000.0, high * gain, spacing)


def fit_adc(signals: Tensor, b_values: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Log-linear least squares over ``[b, z, y, x]``: (ln S0, ADC in 1e-3 mm2/s, 0 to 4)."""
    b = torch.tensor(b_values, dtype=torch.float32, device=signals.device) / 1000.0
    logs = torch.log(signals.clamp(min=1e-5))
    centred = b - b.mean()
    slope = (logs * centred.view(-1, 1, 1, 1)).sum(0) / (centred**2).sum()
    adc = (-slope).clamp(0.0, 4.0)
    return logs.mean(0) + adc * b.mean(), adc


def _epi_spacing(scene: Scene, signals: Tensor) -> tuple[float, float, float]:
    z, y, x = scene.spacing_zyx_mm
    rows, cols = scene.labels.shape[1:]
    return (z, y * rows / signals.shape[-2], x * cols / signals.shape[-1])


def _to_epi(
    scene: Scene, signals: Tensor, site: Site, rng: np.random.Generator, gen: torch.Generator
) -> Tensor:
    """Distort along the phase-encoding axis with pile-up, blur and resample to EPI pixels."""
    _, rows, cols = scene.labels.shape
    _, sy, sx = scene.spacing_zyx_mm
    shift = _displacement(scene, site, rng, gen)
    axis = 1 if site.phase_encoding == "AP" else 2
    step = sy if axis == 1 else sx
    jacobian = (1 + torch.gradient(shift, spacing=step, dim=axis)[0]).clamp(0.4, 1.8)
    out_rows = max(8, round(rows * sy / site.dwi_spacing_mm))
    out_cols = max(8, round(cols * sx / site.dwi_spacing_mm))
    signals = blur_in_plane(signals, 0.42 * site.dwi_spacing_mm / sy)
    y = (torch.arange(out_rows, device=shift.device) + 0.5) * 2 / out_rows - 1
    x = (torch.arange(out_cols, device=shift.device) + 0.5) * 2 / out_cols - 1
    both = functional.interpolate(
        torch.stack((shift, jacobian)),
        size=(out_rows, out_cols),
        mode="bilinear",
        align_corners=False,
    )
    gy = y[None, :, None].expand(both.shape[1:])
    gx = x[None, None, :].expand(both.shape[1:])
    if axis == 1:
        gy = gy + 2 * both[0] / (rows * sy)
    else:
        gx = gx + 2 * both[0] / (cols * sx)
    grid = torch.stack((gx, gy), dim=-1)
    moved = functional.grid_sample(
        signals.transpose(0, 1), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return moved.transpose(0, 1) * both[1]


def resize_in_plane(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of each slice ``[z, y, x]`` over the same field of view."""
    return functional.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
