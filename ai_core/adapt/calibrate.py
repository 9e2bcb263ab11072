"""Stage (c), first part: calibration and operating point from a few annotated cases.

The log-odds of the parent get a slope and an offset (Platt) with a prior around "as the parent";
how far they may move is chosen by cross-validation over cases, where "not at all" is a choice.
Among choices that cannot be told apart (one standard error) the smallest move wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from ai_core.adapt.plan import CalibrationPlan
from ai_core.calibration import Calibration, logit, sigmoid
from ai_core.logistic import LogisticModel
from ai_core.train.fit import FALSE_POSITIVES_PER_CASE, HeldOut

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Odds:
    """Candidates: log-odds under a calibration, truth, weight by prevalence, number of the case."""

    value: Floats
    positive: Bools
    weight: Floats
    case: npt.NDArray[np.int64]

    def of(self, chosen: Bools) -> Odds:
        """Return some of them."""
        return Odds(
            self.value[chosen], self.positive[chosen], self.weight[chosen], self.case[chosen]
        )


def odds_of(held_out: HeldOut, calibration: Calibration, significance: LogisticModel) -> Odds:
    """Score candidates; cases with and without cancer count at the prevalence in use."""
    cases = held_out.significant
    share = float(np.mean([count > 0 for count in cases.values()])) if cases else 0.0
    share = min(max(share, 1e-3), 1 - 1e-3)
    up, down = held_out.prevalence / share, (1 - held_out.prevalence) / (1 - share)
    rows = held_out.rows
    scores = [
        calibration.likelihood(r.heat, r.logit, significance.probability(r.features)) for r in rows
    ]
    return Odds(
        np.array([logit(score) for score in scores], dtype=np.float64),
        np.array([row.significant for row in rows], dtype=bool),
        np.array([up if cases[row.case] else down for row in rows], dtype=np.float64),
        np.array([row.case for row in rows], dtype=np.int64),
    )


def refit(
    held_out: HeldOut, parent: Calibration, significance: LogisticModel, plan: CalibrationPlan
) -> Calibration:
    """Return the calibration of the site; that of the parent where the cases say too little."""
    odds = odds_of(held_out, parent, significance)
    count = len(held_out.significant)
    if odds.positive.all() or not odds.positive.any():
        return parent
    slope, offset = shrunken_platt(odds, plan)
    threshold = slope * logit(parent.report_from) + offset
    own = _threshold(slope * odds.value[~odds.positive] + offset, count)
    trust = count / (count + plan.prior_cases)
    report_from = sigmoid((1 - trust) * threshold + trust * own)
    case = _case_line(held_out, odds, parent, plan)
    return parent.model_copy(
        update={
            # What is said of a case is a line over the candidates' log-odds, which moved.
            "case_slope": case[0] / slope,
            "case_offset": case[1] - case[0] * offset / slope,
            "map_weight": parent.map_weight * slope,
            "classifier_weight": parent.classifier_weight * slope,
            "feature_weight": parent.feature_weight * slope,
            "intercept": parent.intercept * slope + offset,
            "report_from": round(report_from, 4),
            **_counts(held_out, parent, plan),
        }
    )


def _case_line(
    held_out: HeldOut, odds: Odds, parent: Calibration, plan: CalibrationPlan
) -> tuple[float, float]:
    """Slope and offset from the parent's highest candidate to what is said of the case."""
    cases = [case for case in held_out.significant if (odds.case == case).any()]
    places = [odds.case == case for case in cases]
    stated = Odds(
        np.array([parent.case_slope * odds.value[p].max() + parent.case_offset for p in places]),
        np.array([held_out.significant[case] > 0 for case in cases], dtype=bool),
        np.array([odds.weight[p][0] for p in places]),
        np.array(cases, dtype=np.int64),
    )
    slope, offset = shrunken_platt(stated, plan)
    return parent.case_slope * slope, parent.case_offset * slope + offset


def _counts(held_out: HeldOut, parent: Calibration, plan: CalibrationPlan) -> dict[str, int]:
    count = len(held_out.significant)
    if not held_out.real:
        return {"simulated_cases": parent.simulated_cases + count}
    positive = sum(number > 0 for number in held_out.significant.values())
    return {"real_cases": parent.real_cases + count} if positive >= plan.enough_positive else {}


def _threshold(wrong: Floats, cases: int) -> float:
    """Log-odds that two false candidates a case stay above."""
    allowed = int(FALSE_POSITIVES_PER_CASE * cases)
    ordered = np.sort(wrong)[::-1]
    return float(ordered[min(allowed, len(ordered) - 1)])


def shrunken_platt(odds: Odds, plan: CalibrationPlan) -> tuple[float, float]:
    """Slope and offset to log-odds; (1, 0): as they are."""
    cases = np.unique(odds.case)
    folds = min(plan.folds, len(cases))
    if folds < 2:
        return 1.0, 0.0
    fold = {int(case): index % folds for index, case in enumerate(cases)}
    which = np.array([fold[int(case)] for case in odds.case])
    losses = {0.0: _case_losses(odds, cases, np.ones(folds), np.zeros(folds), which)}
    for spread in plan.spreads:
        fits = [_fit(odds.of(which != f), spread) for f in range(folds)]
        slopes, offsets = np.array([a for a, _ in fits]), np.array([b for _, b in fits])
        losses[spread] = _case_losses(odds, cases, slopes, offsets, which)
    best = min(losses, key=lambda spread: float(losses[spread].mean()))
    for spread in sorted(losses):
        gain = losses[spread] - losses[best]
        error = float(gain.std(ddof=1)) / len(cases) ** 0.5
        if float(gain.mean()) <= error:
            return _fit(odds, spread) if spread > 0 else (1.0, 0.0)
    return _fit(odds, best)


def _case_losses(
    odds: Odds, cases: npt.NDArray[np.int64], slopes: Floats, offsets: Floats,
    fold: npt.NDArray[np.int64],
) -> Floats:  # fmt: skip
    """Weighted log loss of each case, scored by the fit that did not see it."""
    value = slopes[fold] * odds.value + offsets[fold]
    loss = odds.weight * (np.logaddexp(0, value) - odds.positive * value)
    return np.array([float(loss[odds.case == case].sum()) for case in cases])


def _fit(odds: Odds, spread: float) -> tuple[float, float]:
    target = odds.positive.astype(np.float64)

    def loss(at: Floats) -> tuple[float, Floats]:
        slope, offset = float(np.exp(at[0])), float(at[1])
        value = slope * odds.value + offset
        error = odds.weight * (expit(value) - target)
        total = float((odds.weight * (np.logaddexp(0, value) - target * value)).sum())
        # The offset may move by twice as many log-odds as the logarithm of the slope.
        total += 0.5 * (at[0] ** 2 + (offset / 2) ** 2) / spread**2
        gradient = np.array([float((error * odds.value).sum()) * slope, float(error.sum())])
        return total, gradient + np.array([at[0], offset / 4]) / spread**2

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B")
    return float(np.exp(found.x[0])), float(found.x[1])
