"""What a release in the shadow says of a study, beside the active one. Nothing of it is sent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_core import analyse
from ai_core.types import Case, CaseResult
from dicom_node.domain.agreement import FindingSummary, Pair, Summary

Mask = npt.NDArray[np.bool_]


def beside(case: Case, active: CaseResult, release: Any) -> dict[str, Any]:
    """Analyse a case with another release; returns the `Pair` as plain values.

    Raises:
        CoreError: the release cannot analyse it.
    """
    other: CaseResult = analyse(case, release)
    pair = Pair(
        summary_of(active),
        summary_of(other),
        dice(active.gland_mask > 0, other.gland_mask > 0),
        dice(active.lesions > 0, other.lesions > 0),
    )
    return asdict(pair)


def summary_of(result: CaseResult) -> Summary:
    """Return what is kept of a result; it names no patient and no place in the file system."""
    findings = tuple(
        FindingSummary(
            one.center_lps_mm, one.likelihood, one.volume_ml, one.significant,
            one.suspicion_score, one.sector,
        )
        for one in result.findings
    )  # fmt: skip
    seconds = sum(result.timings_s.values())
    return Summary(
        result.case_likelihood, result.case_significant, result.gland.volume_ml, seconds, findings
    )


def dice(one: Mask, other: Mask) -> float | None:
    """Return the Dice coefficient (0-1) of two masks ``[z, y, x]``; None where both are empty."""
    size = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / size if size else None
