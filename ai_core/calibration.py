"""From network outputs to the likelihood of a finding.

Three log-odds are combined by a logistic model fitted on held-out cases: of the fused map, of the
classifier, and of the feature model. ``real_cases`` counts real examinations among them: while it
is 0, the likelihood is an AI suspicion index and not a probability.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LOGIT_LIMIT = 12.0


class Calibration(BaseModel):
    """Weights of the combination, and the likelihood from which a candidate is reported.

    ``heat_slope`` and ``heat_offset`` bring the logit of the fused map to the log-odds of a voxel
    to lie in significant cancer (Platt); the losses that find small lesions leave it too sure.
    ``case_slope`` and ``case_offset`` do the same from the most likely candidate to the case:
    a case holds cancer more often than any one of its candidates is cancer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heat_slope: Annotated[float, Field(gt=0)] = 1.0
    heat_offset: float = 0.0
    map_weight: float = 0.5
    classifier_weight: float = 0.5
    feature_weight: float = 0.0
    intercept: float = 0.0
    case_slope: Annotated[float, Field(gt=0)] = 1.0
    case_offset: float = 0.0
    report_from: Annotated[float, Field(ge=0, le=1)] = 0.05
    simulated_cases: int = 0
    real_cases: int = 0

    def likelihood(self, heat: float, classifier_logit: float, significance: float) -> float:
        """Likelihood 0-1 of a candidate: map peak (0-1), classifier logit, feature model (0-1)."""
        combined = (
            self.map_weight * logit(heat)
            + self.classifier_weight * classifier_logit
            + self.feature_weight * logit(significance)
            + self.intercept
        )
        return sigmoid(combined)

    def case_likelihood(self, highest: float) -> float:
        """Likelihood 0-1 of significant cancer in the case, from its most likely candidate's."""
        return sigmoid(self.case_slope * logit(highest) + self.case_offset)


def logit(probability: float) -> float:
    """Log-odds, limited to +-12."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return min(max(math.log(p / (1 - p)), -LOGIT_LIMIT), LOGIT_LIMIT)


def sigmoid(value: float) -> float:
    """Logistic function, safe for large arguments."""
    bounded = min(max(value, -LOGIT_LIMIT * 4), LOGIT_LIMIT * 4)
    return 1.0 / (1.0 + math.exp(-bounded))
