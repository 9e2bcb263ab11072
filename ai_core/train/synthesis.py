"""Trains the synthesis branch: a generator against a discriminator, then the normal spread.

Generator and discriminator learn in one step of one optimiser, as one network with one checkpoint:
the discriminator's weights are constants in the generator's loss, and synthesised images are
constants in the discriminator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from rich.progress import track
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ai_core.candidates import Mask
from ai_core.config import CoreConfig, ModalityDropout
from ai_core.manifest import SYNTHESIS
from ai_core.nets.localizer import MODALITIES
from ai_core.nets.synthesis import IMAGES, Generator
from ai_core.precision import Precision, computing
from ai_core.synthesis.compare import NormalSpread, Seen, fit_spread, signed_difference
from ai_core.synthesis.complete import Prostate, normal_image
from ai_core.synthesis.holes import Lattice
from ai_core.train.data import Batch, LesionSamples, stream
from ai_core.train.normals import normals_of
from ai_core.train.source import Cases

DISCRIMINATOR_CHANNELS = 24
DISCRIMINATOR_LAYERS = 2
#: Dynamic series are not synthesised; the rest is absent as often as in the field.
DROPOUT = ModalityDropout(dce=1.0)
#: Share of slices with deleted voxels that the discriminator judges in a step.
JUDGED_SLICES = 12
#: Part around the gland that a step looks at.
CROP_ZYX = (16, 64, 64)


class Adversaries(nn.Module):
    """Generator and patch discriminator of slices."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.generator = Generator(widths)
        self.discriminator = PatchDiscriminator(
            spatial_dims=2,
            channels=DISCRIMINATOR_CHANNELS,
            in_channels=IMAGES,
            num_layers_d=DISCRIMINATOR_LAYERS,
            norm="INSTANCE",
        )

    def verdict(self, slices: Tensor, learning: bool) -> Tensor:
        """Judge slices ``(n, 3, y, x)``; ``learning``: whether its own weights get a gradient."""
        if learning:
            found = self.discriminator(slices)[-1]
        else:
            fixed = {k: v.detach() for k, v in self.discriminator.state_dict().items()}
            found = functional_call(self.discriminator, fixed, (slices,))[-1]
        return torch.as_tensor(found).float()


def normal_samples(cases: Cases, config: CoreConfig, held_out: bool = False) -> LesionSamples:
    """Return batches of normal prostates; ``held_out``: each once, in order."""
    batch = 1 if held_out else config.training.synthesis.batch
    name = f"{SYNTHESIS}-spread" if held_out else SYNTHESIS
    return LesionSamples(
        normals_of(cases), config, name, batch, DROPOUT, augment=False, in_order=held_out
    )


