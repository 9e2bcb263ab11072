"""Fits the auditable logistic models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from ai_core.logistic import STANDARDISED_LIMIT, LogisticModel

Vector = npt.NDArray[np.float64]
STRENGTH = 0.3  # inverse regularisation


def fit_logistic(
    features: tuple[str, ...],
    rows: Sequence[Mapping[str, float | None]],
    answers: Sequence[bool],
    yes_from: float | None = None,
) -> LogisticModel:
    """Fit on standardised features; missing ones count as the mean.

    ``yes_from``: the threshold; None chooses the one with the largest Youden index.
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
        model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(z, labels)
        weight, intercept = model.coef_[0], float(model.intercept_[0])
        threshold = _youden(model.predict_proba(z)[:, 1], labels)
    return LogisticModel(
        features=features,
        mean=tuple(np.round(mean, 6).tolist()),
        spread=tuple(np.round(spread, 6).tolist()),
        weight=tuple(np.round(weight, 6).tolist()),
        intercept=round(intercept, 6),
        yes_from=threshold if yes_from is None else yes_from,
    )


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
