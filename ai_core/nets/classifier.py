"""Nets 2 and 3: is a candidate clinically significant, and how suspicious is it (1 to 5).

Two patches of different scale are cut around each candidate from the images *and* the maps
(claims 11, 15-17; FIG 4; two-scale idea: Yu et al., ISBI 2020). The ordinal head is CORN
(Shi, Cao, Raschka 2021): rank-consistent conditional probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ai_core.nets.blocks import Conv
from ai_core.nets.localizer import INPUT_CHANNELS, MODALITIES, Localization

#: images, one map per modality, fused map, PZ and TZ probability
PATCH_CHANNELS = INPUT_CHANNELS + len(MODALITIES) + 3
SCORES = 5


class Classifier(nn.Module):
    """Shared trunk on two scales; heads for significance (logit) and suspicion (CORN logits)."""

    def __init__(self, widths: tuple[int, ...] = (32, 48, 64)) -> None:
        super().__init__()
        self.channels = PATCH_CHANNELS
        self.trunks = nn.ModuleList(self._trunk(widths) for _ in range(2))
        features = 2 * 2 * widths[-1] + len(MODALITIES)
        self.hidden = nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Dropout(0.2))
        self.significance = nn.Linear(64, 1)
        self.suspicion = nn.Linear(64, SCORES - 1)

    @staticmethod
    def _trunk(widths: tuple[int, ...]) -> nn.Sequential:
        layers: list[nn.Module] = []
        previous = PATCH_CHANNELS
        for index, width in enumerate(widths):
            stride = (1, 2, 2) if index == 0 else (2, 2, 2)
            layers += [Conv(previous, width, stride=stride), Conv(width, width)]
            previous = width
        return nn.Sequential(*layers)

    def forward(self, fine: Tensor, coarse: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """``fine``/``coarse`` (k, channels, z, y, x), ``present`` (4,); (k,) and (k, 4) logits."""
        hidden = self.hidden(self.pooled(fine, coarse, present))
        return self.significance(hidden).squeeze(1), self.suspicion(hidden)

    def pooled(self, fine: Tensor, coarse: Tensor, present: Tensor) -> Tensor:
        """Return what the heads see, ``(k, features)``; arguments as `forward`."""
        pooled = []
        for trunk, patch in zip(self.trunks, (fine, coarse), strict=True):
            features = trunk(patch)
            pooled += [features.mean(dim=(2, 3, 4)), features.amax(dim=(2, 3, 4))]
        flags = present.to(pooled[0]).expand(fine.shape[0], -1)
        return torch.cat([*pooled, flags], dim=1).float()

    def dropout_logits(self, pooled: Tensor, samples: int, seed: int) -> Tensor:
        """Return significance logits ``(samples, k)`` with random units left out (MC dropout).

        Gal and Ghahramani 2016: the spread shows what training left open. Same seed, same units.
        """
        hidden = self.hidden[:-1](pooled)
        share = 1.0 - float(self.hidden[-1].p)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand((samples, 1, hidden.shape[1]), generator=generator) < share
        kept = draws.to(hidden) / share
        logits: Tensor = self.significance(hidden[None] * kept)
        return logits.squeeze(2)


def suspicion_score(corn_logits: Tensor) -> Tensor:
    """Return the expected score, 1 to 5, from CORN logits ``(k, 4)``: 1 + sum of P(score > j)."""
    exceed = torch.cumprod(torch.sigmoid(corn_logits), dim=1)
    return 1.0 + exceed.sum(dim=1)


def corn_loss(corn_logits: Tensor, scores: Tensor) -> Tensor:
    """CORN loss: each task sees only the examples that passed the one before."""
    losses = []
    for j in range(SCORES - 1):
        inside = scores > j
        if bool(inside.any()):
            target = (scores[inside] > j + 1).float()
            losses.append(
                F.binary_cross_entropy_with_logits(corn_logits[inside, j], target, reduction="sum")
            )
    return torch.stack(losses).sum() / max(1, scores.numel())


def stack_channels(image: Tensor, result: Localization, with_maps: bool = True) -> Tensor:
    """Images and maps as one tensor ``(n, PATCH_CHANNELS, z, y, x)``.

    ``with_maps``: off, the localization maps are blank (for the ablation).
    """
    maps = torch.sigmoid(torch.cat([result.maps, result.lesion], dim=1))
    zones = torch.softmax(result.zones, 1)[:, 1:]
    return torch.cat([image, maps if with_maps else torch.zeros_like(maps), zones], dim=1)


def cut_patches(
    stack: Tensor, centers_zyx: Tensor, shape_zyx: tuple[int, int, int], zoom: float, flip: bool
) -> Tensor:
    """Cut a patch around each center; differentiable, so that joint training reaches the maps.

    Args:
        stack: ``(1, c, z, y, x)``, one case.
        centers_zyx: ``(k, 3)`` voxel positions, fractions allowed.
        shape_zyx: voxels of a patch.
        zoom: voxel size of the patch in voxels of the stack (2: twice the field of view).
        flip: mirror left and right.

    Returns:
        ``(k, c, *shape_zyx)``; outside the stack the nearest voxel is repeated.
    """
    size = torch.tensor(stack.shape[-3:], dtype=torch.float32, device=stack.device)
    steps = [
        (torch.arange(n, dtype=torch.float32, device=stack.device) - (n - 1) / 2) * zoom
        for n in shape_zyx
    ]
    if flip:
        steps[2] = steps[2].flip(0)
    offsets = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1)
    points = centers_zyx.to(stack.device).float().view(-1, 1, 1, 1, 3) + offsets
    grid = (points * 2 + 1) / size - 1
    count = centers_zyx.shape[0]
    return F.grid_sample(
        stack.float().expand(count, -1, -1, -1, -1),
        grid.flip(-1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
