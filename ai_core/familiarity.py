"""How far an examination lies from those that the networks were trained on.

Mahalanobis distance of the localizer's deepest features, averaged over the gland (Lee et al. 2018).
Its statistics are fitted on held-out cases when a release is made, and stored in the release.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Vector = npt.NDArray[np.float64]
#: Share of familiar cases that score below 1.
FAMILIAR_SHARE = 0.99
MINIMUM_CASES = 20


class Familiarity(BaseModel):
    """Mean and inverse covariance of embeddings; ``limit``: distance that 99 % stay below."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float
    cases: int

    def score(self, embedding: Vector) -> float:
        """Return the distance in units of the limit: above 1 is unlike training."""
        return _distance(embedding, np.array(self.mean), np.array(self.precision)) / self.limit


def fit_familiarity(embeddings: Sequence[Vector]) -> Familiarity | None:
    """Fit mean and (shrunk) covariance; None for fewer than `MINIMUM_CASES` cases.

    The limit is taken on cases that did not fit the covariance: on its own cases any fit is kind.
    """
    from sklearn.covariance import LedoitWolf

    if len(embeddings) < MINIMUM_CASES:
        return None
    rows = np.stack(embeddings)
    half = LedoitWolf().fit(rows[::2])
    unseen = [_distance(row, half.location_, half.precision_) for row in rows[1::2]]
    whole = LedoitWolf().fit(rows)
    return Familiarity(
        mean=tuple(float(v) for v in whole.location_),
        precision=tuple(tuple(float(v) for v in row) for row in whole.precision_),
        limit=max(float(np.quantile(unseen, FAMILIAR_SHARE)), 1e-6),
        cases=len(rows),
    )


def _distance(embedding: Vector, mean: Vector, precision: npt.NDArray[np.float64]) -> float:
    difference = embedding - mean
    return float(max(float(difference @ precision @ difference), 0.0) ** 0.5)
