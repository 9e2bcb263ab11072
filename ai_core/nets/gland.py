"""Net 0: finds the prostate and its zones on T2W, and says whether there is a prostate at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ai_core.nets.blocks import Decoder, Encoder, resize_like

STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


class GlandFinder(nn.Module):
    """U-Net with instance normalisation on a coarse T2W grid.

    Input ``(n, 1, z, y, x)``; output logits ``(n, 3, z, y, x)`` (background, PZ, TZ) and one
    presence logit per image ``(n,)``.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.encoder = Encoder(1, widths, STRIDES[: len(widths)], "instance")
        self.decoder = Decoder(widths, "instance")
        self.head = nn.Conv3d(widths[0], 3, 1)
        self.presence = nn.Linear(2 * sum(widths[-2:]), 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Zone logits and presence logit; the presence head does not shape the features."""
        features = self.encoder(image)
        logits = resize_like(self.head(self.decoder(features)).float(), image)
        pooled = [
            part
            for level in (f.detach() for f in features[-2:])
            for part in (level.mean(dim=(2, 3, 4)), level.amax(dim=(2, 3, 4)))
        ]
        return logits, self.presence(torch.cat(pooled, dim=1).float()).squeeze(1)
