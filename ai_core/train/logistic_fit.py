"""Fits the auditable logistic models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from ai_core.logistic import STANDARDISED_LIMIT, LogisticModel

Vector = npt.NDArray[np.float64]
STRENGTH = 0.3  # inverse regularisation


def fit_logistic(
    features: tuple[str, ...],
    rows: Sequence[Mapping[str, float | None]],
    answers: Sequence[bool],
    yes_from: float | None = None,
    direction: Mapping[str, int] | None = None,
) -> LogisticModel:
    """Fit on standardised features; missing ones count as the mean.

    ``yes_from``: the threshold; None chooses the one with the largest Youden index.
    ``direction``: features whose weight may only be positive (1) or negative (-1).
    """
    count = len(features)
    table = np.array(
        [[np.nan if (v := row[name]) is None else v for name in features] for row in rows]
    ).reshape(-1, count)
    labels = np.array(answers, dtype=bool)
    mean, spread = _moments(table)
    weight, intercept, threshold = np.zeros(count), 0.0, 0.5
    if len(set(labels.tolist())) == 2:
        z = np.nan_to_num((table - mean) / spread).clip(-STANDARDISED_LIMIT, STANDARDISED_LIMIT)
        signs = [(direction or {}).get(name, 0) for name in features]
        weight, intercept = bounded_logistic(z, labels, signs)
        threshold = _youden(expit(z @ weight + intercept), labels)
    return LogisticModel(
        features=features,
        mean=tuple(np.round(mean, 6).tolist()),
        spread=tuple(np.round(spread, 6).tolist()),
        weight=tuple(np.round(weight, 6).tolist()),
        intercept=round(intercept, 6),
        yes_from=threshold if yes_from is None else yes_from,
    )


def bounded_logistic(
    inputs: Vector,
    labels: npt.NDArray[np.bool_],
    signs: Sequence[int],
    case_weight: Vector | None = None,
) -> tuple[Vector, float]:
    """Logistic regression (L2) whose weights keep to given signs; returns weights and intercept.

    A weight against what is known of the disease (a darker ADC made less suspicious) comes from
    features that go together; it fits the sample, reads as nonsense and does not carry over.

    Args:
        inputs: ``(n, features)``.
        labels: ``(n,)``.
        signs: of each feature: 1, -1, or 0 where both are allowed.
        case_weight: ``(n,)``, of each row.
    """
    weights = np.ones(len(labels)) if case_weight is None else case_weight
    target = labels.astype(np.float64)

    def loss(parameters: Vector) -> tuple[float, Vector]:
        score = inputs @ parameters[:-1] + parameters[-1]
        value = float((weights * (np.logaddexp(0, score) - target * score)).sum())
        value += 0.5 / STRENGTH * float((parameters[:-1] ** 2).sum())
        error = weights * (expit(score) - target)
        slope = np.append(inputs.T @ error + parameters[:-1] / STRENGTH, error.sum())
        return value, slope

    limits = [(0.0 if sign > 0 else None, 0.0 if sign < 0 else None) for sign in signs]
    found = minimize(
        loss,
        np.zeros(inputs.shape[1] + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[*limits, (None, None)],
    )
    return found.x[:-1], float(found.x[-1])


def _moments(table: Vector) -> tuple[Vector, Vector]:
    """Return mean and spread of each column, over the values there are."""
    known = np.isfinite(table)
    number = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, table, 0.0).sum(axis=0) / number
    variance = np.where(known, (table - mean) ** 2, 0.0).sum(axis=0) / number
    spread = np.sqrt(variance)
    return mean, np.where(spread > 1e-6, spread, 1.0)


def _youden(probability: Vector, labels: npt.NDArray[np.bool_]) -> float:
    def index(threshold: float) -> float:
        chosen = probability >= threshold
        return float(chosen[labels].mean() - chosen[~labels].mean())

    thresholds = [step / 100 for step in range(5, 96)]
    return max(thresholds, key=index)
