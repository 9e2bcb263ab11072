"""Training batches, rendered on the fly from cached anatomies in background processes.

Batch *i* of a phase is a function of the seed, the phase and *i* alone, whatever the number of
workers, so that an interrupted run can go on as if nothing had happened.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ai_core.config import CoreConfig, ModalityDropout
from ai_core.nets.localizer import CHANNELS, MODALITIES
from ai_core.prepare.normalise import Images, network_input, whole_image_z
from ai_core.site_profile import SiteProfile
from ai_core.train.negatives import no_prostate
from ai_core.train.source import Cases
from ai_core.types import FloatArray, Modality

Rng = np.random.Generator
Mask = npt.NDArray[np.bool_]
Batch = dict[str, Tensor]
MAX_LESIONS = 12
GAMMA = 0.45


def generator(seed: int, phase: str, index: int) -> Rng:
    """Return the random generator of batch ``index`` of a phase."""
    return np.random.default_rng((seed, zlib.crc32(phase.encode()), index))


def draw_present(rng: Rng, dropout: ModalityDropout) -> npt.NDArray[np.float32]:
    """Which modalities a batch has, 0/1 in the order of `MODALITIES`."""
    if rng.random() < dropout.t2w_only:
        missing = {Modality.ADC, Modality.HIGH_B, Modality.DCE}
    else:
        shares = ((Modality.DCE, dropout.dce), (Modality.HIGH_B, dropout.high_b))
        missing = {name for name, share in shares if rng.random() < share}
        if Modality.HIGH_B not in missing and rng.random() < dropout.adc:
            missing.add(Modality.ADC)
    return np.array([m not in missing for m in MODALITIES], dtype=np.float32)


def roughly(rng: Rng, gland: Mask) -> Mask:
    """Return a gland mask as imperfect as a found one: shifted, grown or shrunk a little."""
    shift = [int(s) for s in rng.integers(-1, 2, 3)]
    moved = np.roll(gland, shift, axis=(0, 1, 2))
    change = int(rng.integers(-2, 3))
    if change > 0:
        return np.asarray(ndimage.binary_dilation(moved, iterations=change))
    if change < 0:
        smaller = ndimage.binary_erosion(moved, iterations=-change)
        return np.asarray(smaller if smaller.any() else moved)
    return moved


@dataclass(frozen=True)
class GlandSamples:
    """Images for the gland finder: T2W, zones, and whether there is a gland.

    ``absent``: share of volumes without a prostate.
    """

    source: Cases
    config: CoreConfig
    phase: str
    size: int
    absent: float

    def batch(self, index: int) -> Batch:
        """Batch ``index``: ``image`` (n,1,z,y,x), ``zones`` (n,z,y,x), ``has_gland`` (n,)."""
        rng = generator(self.config.training.seed, self.phase, index)
        pairs = [self._one(rng) for _ in range(self.size)]
        zones = torch.from_numpy(np.stack([zones for _, zones in pairs])).long()
        return {
            "image": torch.from_numpy(np.stack([image for image, _ in pairs]))[:, None],
            "zones": zones,
            "has_gland": (zones > 0).flatten(1).any(1).float(),
        }

    def _one(self, rng: Rng) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
        config = self.config
        grid = config.gland_grid
        if rng.random() < self.absent:
            t2w, zones = no_prostate(rng, grid.shape_zyx), np.zeros(grid.shape_zyx, np.uint8)
        else:
            drawn = self.source.draw(rng, grid, config.training.gland_offset_mm, ("t2w",))
            t2w, zones = drawn.images.t2w, drawn.zones
        return whole_image_z(_gamma(rng, t2w), config.normalise), zones


def _gamma(rng: Rng, t2w: FloatArray) -> FloatArray:
    """Return the same image with a random tone curve; scanners and vendors differ in it."""
    top = max(float(np.percentile(t2w, 99.5)), 1e-6)
    exponent = float(np.exp(rng.uniform(-GAMMA, GAMMA)))
    return np.asarray(np.clip(t2w / top, 0.0, 1.5) ** exponent, dtype=np.float32)


@dataclass(frozen=True)
class LesionSamples:
    """Images for the localizer and the classifier: all modalities, zones, lesions.

    ``in_order``: batch after batch goes through the cases; else they are drawn by chance.
    ``profile``: of the release that will see them.
    """

    source: Cases
    config: CoreConfig
    phase: str
    size: int
    dropout: ModalityDropout
    augment: bool = True
    in_order: bool = False
    profile: SiteProfile | None = None

    def batch(self, index: int) -> Batch:
        """Batch ``index``.

        ``image`` (n,5,z,y,x), ``present`` (4,), ``lesion`` (n,1,z,y,x) csPCa, ``zones`` (n,z,y,x),
        ``instances`` (n,z,y,x) numbers of all foci, ``isup`` and ``pirads`` (n, MAX_LESIONS).
        """
        rng = generator(self.config.training.seed, self.phase, index)
        present = draw_present(rng, self.dropout)
        first = index * self.size
        numbers = [first + i if self.in_order else None for i in range(self.size)]
        rows = [self._one(rng, present, number) for number in numbers]
        batch = {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}
        batch["zones"] = batch["zones"].long()
        # An image that one examination of the batch lacks is taken from all of them.
        batch["present"] = batch["present"].amin(0)
        for flag, channels in zip(batch["present"], CHANNELS.values(), strict=True):
            batch["image"][:, channels] *= flag
        return batch

    def _one(
        self, rng: Rng, present: npt.NDArray[np.float32], number: int | None
    ) -> dict[str, npt.NDArray[Any]]:
        config = self.config
        names = tuple(m.value for m, flag in zip(MODALITIES, present, strict=True) if flag)
        drawn = self.source.draw(
            rng,
            config.lesion_grid,
            config.training.lesion_offset_mm,
            names,
            number,
            self.augment,
        )
        images = _keep(drawn.images, present)
        gland = roughly(rng, drawn.zones > 0)
        isup, pirads = np.zeros(MAX_LESIONS, np.int64), np.zeros(MAX_LESIONS, np.int64)
        for focus, (grade, score) in drawn.foci.items():
            if focus < MAX_LESIONS:
                isup[focus], pirads[focus] = grade, score
        significant = isup[np.minimum(drawn.instances, MAX_LESIONS - 1)] >= 2
        there = images.present()
        return {
            "image": network_input(images, gland, config.normalise, self.profile),
            "present": np.array([m in there for m in MODALITIES], dtype=np.float32),
            "lesion": (significant & (drawn.instances > 0)).astype(np.float32)[None],
            "zones": drawn.zones,
            "instances": drawn.instances.astype(np.int16),
            "isup": isup,
            "pirads": pirads,
        }


def _keep(images: Images, present: npt.NDArray[np.float32]) -> Images:
    flags = dict(zip(MODALITIES, present, strict=True))
    return Images(
        images.t2w,
        images.adc_um2_s if flags[Modality.ADC] else None,
        images.high_b if flags[Modality.HIGH_B] else None,
        images.dce if flags[Modality.DCE] else None,
    )


class _Stream(IterableDataset[Batch]):
    """Endless batches from ``start`` on, dealt out to workers in turn."""

    def __init__(self, make: Callable[[int], Batch], start: int) -> None:
        self.make, self.start = make, start

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        first, stride = (
            (self.start, 1) if info is None else (self.start + info.id, info.num_workers)
        )
        torch.set_num_threads(1)
        index = first
        while True:
            yield self.make(index)
            index += stride


def stream(make: Callable[[int], Batch], start: int, workers: int) -> Iterator[Batch]:
    """Batches ``start``, ``start + 1``, ... in order, made ahead by ``workers`` processes."""
    loader = DataLoader(
        _Stream(make, start),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),
    )
    return iter(loader)
