"""The losses of the phases, as functions of a batch.

Claim 12: localization alone first; then classification on the frozen localizer's maps; then both
jointly, end to end, at a low rate (the gradient of the classification reaches the maps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ai_core.candidates import Candidate, extract_candidates
from ai_core.config import CoreConfig
from ai_core.nets.classifier import Classifier, corn_loss, cut_patches, stack_channels
from ai_core.nets.gland import GlandFinder
from ai_core.nets.localizer import Localization, Localizer
from ai_core.train.losses import localization_loss, zone_loss
from ai_core.train.matching import Match, Truth, match
from ai_core.types import FloatArray

Batch = dict[str, Tensor]
Result = tuple[Tensor, dict[str, float]]
JITTER_VOXELS = (0.7, 2.0, 2.0)
SUSPICION_WEIGHT = 0.5


class JointModel(nn.Module):
    """Localizer and classifier as one network (claims 11, 16: jointly trained)."""

    def __init__(self, localizer: Localizer, classifier: Classifier, freeze: bool) -> None:
        super().__init__()
        self.localizer, self.classifier, self.freeze = localizer, classifier, freeze
        self.localizer.requires_grad_(not freeze)

    def train(self, mode: bool = True) -> JointModel:
        """Training mode; a frozen localizer stays as in use."""
        super().train(mode)
        if self.freeze:
            self.localizer.eval()
        return self


def gland_step(network: nn.Module, batch: Batch) -> Result:
    """Phase 0: gland and zones."""
    assert isinstance(network, GlandFinder)  # noqa: S101 - narrows the type
    logits = network(batch["image"])
    with torch.no_grad():
        found, truth = logits.argmax(1) > 0, batch["zones"] > 0
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum()).clamp(min=1)
    return zone_loss(logits, batch["zones"]), {"dice": float(dice)}


def localize_step(network: nn.Module, batch: Batch) -> Result:
    """Phase 1: maps and zones."""
    assert isinstance(network, Localizer)  # noqa: S101 - narrows the type
    result = network(batch["image"], batch["present"])
    loss = localization_loss(result, batch["lesion"], batch["zones"], batch["present"])
    return loss, {"hit": _peak_hits(result, batch)}


def _peak_hits(result: Localization, batch: Batch) -> float:
    """Share of positive images whose highest value lies in a significant lesion (else NaN)."""
    heat = result.lesion.detach().flatten(1)
    lesion = batch["lesion"].flatten(1)
    positive = lesion.any(1)
    if not bool(positive.any()):
        return float("nan")
    inside = lesion.gather(1, heat.argmax(1, keepdim=True)).squeeze(1)
    return float(inside[positive].mean())


@dataclass(frozen=True)
class ClassifyStep:
    """Phases 2 and 3: candidates of the localizer, then patches, then the two heads."""

    config: CoreConfig
    joint: bool

    def __call__(self, network: nn.Module, batch: Batch) -> Result:
        """Loss of a batch; with ``joint`` the localization loss is added and gradients reach it."""
        assert isinstance(network, JointModel)  # noqa: S101 - narrows the type
        with torch.set_grad_enabled(self.joint):
            result = network.localizer(batch["image"], batch["present"])
        loss, values = self._classification(network.classifier, batch, result)
        if self.joint:
            loss = loss + localization_loss(
                result, batch["lesion"], batch["zones"], batch["present"]
            )
            values["hit"] = _peak_hits(result, batch)
        return loss, values

    def _classification(self, classifier: Classifier, batch: Batch, result: Localization) -> Result:
        stack = stack_channels(batch["image"], result, self.config.patches.maps)
        fine, coarse, matches = [], [], []
        for index in range(stack.shape[0]):
            found, labels = self._places(batch, result, index)
            flip = bool(torch.rand(1) < 0.5)
            one, shape = stack[index : index + 1], self.config.patches.shape_zyx
            fine.append(cut_patches(one, found, shape, 1.0, flip))
            coarse.append(cut_patches(one, found, shape, 2.0, flip))
            matches += labels
        logits, corn = classifier(torch.cat(fine), torch.cat(coarse), batch["present"])
        device = logits.device
        target = torch.tensor([float(m.significant) for m in matches], device=device)
        scores = torch.tensor([m.score for m in matches], device=device)
        significance = F.binary_cross_entropy_with_logits(logits, target)
        right = ((logits > 0) == (target > 0.5)).float().mean()
        return (
            significance + SUSPICION_WEIGHT * corn_loss(corn, scores),
            {"right": float(right), "positive": float(target.mean())},
        )

    def _places(self, batch: Batch, result: Localization, index: int) -> tuple[Tensor, list[Match]]:
        truth = truth_of(batch, index)
        heat = torch.sigmoid(result.lesion[index, 0].detach()).cpu().numpy()
        gland = (batch["zones"][index] > 0).cpu().numpy()
        found = found_places(heat, gland, self.config)
        centers = [list(c.peak_zyx) for c in found]
        labels = [match(c, truth) for c in found]
        for number in set(truth.isup) - {m.lesion for m in labels}:
            centers.append(_center_of(truth, number))
            labels.append(Match(truth.isup[number] >= 2, truth.pirads[number], number))
        if not centers:
            shape = truth.instances.shape
            centers, labels = [[n // 2 for n in shape]], [Match(False, 1, 0)]
        jitter = (torch.rand(len(centers), 3) * 2 - 1) * torch.tensor(JITTER_VOXELS)
        return torch.tensor(centers, dtype=torch.float32) + jitter, labels


def truth_of(batch: Batch, index: int) -> Truth:
    """Return what was simulated in one image of a batch."""
    instances = batch["instances"][index].cpu().numpy()
    numbers = [int(n) for n in np.unique(instances) if n > 0]
    isup, pirads = batch["isup"][index], batch["pirads"][index]
    return Truth(
        instances,
        {n: int(isup[n]) for n in numbers if n < len(isup)},
        {n: max(1, int(pirads[n])) for n in numbers if n < len(isup)},
    )


def found_places(
    heat: FloatArray, gland: npt.NDArray[np.bool_], config: CoreConfig
) -> list[Candidate]:
    """Candidates of a map, in a known gland, as in use."""
    spacing = config.lesion_grid.spacing_zyx_mm
    return extract_candidates(heat, gland, spacing, config.candidates)


def _center_of(truth: Truth, number: int) -> list[int]:
    places = np.argwhere(truth.instances == number)
    middle = places.mean(0)
    nearest = int(((places - middle) ** 2).sum(1).argmin())
    return [int(v) for v in places[nearest]]
