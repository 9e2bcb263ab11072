"""What is known of a site's images from unlabelled studies: a file of its releases.

Landmarks bring the intensities of the site to those that the networks were trained on (Nyul and
Udupa 1999, on intensities that are already relative to the gland); the statistics of quality say
what is usual there. NumPy alone: it is applied in preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ai_core.types import FloatArray

#: ADC is a physical quantity: a larger difference between scanners is no habit but a fault.
ADC_LIMITS = (0.85, 1.15)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Landmarks(_Part):
    """Matching values of the site and of the training, in rising order; empty: the same."""

    site: tuple[float, ...] = ()
    training: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if len(self.site) != len(self.training) or len(self.site) == 1:
            raise ValueError("landmarks come in pairs, two or more")
        for values in (self.site, self.training):
            if not all(a < b for a, b in pairwise(values)):
                raise ValueError("landmarks must rise")
        return self

    def apply(self, values: FloatArray) -> FloatArray:
        """Map values piece by piece in straight lines; outside the landmarks by a shift."""
        if not self.site:
            return values
        inside = np.interp(values, self.site, self.training)
        below = np.minimum(values - self.site[0], 0.0)
        above = np.maximum(values - self.site[-1], 0.0)
        return np.asarray(inside + below + above, dtype=np.float32)


class Usual(_Part):
    """Distribution of a measure of input quality over the site's studies."""

    p05: float
    median: float
    p95: float
    studies: int = Field(ge=1)


class SiteProfile(_Part):
    """Fitted on ``studies`` unlabelled studies of one site.

    ``t2w``: of the T2W relative to the gland (z), ``high_b``: of the high b relative to the
    gland's median. ``adc_scale``: factor to the ADC. ``norm_blend``: the site's share of the
    networks' normalisation statistics (they stand in the weights).
    """

    studies: int = Field(ge=1)
    t2w: Landmarks = Landmarks()
    high_b: Landmarks = Landmarks()
    adc_scale: Annotated[float, Field(ge=ADC_LIMITS[0], le=ADC_LIMITS[1])] = 1.0
    norm_blend: Annotated[float, Field(ge=0, le=1)] = 0.0
    quality: Mapping[str, Usual] = {}
