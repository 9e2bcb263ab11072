"""Net 0: finds the prostate and its zones on T2W; beside it, whether there is a prostate at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ai_core.nets.blocks import Decoder, Encoder, resize_like

STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
#: Reduces the gland grid to about 6 mm: layout remains, texture does not.
LAYOUT = (2, 4, 4)


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


class PresenceNet(nn.Module):
    """Judges whether the found region is a prostate in a pelvis.

    It sees T2W and the gland's probability at 6 mm, where simulated and real images are alike, and
    is trained apart from the finder: a finder taught to say "nothing here" is timid on tissue that
    was never simulated.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Grouped(2, width, 1),
            _Grouped(width, 2 * width, 2),
            _Grouped(2 * width, 2 * width, 1),
            _Grouped(2 * width, 4 * width, 2),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8 * width, 1))

    def forward(self, image: Tensor, gland: Tensor) -> Tensor:
        """Logit ``(n,)`` from normalised T2W and gland probability, ``(n, 1, z, y, x)`` each."""
        layout = F.avg_pool3d(torch.cat([image, gland], dim=1), LAYOUT)
        features = self.layers(layout)
        pooled = torch.cat([features.mean(dim=(2, 3, 4)), features.amax(dim=(2, 3, 4))], dim=1)
        logit: Tensor = self.head(pooled.float()).squeeze(1)
        return logit


class _Grouped(nn.Sequential):
    """Convolution with group normalisation: batches are small and unlike each other."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__(
            nn.Conv3d(channels_in, channels_out, 3, stride, 1),
            nn.GroupNorm(4, channels_out),
            nn.LeakyReLU(0.01),
        )


def gland_probability(logits: Tensor, sharpness: float = 1.0) -> Tensor:
    """Probability of any zone, ``(n, 1, z, y, x)``, from the finder's logits."""
    return 1 - torch.softmax(logits * sharpness, dim=1)[:, :1]
