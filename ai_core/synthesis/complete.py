"""The normal image: many incomplete images, completed by the generator, and their median."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ai_core.candidates import Mask, dilate_mm
from ai_core.config import CoreConfig
from ai_core.nets.synthesis import IMAGES, Generator
from ai_core.synthesis.holes import Lattice
from ai_core.types import FloatArray, LabelArray, Modality

#: The images that are synthesised, in the order of their channels.
SYNTHESISED = (Modality.T2W, Modality.ADC, Modality.HIGH_B)
#: Middle and spread of gland tissue in the localizer's units (T2W z, ADC 10^-3 mm2/s, ratio).
MIDDLE = np.array([0.0, 1.4, 1.0], dtype=np.float32)[:, None, None, None]
SPREAD = np.array([1.0, 0.4, 0.35], dtype=np.float32)[:, None, None, None]
#: The network halves slices twice and the plane three times.
MULTIPLE_ZYX = (4, 8, 8)
CONTEXT_VOXELS = (1, 8, 8)
NOISE_SEED = 20_260
#: Incomplete images that the network completes at once.
TOGETHER = 4


@dataclass(frozen=True)
class Prostate:
    """What is completed: the localizer's input ``(5, z, y, x)``, its images, zones 0/1/2."""

    stack: FloatArray
    present: tuple[Modality, ...]
    zones: LabelArray

    def standardised(self) -> FloatArray:
        """Return the images ``(3, z, y, x)`` in units of `SPREAD`; absent ones are 0."""
        there = self.there()[:, None, None, None]
        return np.asarray((self.stack[:IMAGES] - MIDDLE) / SPREAD * there, dtype=np.float32)

    def there(self) -> npt.NDArray[np.float32]:
        """Return 1 for each image that is there, in the order of `SYNTHESISED`."""
        return np.array([m in self.present for m in SYNTHESISED], dtype=np.float32)

    def about(self) -> FloatArray:
        """Return what the generator is told: PZ, TZ, ADC there, high b there; ``(4, z, y, x)``."""
        flags = [np.full(self.zones.shape, flag, np.float32) for flag in self.there()[1:]]
        return np.stack([self.zones == 1, self.zones == 2, *flags]).astype(np.float32)

    def deletable(self, config: CoreConfig) -> Mask:
        """Return the gland and a margin: nothing else is ever deleted."""
        margin, spacing = config.synthesis.margin_mm, config.lesion_grid.spacing_zyx_mm
        return dilate_mm(self.zones > 0, margin, spacing)


@dataclass(frozen=True)
class Normal:
    """The normal image ``(3, z, y, x)``, standardised; ``disagreement``: spread of completions.

    Outside of what is deletable it is the image itself.
    """

    image: FloatArray
    disagreement: FloatArray


def box_around(mask: Mask) -> tuple[slice, slice, slice]:
    """Return a box around a mask with context, of a size that the network can halve.

    Raises:
        ValueError: the mask is empty, or the grid is smaller than one multiple.
    """
    places = np.argwhere(mask)
    if not len(places):
        raise ValueError("there is no gland to complete")
    found = []
    for axis, (n, step, room) in enumerate(
        zip(mask.shape, MULTIPLE_ZYX, CONTEXT_VOXELS, strict=True)
    ):
        low, high = int(places[:, axis].min()) - room, int(places[:, axis].max()) + 1 + room
        size = min(-(-(high - low) // step) * step, n // step * step)
        if size <= 0:
            raise ValueError(f"{n} voxels are too few along axis {axis}")
        start = min(max(0, (low + high - size) // 2), n - size)
        found.append(slice(start, start + size))
    return (found[0], found[1], found[2])


@torch.inference_mode()
def normal_image(prostate: Prostate, generator: Generator, config: CoreConfig) -> Normal:
    """Delete the gland piece by piece, complete each piece, and take the median.

    The same input gives the same image: the noise follows from a constant. Every other draw looks
    at the mirror image.

    Raises:
        ValueError: there is no gland.
    """
    image, about = prostate.standardised(), prostate.about()
    deletable = prostate.deletable(config)
    box = box_around(deletable)
    part, inside = image[:, *box], deletable[box]
    holes = [
        plane[None] & inside for plane in Lattice.of(config.synthesis).planes(inside.shape[1:])
    ]
    holes = [hole for hole in holes if hole.any()]
    device = next(generator.parameters()).device
    given = torch.from_numpy(part).to(device), torch.from_numpy(about[:, *box]).to(device)
    completions = [
        filled
        for draw in range(config.synthesis.draws)
        for filled in _completions(holes, given, generator, draw)
    ]
    deleted = np.stack(holes * config.synthesis.draws)[:, None]
    values = np.where(deleted, np.concatenate(completions), np.nan)
    return _whole(image, box, inside, values)


def _completions(
    holes: list[Mask], given: tuple[Tensor, Tensor], generator: Generator, draw: int
) -> list[npt.NDArray[np.float32]]:
    """Complete each incomplete image once; arrays ``(n, 3, z, y, x)`` in the order of the holes."""
    image, about = given
    source = torch.Generator().manual_seed(NOISE_SEED + draw)
    mirrored = draw % 2 == 1
    filled = []
    for first in range(0, len(holes), TOGETHER):
        some = np.stack(holes[first : first + TOGETHER])[:, None]
        deleted = torch.from_numpy(some.astype(np.float32)).to(image.device)
        noise = torch.randn(deleted.shape, generator=source).to(image.device)
        count = len(some)
        batch = [image.expand(count, -1, -1, -1, -1), deleted, about.expand(count, -1, -1, -1, -1)]
        inputs = [t.flip(-1) if mirrored else t for t in (*batch, noise)]
        out = generator(*inputs)
        filled.append((out.flip(-1) if mirrored else out).cpu().numpy())
    return filled


def _whole(
    image: FloatArray,
    box: tuple[slice, slice, slice],
    inside: Mask,
    values: npt.NDArray[np.float32],
) -> Normal:
    """Put the median of the completions ``(n, 3, z, y, x)``, NaN where kept, into the image."""
    seen = values[..., inside]
    normal, disagreement = image.copy(), np.zeros_like(image)
    part = normal[:, *box]
    part[:, inside] = np.nanmedian(seen, axis=0)
    disagreement[:, *box][:, inside] = np.nanstd(seen, axis=0)
    return Normal(normal, disagreement)
