"""Fits and measures the model that says whether the found region is a prostate."""

from __future__ import annotations

import copy

import numpy as np
import torch
from rich.progress import track

from ai_core.config import CoreConfig
from ai_core.gland import CONSISTENCY, consistency, largest_part
from ai_core.logistic import LogisticModel
from ai_core.nets.gland import GlandFinder, both_ways
from ai_core.train.data import Batch, GlandSamples, stream
from ai_core.train.logistic_fit import fit_logistic
from ai_core.train.source import Cases

#: Largest relative disturbance of the finder's weights.
WEIGHT_NOISE = 0.3
#: A prostate taken for none is a silent loss, the opposite is caught by a reader: lean to "yes".
YES_FROM = 0.5
ABSENT = 0.5
FIGURE_CASES = 40


def fit_presence(finder: GlandFinder, source: Cases, config: CoreConfig) -> LogisticModel:
    """Fit on simulated pelves and on volumes without a prostate.

    The finder works with disturbed weights: on real images it is less sure and less consistent
    than on the images it was trained on, and that alone must not read as "no prostate".
    """
    torch.manual_seed(config.training.seed)
    samples = GlandSamples(source, config, "presence", 1, ABSENT)
    batches = stream(samples.batch, 0, config.training.workers)
    rows, answers = [], []
    for _ in track(range(config.training.presence_cases), description="presence"):
        batch = next(batches)
        amount = float(torch.rand(1)) * WEIGHT_NOISE
        rows.append(_describe(_disturbed(finder, amount), batch))
        answers.append(bool(batch["has_gland"][0] > 0.5))
    return fit_logistic(CONSISTENCY, rows, answers, YES_FROM)


def _describe(finder: GlandFinder, batch: Batch) -> dict[str, float | None]:
    image = batch["image"][0, 0].to(next(finder.parameters()).device)
    plain, mirrored = (part.cpu().numpy() for part in both_ways(finder, image))
    return consistency(plain, mirrored, largest_part((plain + mirrored) / 2 > 0.5))


@torch.no_grad()
def _disturbed(finder: GlandFinder, amount: float) -> GlandFinder:
    """Return a copy whose weights are multiplied by 1 + ``amount`` times Gaussian noise."""
    copied = copy.deepcopy(finder)
    for weight in copied.parameters():
        weight.mul_(1 + amount * torch.randn_like(weight))
    return copied


def gland_figures(
    finder: GlandFinder, presence: LogisticModel, source: Cases, config: CoreConfig
) -> dict[str, float]:
    """Dice of the finder, and how often presence is judged rightly, on held-out cases."""
    cases = min(FIGURE_CASES, config.training.calibration_cases)
    batches = stream(GlandSamples(source, config, "gland-check", 1, ABSENT).batch, 0, 0)
    dice, right = [], []
    for _ in range(cases):
        batch = next(batches)
        there = bool(batch["has_gland"][0] > 0.5)
        believed = presence.probability(_describe(finder, batch)) >= presence.yes_from
        right.append(believed == there)
        if there:
            device = next(finder.parameters()).device
            plain, mirrored = both_ways(finder, batch["image"][0, 0].to(device))
            found = ((plain + mirrored) / 2 > 0.5).cpu()
            truth = batch["zones"][0] > 0
            both = float((found & truth).sum())
            dice.append(2 * both / max(1.0, float(found.sum() + truth.sum())))
    return {
        "dice_gland": float(np.mean(dice)) if dice else float("nan"),
        "presence_right": float(np.mean(right)),
    }
