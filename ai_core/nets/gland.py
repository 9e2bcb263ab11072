"""Net 0: finds the prostate and its zones on T2W."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ai_core.nets.blocks import Decoder, Encoder, resize_like

STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))


class GlandFinder(nn.Module):
    """U-Net with instance normalisation on a coarse T2W grid.

    Input ``(n, 1, z, y, x)``; output logits ``(n, 3, z, y, x)``: background, PZ, TZ.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.encoder = Encoder(1, widths, STRIDES[: len(widths)], "instance")
        self.decoder = Decoder(widths, "instance")
        self.head = nn.Conv3d(widths[0], 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Zone logits."""
        return resize_like(self.head(self.decoder(self.encoder(image))).float(), image)


def gland_probability(logits: Tensor) -> Tensor:
    """Probability of any zone, ``(n, z, y, x)``, from the finder's logits."""
    return 1 - torch.softmax(logits, dim=1)[:, 0]


@torch.inference_mode()
def both_ways(finder: GlandFinder, image: Tensor) -> tuple[Tensor, Tensor]:
    """Gland probability ``(z, y, x)`` of one image, and that of its mirror image mirrored back.

    The pair is one batch: two volumes take the fast convolution path on CPUs, one does not.
    """
    single = image[None, None]
    gland = gland_probability(finder(torch.cat([single, single.flip(-1)])))
    return gland[0], gland[1].flip(-1)
