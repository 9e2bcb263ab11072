"""Smooth random fields on patient-fixed lattices, sampled at any points.

A lattice belongs to the patient, so that every plane and sequence sees the same texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lattice:
    """Values ``(channels, z, y, x)`` spread over the box ``-half..half`` mm, axes x, y, z."""

    values: torch.Tensor
    half_xyz_mm: tuple[float, float, float]

    def sample(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Trilinear values ``(channels, *x.shape)`` at patient positions (mm); 3-D arrays."""
        hx, hy, hz = self.half_xyz_mm
        grid = torch.stack((x / hx, y / hy, z / hz), dim=-1)[None]
        out = functional.grid_sample(
            self.values[None], grid, mode="bilinear", padding_mode="reflection", align_corners=True
        )
        return out[0]

    def sample_numpy(self, x: Array, y: Array, z: Array) -> Array:
        """As ``sample``, for NumPy arrays of one 3-D shape."""
        out = self.sample(*(torch.from_numpy(np.array(v, order="C")) for v in (x, y, z)))
        return np.asarray(out.numpy(), dtype=np.float32)


def _shape(half_xyz_mm: Sequence[float], step_xyz_mm: Sequence[float]) -> tuple[int, int, int]:
    counts = [
        max(2, int(np.ceil(2 * h / s)) + 1) for h, s in zip(half_xyz_mm, step_xyz_mm, strict=True)
    ]
    return counts[2], counts[1], counts[0]


def noise_lattice(
    rng: np.random.Generator,
    half_xyz_mm: tuple[float, float, float],
    step_xyz_mm: tuple[float, float, float],
    channels: int,
    device: torch.device | str = "cpu",
) -> Lattice:
    """White lattice noise whose trilinear interpolation has about unit variance."""
    shape = (channels, *_shape(half_xyz_mm, step_xyz_mm))
    # Interpolation between independent nodes lowers the variance to (2/3)^3 on average.
    noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(1.5**1.5)
    return Lattice(torch.from_numpy(noise).to(device), half_xyz_mm)


def smooth_lattice(
    rng: np.random.Generator,
    half_xyz_mm: tuple[float, float, float],
    *,
    step_mm: float,
    sigmas_mm: Sequence[float],
    amplitudes: Sequence[float],
    channels: int = 3,
) -> Lattice:
    """Sum of Gaussian-smoothed noises of unit variance times their amplitudes."""
    shape = _shape(half_xyz_mm, (step_mm,) * 3)
    total = np.zeros((channels, *shape), dtype=np.float32)
    for sigma, amplitude in zip(sigmas_mm, amplitudes, strict=True):
        for channel in range(channels):
            noise = rng.standard_normal(shape, dtype=np.float32)
            smooth = ndimage.gaussian_filter(noise, sigma / step_mm, mode="wrap")
            total[channel] += np.float32(amplitude) * smooth / np.float32(smooth.std() + 1e-6)
    return Lattice(torch.from_numpy(total), half_xyz_mm)
