"""Auditable models: a logistic function of named features, kept as JSON in the release.

Two judgements are made this way: whether a candidate is clinically significant (claim 14), and
whether the region that the gland finder outlined is a prostate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ai_core.calibration import sigmoid

STANDARDISED_LIMIT = 4.0


class LogisticModel(BaseModel):
    """Probability of "yes": sigmoid of a weighted sum of z-scored features.

    A feature that is not there (its modality is missing) counts as its mean. ``yes_from`` is the
    probability from which the answer is yes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[str, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    weight: tuple[float, ...]
    intercept: float
    yes_from: Annotated[float, Field(ge=0, le=1)] = 0.5

    def contributions(self, values: Mapping[str, float | None]) -> dict[str, float]:
        """Return what each feature adds to the log-odds: the explanation of the answer."""
        result = {}
        rows = zip(self.features, self.mean, self.spread, self.weight, strict=True)
        for name, mean, spread, weight in rows:
            value = values.get(name)
            z = 0.0 if value is None else (value - mean) / spread
            result[name] = weight * min(max(z, -STANDARDISED_LIMIT), STANDARDISED_LIMIT)
        return result

    def probability(self, values: Mapping[str, float | None]) -> float:
        """Probability 0-1 of "yes"."""
        return sigmoid(sum(self.contributions(values).values()) + self.intercept)
