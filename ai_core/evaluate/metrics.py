"""Detection and calibration figures, weighted by case so that a bootstrap only changes weights.

Lesion rows hold candidates and, with score 0, lesions that no candidate hits, as picai_eval does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Rows:
    """Scores with labels; ``case`` is the index of each row's case. Sorted on first use."""

    case: Ints
    positive: Bools
    score: Floats

    @cached_property
    def _order(self) -> Ints:
        return np.argsort(-self.score, kind="stable").astype(np.int64)

    @cached_property
    def _ends(self) -> Ints:
        """Index of the last row of each run of equal scores, highest score first."""
        scores = self.score[self._order]
        change = np.flatnonzero(np.diff(scores) != 0)
        return np.append(change, len(scores) - 1).astype(np.int64)

    @cached_property
    def thresholds(self) -> Floats:
        """Distinct scores, highest first."""
        return self.score[self._order][self._ends] if len(self.score) else np.zeros(0)

    def counts(self, weight: Floats) -> tuple[Floats, Floats]:
        """Return true and false positives at each of `thresholds`; ``weight`` by case."""
        if not len(self.score):
            return np.zeros(0), np.zeros(0)
        w = weight[self.case[self._order]]
        right = np.where(self.positive[self._order], w, 0.0)
        return np.cumsum(right)[self._ends], np.cumsum(w - right)[self._ends]


def auroc(rows: Rows, weight: Floats) -> float:
    """Area under the ROC curve; ties count one half. NaN where one class is absent."""
    right, wrong = rows.counts(weight)
    if not len(right) or right[-1] == 0 or wrong[-1] == 0:
        return float("nan")
    tpr = np.concatenate([[0.0], right / right[-1]])
    fpr = np.concatenate([[0.0], wrong / wrong[-1]])
    return float(np.trapezoid(tpr, fpr))


def average_precision(rows: Rows, weight: Floats) -> float:
    """Area under the precision-recall steps; rows with score 0 count as never found."""
    right, wrong = rows.counts(weight)
    if not len(right) or right[-1] == 0:
        return float("nan")
    found = rows.thresholds > 0
    precision = np.where(found, right / np.maximum(right + wrong, 1e-12), 0.0)
    gained = np.diff(np.concatenate([[0.0], right])) / right[-1]
    return float((precision * gained).sum())


def froc(rows: Rows, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Return false positives per case, lesion sensitivity, and threshold, from high to low."""
    right, wrong = rows.counts(weight)
    total = right[-1] if len(right) else 0.0
    found = rows.thresholds > 0
    per_case = wrong[found] / max(float(weight.sum()), 1e-12)
    share = right[found] / total if total > 0 else np.full(int(found.sum()), np.nan)
    return per_case, share, rows.thresholds[found]


def sensitivity_at(rows: Rows, weight: Floats, false_per_case: float) -> float:
    """Largest lesion sensitivity with at most so many false positives per case."""
    per_case, share, _ = froc(rows, weight)
    allowed = per_case <= false_per_case
    right, _ = rows.counts(weight)
    if not len(right) or right[-1] == 0:
        return float("nan")
    return float(share[allowed][-1]) if allowed.any() else 0.0


def threshold_at(rows: Rows, weight: Floats, false_per_case: float) -> float:
    """Lowest threshold with at most so many false positives per case; infinite where none."""
    per_case, _, thresholds = froc(rows, weight)
    allowed = per_case <= false_per_case
    return float(thresholds[allowed][-1]) if allowed.any() else float("inf")


def brier(rows: Rows, weight: Floats) -> float:
    """Mean squared difference of score and outcome."""
    w = weight[rows.case]
    if w.sum() == 0:
        return float("nan")
    return float((w * (rows.score - rows.positive) ** 2).sum() / w.sum())


def reliability(rows: Rows, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean score, share of positives and weight in ten equal bins of the score; empty ones out."""
    w = weight[rows.case]
    bins = np.minimum((rows.score * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    mass: Floats = np.bincount(bins, w, CALIBRATION_BINS).astype(np.float64)
    used = mass > 0
    mean = np.asarray(np.bincount(bins, w * rows.score, CALIBRATION_BINS)[used] / mass[used])
    share = np.bincount(bins, w * rows.positive, CALIBRATION_BINS)[used] / mass[used]
    return mean, share, mass[used]


def calibration_error(rows: Rows, weight: Floats) -> float:
    """Return the expected calibration error: mean distance of score and outcome over the bins."""
    mean, share, mass = reliability(rows, weight)
    if not mass.size:
        return float("nan")
    return float((mass * np.abs(mean - share)).sum() / mass.sum())


def resampled_weights(cases: int, repeats: int, seed: int) -> Floats:
    """Case counts of bootstrap samples, ``(repeats, cases)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(cases, np.full(cases, 1.0 / cases), size=repeats).astype(np.float64)


def interval(values: Floats) -> tuple[float, float]:
    """95 % percentile interval of bootstrap values; NaN where none is a number."""
    numbers = values[np.isfinite(values)]
    if not numbers.size:
        return (float("nan"), float("nan"))
    low, high = np.percentile(numbers, (2.5, 97.5))
    return (float(low), float(high))
