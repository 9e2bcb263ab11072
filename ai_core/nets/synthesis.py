"""The generator of the synthesis branch: fills deleted parts of a prostate with normal tissue."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ai_core.nets.blocks import Decoder, Encoder

#: Channels of the images that are synthesised together: T2W, ADC, high b.
IMAGES = 3
#: Images, what is deleted, PZ, TZ, whether ADC and high b are there, noise.
CHANNELS_IN = IMAGES + 1 + 2 + 2 + 1
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))


class Generator(nn.Module):
    """U-Net over the stack of slices, all images jointly; full resolution at its finest level.

    It is handed images whose deleted voxels are 0; `complete` keeps what was not deleted.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 24, 48, 96)) -> None:
        super().__init__()
        self.encoder = Encoder(CHANNELS_IN, widths, STRIDES[: len(widths)], "batch")
        self.decoder = Decoder(widths, "batch")
        self.head = nn.Conv3d(widths[0], IMAGES, 1)

    def forward(self, image: Tensor, deleted: Tensor, about: Tensor, noise: Tensor) -> Tensor:
        """Return images in which deleted voxels are filled and the others are as given.

        Args:
            image: ``(n, 3, z, y, x)``, standardised. Deleted voxels are not looked at.
            deleted: ``(n, 1, z, y, x)``, 1 where a voxel is to be filled.
            about: ``(n, 4, z, y, x)``: PZ, TZ, and whether ADC and high b are there.
            noise: ``(n, 1, z, y, x)``; seen within the deleted voxels alone.
        """
        kept = torch.where(deleted > 0, 0.0, image)
        seen = torch.cat([kept, deleted, about, noise * deleted], 1)
        filled = self.head(self.decoder(self.encoder(seen))).float()
        there = torch.cat([torch.ones_like(about[:, :1]), about[:, 2:]], 1)
        return torch.where(deleted > 0, filled * there, image)
