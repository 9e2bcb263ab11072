"""Convolution blocks shared by the networks.

Own, few lines: importing MONAI's blocks costs seconds at the start of the model process.
Anisotropic kernels and strides follow nnU-Net: no pooling through slices while slices are thick.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

Size3 = tuple[int, int, int]
IN_PLANE: Size3 = (1, 3, 3)
CUBE: Size3 = (3, 3, 3)


def norm_layer(kind: str, channels: int) -> nn.Module:
    """`batch` or `instance` normalisation with learned scale and shift."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return nn.InstanceNorm3d(channels, affine=True)


class Conv(nn.Sequential):
    """Convolution, normalisation, leaky ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: Size3 = (3, 3, 3),
        stride: Size3 = (1, 1, 1),
        norm: str = "batch",
    ) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            nn.Conv3d(channels_in, channels_out, kernel, stride, padding, bias=False),
            norm_layer(norm, channels_out),
            nn.LeakyReLU(0.01, inplace=True),
        )


def resize_like(features: Tensor, reference: Tensor) -> Tensor:
    """Trilinear resampling of ``features`` to the spatial shape of ``reference``."""
    size = reference.shape[-3:]
    if features.shape[-3:] == size:
        return features
    return F.interpolate(features, size=size, mode="trilinear", align_corners=False)


class Encoder(nn.Module):
    """Stem with in-plane stride 2, then one strided stage per further width.

    The first stage stays within slices (kernel 1 x 3 x 3): there the voxels are thick and many.
    """

    def __init__(
        self, channels_in: int, widths: tuple[int, ...], strides: tuple[Size3, ...], norm: str
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        previous = channels_in
        for index, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            kernel = IN_PLANE if index == 0 else CUBE
            self.stages.append(
                nn.Sequential(
                    Conv(previous, width, kernel, stride, norm),
                    Conv(width, width, kernel, norm=norm),
                )
            )
            previous = width

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of all levels, finest first."""
        features = []
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


class Decoder(nn.Module):
    """Joins encoder levels from coarse to fine by addition; returns the finest level.

    Addition after a 1 x 1 projection costs a third of concatenation at the same widths.
    """

    def __init__(self, widths: tuple[int, ...], norm: str) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.project = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in pairs)
        self.join = nn.ModuleList(
            Conv(fine, fine, IN_PLANE if level == 0 else CUBE, norm=norm)
            for level, (fine, _) in enumerate(pairs)
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """``features``: finest first, as from `Encoder`."""
        current = features[-1]
        for level in reversed(range(len(self.join))):
            skip = features[level]
            raised = F.interpolate(self.project[level](current), size=skip.shape[-3:])
            current = self.join[level](raised + skip)
        return current
