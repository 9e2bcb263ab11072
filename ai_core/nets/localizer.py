"""Net 1: one localization map per modality, combined into a fused map, with zones beside it.

US 2021/0248736 A1, FIG 2 (one network per image, several tasks) and FIG 3 (fusion of modalities);
claim 17: a localization map for each image, maps combined.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ai_core.nets.blocks import Conv, Decoder, Encoder, resize_like
from ai_core.types import Modality

#: Channels of the input tensor that belong to each modality, in order.
CHANNELS: dict[Modality, slice] = {
    Modality.T2W: slice(0, 1),
    Modality.ADC: slice(1, 2),
    Modality.HIGH_B: slice(2, 3),
    Modality.DCE: slice(3, 5),
}
MODALITIES = tuple(CHANNELS)
INPUT_CHANNELS = 5
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
#: Bias of lesion heads: lesions are rare, a network that starts at 1 % learns calmly (RetinaNet).
RARE = -4.6


@dataclass(frozen=True)
class Localization:
    """Logits. ``lesion`` (n,1,z,y,x), ``zones`` (n,3,z,y,x), ``maps`` (n,4,z,y,x; absent: RARE)."""

    lesion: Tensor
    zones: Tensor
    maps: Tensor


class ModalityNet(nn.Module):
    """Encoder-decoder of one modality with a lesion map of its own (half resolution in plane)."""

    def __init__(self, channels_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = Encoder(channels_in, widths, STRIDES[: len(widths)], "batch")
        self.decoder = Decoder(widths, "batch")
        self.map_head = nn.Conv3d(widths[0], 1, 1)
        nn.init.constant_(self.map_head.bias, RARE)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features (finest first; the finest is the decoder's) and the map logits."""
        features = self.encoder(image)
        decoded = self.decoder(features)
        return [decoded, *features[1:]], self.map_head(decoded).float()


class Localizer(nn.Module):
    """All modality networks, their fusion, and the heads at full resolution."""

    def __init__(
        self,
        modality_widths: tuple[int, ...] = (16, 32, 48),
        fusion_widths: tuple[int, ...] = (16, 32, 64),
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(
            {
                m.value: ModalityNet(span.stop - span.start, modality_widths)
                for m, span in CHANNELS.items()
            }
        )
        self.modality_widths = modality_widths
        count = len(MODALITIES)
        self.mix = nn.ModuleList(
            Conv(count * width + count, fused, (1, 1, 1))
            for width, fused in zip(modality_widths, fusion_widths, strict=True)
        )
        self.decoder = Decoder(fusion_widths, "batch")
        full = fusion_widths[0] + INPUT_CHANNELS + 2 * count
        self.refine = Conv(full, 16, (1, 3, 3))
        self.lesion_head = nn.Conv3d(16, 1, 1)
        self.zone_head = nn.Conv3d(16, 3, 1)
        nn.init.constant_(self.lesion_head.bias, RARE)  # type: ignore[arg-type]

    def forward(self, image: Tensor, present: Tensor) -> Localization:
        """Localize.

        ``image`` (n, 5, z, y, x), ``present`` (4,) of 0/1 in the order of `MODALITIES`, one for
        the whole batch: an absent modality's network is not run at all.
        """
        levels: list[list[Tensor]] = [[] for _ in self.modality_widths]
        maps: list[Tensor] = []
        first: Tensor | None = None
        for index, (modality, span) in enumerate(CHANNELS.items()):
            if not bool(present[index]):
                continue
            features, map_logits = self.nets[modality.value](image[:, span])
            first = features[0] if first is None else first
            for level, feature in zip(levels, features, strict=True):
                level.append(feature)
            maps.append(map_logits)
        return self._fuse(image, present, levels, maps)

    def _fuse(
        self, image: Tensor, present: Tensor, levels: list[list[Tensor]], maps: list[Tensor]
    ) -> Localization:
        flags = present.to(image).view(1, -1, 1, 1, 1)
        mixed = [
            mix(torch.cat([*self._spread(level, present), _expand(flags, level[0])], dim=1))
            for mix, level in zip(self.mix, levels, strict=True)
        ]
        empty = torch.full_like(maps[0], RARE)
        coarse = torch.cat(_place(maps, present, empty), dim=1)
        all_maps = resize_like(coarse, image)
        fused = F.interpolate(self.decoder(mixed), size=image.shape[-3:])
        refined = self.refine(
            torch.cat([fused, image, all_maps * 0.2, _expand(flags, image)], dim=1)
        )
        return Localization(
            self.lesion_head(refined).float(), self.zone_head(refined).float(), all_maps
        )

    @staticmethod
    def _spread(level: list[Tensor], present: Tensor) -> list[Tensor]:
        return _place(level, present, torch.zeros_like(level[0]))


def _place(parts: list[Tensor], present: Tensor, filler: Tensor) -> list[Tensor]:
    """Put the parts of present modalities at their place, ``filler`` at the others."""
    supply = iter(parts)
    return [next(supply) if bool(flag) else filler for flag in present]


def _expand(flags: Tensor, like: Tensor) -> Tensor:
    return flags.expand(like.shape[0], -1, *like.shape[-3:]).to(like.dtype)
