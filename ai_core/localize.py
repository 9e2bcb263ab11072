"""Runs the localizer and the classifier on prepared images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ai_core.candidates import Candidate
from ai_core.gland import largest_part
from ai_core.nets.classifier import cut_patches, stack_channels, suspicion_score
from ai_core.nets.localizer import MODALITIES, Localization
from ai_core.release import Release
from ai_core.types import FloatArray, Modality

Mask = npt.NDArray[np.bool_]
#: Random subsets of the head's units for the spread, the same in every analysis.
DROPOUT_SAMPLES = 8
DROPOUT_SEED = 20_260
#: Variants of a patch for the spread: mirrored or not, zoom of the field of view.
VARIANTS = ((False, 1.0), (True, 1.0), (False, 0.92), (True, 1.08))


@dataclass(frozen=True)
class Maps:
    """Maps 0-1 on the working grid; ``zones`` (3, z, y, x) probabilities of background, PZ, TZ.

    ``heat``: the fused map, calibrated; ``modality``: the maps of single images, as they are.

    ``features`` (c, z, y, x): the deepest fused features, coarser than the grid.
    ``raw`` holds the logits of both views (image, mirror image) for the classifier.
    """

    heat: FloatArray
    zones: FloatArray
    modality: dict[Modality, FloatArray]
    raw: Localization
    image: Tensor
    present: Tensor
    features: FloatArray

    def embedding(self, gland: Mask) -> npt.NDArray[np.float64]:
        """Mean of the deepest fused features over a gland mask: what kind of image this is."""
        factors = [n / f for n, f in zip(self.features.shape[1:], gland.shape, strict=True)]
        inside = np.argwhere(gland)
        if not len(inside):
            return np.asarray(self.features.mean(axis=(1, 2, 3)), dtype=np.float64)
        index = np.unique((inside * factors).astype(int), axis=0)
        return np.asarray(self.features[:, *index.T].mean(axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Score:
    """Classifier on one candidate: mean logit over variants of the patch, suspicion 1-5.

    ``spread``: standard deviation of the probability over variants and head dropout.
    """

    logit: float
    spread: float
    suspicion: float


@torch.inference_mode()
def localize(stack: FloatArray, present: tuple[Modality, ...], release: Release) -> Maps:
    """Return maps of a normalised input ``(5, z, y, x)``, averaged over it and its mirror."""
    flags = torch.tensor([float(m in present) for m in MODALITIES], device=release.device)
    single = torch.from_numpy(stack)[None].to(release.device)
    pair = torch.cat([single, single.flip(-1)])
    deepest: list[Tensor] = []
    hook = release.localizer.mix[-1].register_forward_hook(
        lambda _module, _inputs, output: deepest.append(output)
    )
    try:
        with release.computing():
            raw = release.localizer(pair, flags)
    finally:
        hook.remove()
    maps = _both(torch.sigmoid(raw.maps))
    by_name = {m: maps[i] for i, m in enumerate(MODALITIES) if m in present}
    zones = _both(torch.softmax(raw.zones, 1))
    calibration = release.calibration
    odds = calibration.heat_slope * raw.lesion + calibration.heat_offset
    heat = _both(torch.sigmoid(odds))[0]
    return Maps(heat, zones, by_name, raw, pair, flags, _both(deepest[0]))


def _both(values: Tensor) -> FloatArray:
    """Mean of the first view and the mirrored second one, as a NumPy array."""
    mean = (values[0] + values[1].flip(-1)) / 2
    return np.asarray(mean.float().cpu().numpy(), dtype=np.float32)


@dataclass(frozen=True)
class SecondOpinion:
    """The localizer's gland: mask, Dice with the finder's, mean probability inside it."""

    gland: Mask
    agreement: float
    sureness: float


def second_opinion(maps: Maps, found: Mask) -> SecondOpinion:
    """Compare the localizer's gland with the finder's, ``found``, on the working grid."""
    probability = 1 - maps.zones[0]
    gland = largest_part(probability > 0.5)
    total = float(gland.sum() + found.sum())
    agreement = 2.0 * float((gland & found).sum()) / max(1.0, total)
    sureness = float(probability[gland].mean()) if gland.any() else 0.0
    return SecondOpinion(gland, agreement, sureness)


def zones_in(gland: Mask, maps: Maps) -> npt.NDArray[np.uint8]:
    """Zones of a gland: 1 PZ, 2 TZ, whichever is more probable; 0 outside."""
    zones = np.where(maps.zones[1] >= maps.zones[2], 1, 2).astype(np.uint8)
    return np.where(gland, zones, 0).astype(np.uint8)


@torch.inference_mode()
def classify(candidates: list[Candidate], maps: Maps, release: Release) -> list[Score]:
    """Score all candidates, each in several variants, in one batch."""
    if not candidates:
        return []
    rules = release.config.patches
    shape = rules.shape_zyx
    stack = stack_channels(maps.image, maps.raw, rules.maps)[:1]
    centers = torch.tensor([c.peak_zyx for c in candidates], dtype=torch.float32)
    fine = [cut_patches(stack, centers, shape, zoom, flip) for flip, zoom in VARIANTS]
    coarse = [cut_patches(stack, centers, shape, 2 * zoom, flip) for flip, zoom in VARIANTS]
    classifier = release.classifier
    with release.computing():
        pooled = classifier.pooled(torch.cat(fine), torch.cat(coarse), maps.present)
    hidden = classifier.hidden(pooled)
    logits, corn = classifier.significance(hidden).squeeze(1), classifier.suspicion(hidden)
    by_variant = logits.view(len(VARIANTS), -1)
    sampled = classifier.dropout_logits(pooled, DROPOUT_SAMPLES, DROPOUT_SEED)
    spread = torch.sigmoid(sampled.view(DROPOUT_SAMPLES * len(VARIANTS), -1)).std(0)
    suspicion = suspicion_score(corn).view(len(VARIANTS), -1).mean(0)
    rows = zip(by_variant.mean(0).tolist(), spread.tolist(), suspicion.tolist(), strict=True)
    return [Score(*row) for row in rows]
