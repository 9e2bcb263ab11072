"""Losses of the training phases (MONAI where it has them)."""

from __future__ import annotations

import torch
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor
from torch.nn import functional as F

from ai_core.nets.localizer import Localization

_FOCAL = FocalLoss(gamma=2.0, alpha=0.75)
_TVERSKY = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=True, smooth_nr=1.0, smooth_dr=1.0)
_DICE = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True)
#: The focal term of rare voxels is tiny; this brings it to the size of the Tversky term.
FOCAL_WEIGHT = 20.0
ZONE_WEIGHT = 0.4
MAP_WEIGHT = 0.3


def zone_loss(logits: Tensor, zones: Tensor) -> Tensor:
    """Cross-entropy + Dice of PZ and TZ + Dice of their union. ``zones`` (n, z, y, x) of 0/1/2."""
    probability = torch.softmax(logits, dim=1)
    truth = F.one_hot(zones, 3).movedim(-1, 1).float()
    cross_entropy = F.cross_entropy(logits, zones)
    by_zone = _DICE(probability[:, 1:], truth[:, 1:])
    whole = _DICE(1 - probability[:, :1], 1 - truth[:, :1])
    total: Tensor = cross_entropy + by_zone + whole
    return total


def lesion_loss(logits: Tensor, lesion: Tensor) -> Tensor:
    """Focal + Tversky against a mask of the same shape."""
    total: Tensor = FOCAL_WEIGHT * _FOCAL(logits, lesion) + _TVERSKY(logits, lesion)
    return total


def localization_loss(
    result: Localization, lesion: Tensor, zones: Tensor, present: Tensor
) -> Tensor:
    """Fused map, zones, and the map of each modality that is there."""
    loss = lesion_loss(result.lesion, lesion) + ZONE_WEIGHT * zone_loss(result.zones, zones)
    used = [index for index, flag in enumerate(present) if bool(flag)]
    for index in used:
        single = lesion_loss(result.maps[:, index : index + 1], lesion)
        loss = loss + MAP_WEIGHT / len(used) * 2 * single
    return loss