@dataclass(frozen=True)
class SynthesisStep:
    """Loss of a batch: deleted voxels reconstructed, and synthesised slices taken for real ones."""

    config: CoreConfig

    def __call__(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the sum of both players' losses, and its parts."""
        assert isinstance(network, Adversaries)  # noqa: S101 - narrows the type
        image, about, deleted = self._incomplete(batch)
        noise = torch.randn_like(deleted)
        filled = network.generator(image, deleted, about, noise)
        there = torch.cat([torch.ones_like(about[:, :1]), about[:, 2:]], 1)
        wrong = F.smooth_l1_loss(filled, image, reduction="none", beta=0.3) * deleted * there
        rebuilt = wrong.sum() / (deleted * there).sum().clamp(min=1.0)
        real, made = _slices(image, filled, deleted)
        adversarial = PatchAdversarialLoss(criterion="least_squares")
        fooled = adversarial(network.verdict(made, False), True, False)
        caught = adversarial(network.verdict(made.detach(), True), False, True)
        known = adversarial(network.verdict(real, True), True, True)
        judged = (caught + known) / 2
        loss = rebuilt + self.config.training.adversarial * fooled + judged
        values = {"rebuilt": rebuilt, "fooled": fooled, "judged": judged}
        return loss, {name: float(value.detach()) for name, value in values.items()}

    def _incomplete(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, what is told of them, and one random lattice of holes for each."""
        rows = [self._one(batch, index) for index in range(len(batch["image"]))]
        image, about, deleted = (torch.stack(part) for part in zip(*rows, strict=True))
        return image, about, deleted

    def _one(self, batch: Batch, index: int) -> tuple[Tensor, Tensor, Tensor]:
        prostate = prostate_of(batch, index)
        rules = self.config.synthesis
        hole = int(torch.randint(rules.hole_voxels // 2, rules.hole_voxels * 5 // 4 + 1, (1,)))
        period = max(rules.period_voxels, hole + 1)
        top, left = (int(v) for v in torch.randint(period, (2,)))
        plane = Lattice(hole, 1, period).plane(prostate.zones.shape[1:], top, left)
        deleted = prostate.deletable(self.config) & plane[None]
        arrays = prostate.standardised(), prostate.about(), deleted[None].astype(np.float32)
        box = _crop(prostate.zones > 0)
        device = batch["image"].device
        found = [torch.from_numpy(a[:, *box].copy()).to(device) for a in arrays]
        if bool(torch.rand(1) < 0.5):
            found = [t.flip(-1) for t in found]
        return found[0], found[1], found[2]


def _crop(gland: Mask) -> tuple[slice, ...]:
    """Return a part of `CROP_ZYX` around the middle of the gland; its level is drawn by chance."""
    places = np.argwhere(gland)
    low, high = (places.min(0), places.max(0)) if len(places) else (np.zeros(3), gland.shape)
    found = []
    for axis, size in enumerate(CROP_ZYX):
        n = gland.shape[axis]
        start = int(low[axis] + high[axis] + 1 - size) // 2
        if axis == 0:
            slack = max(0, int(high[0] - low[0] + 1 - size) // 2)
            start += int(torch.randint(-slack, slack + 1, (1,)))
        start = min(max(0, start), max(0, n - size))
        found.append(slice(start, start + min(size, n)))
    return tuple(found)


def prostate_of(batch: Batch, index: int) -> Prostate:
    """Return one image of a batch."""
    flags = zip(MODALITIES, batch["present"].tolist(), strict=True)
    present = tuple(name for name, flag in flags if flag)
    zones = batch["zones"][index].cpu().numpy().astype(np.uint8)
    return Prostate(batch["image"][index].cpu().numpy(), present, zones)


def _slices(image: Tensor, filled: Tensor, deleted: Tensor) -> tuple[Tensor, Tensor]:
    """Return real and synthesised slices ``(n, 3, y, x)`` that something was deleted in."""
    touched = deleted.flatten(3).any(-1)[:, 0]
    places = touched.nonzero()
    if not len(places):
        places = torch.zeros((1, 2), dtype=torch.long, device=image.device)
    chosen = places[torch.randperm(len(places))[:JUDGED_SLICES].to(places.device)]
    n, z = chosen.T
    return image[n, :, z], filled[n, :, z]


def generator_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the generator's part of the trained network: what a release carries."""
    prefix = "generator."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def fit_normal_spread(generator: Generator, held_out: Cases, config: CoreConfig) -> NormalSpread:
    """Complete normal cases that were never trained on, and measure how far it is off.

    Raises:
        InputError: there is no normal case.
    """
    samples = normal_samples(held_out, config, held_out=True)
    source: Any = samples.source
    wanted = config.training.synthesis_cases
    count = min(wanted, len(source)) if source.real else wanted
    batches = stream(samples.batch, 0, config.training.workers)
    device = next(generator.parameters()).device
    precision = Precision(config.training.precision)
    seen = []
    for _ in track(range(count), description="normal spread"):
        prostate = prostate_of(next(batches), 0)
        if not (prostate.zones > 0).any():
            continue
        with computing(precision, device):
            normal = normal_image(prostate, generator, config)
        difference = signed_difference(prostate, normal, config)[:, prostate.zones > 0]
        seen.append(Seen(difference, prostate))
    return fit_spread(seen)
