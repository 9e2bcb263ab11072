"""Numbers fitted on held-out candidates."""

from __future__ import annotations

import numpy as np
import pytest

from ai_core.calibration import Calibration, sigmoid
from ai_core.features import FEATURES
from ai_core.train.fit import HeldOut, Row, fit_calibration

CANDIDATES = 4


def _held_out(cases: int, seed: int) -> HeldOut:
    """Candidates whose classifier logit is their true log-odds; a case holds those that came so."""
    rng = np.random.default_rng(seed)
    result = HeldOut()
    for case in range(cases):
        logits = rng.normal(-2.0, 1.5, CANDIDATES)
        true = rng.random(CANDIDATES) < 1 / (1 + np.exp(-logits))
        for number, (value, significant) in enumerate(zip(logits, true, strict=True), start=1):
            blank = dict.fromkeys(FEATURES, 0.0)
            lesion = number if significant else 0
            result.rows.append(Row(case, 0.5, float(value), blank, bool(significant), lesion))
        result.significant[case] = int(true.sum())
    result.prevalence = float(np.mean([count > 0 for count in result.significant.values()]))
    return result


def _stated(held_out: HeldOut, calibration: Calibration) -> dict[int, float]:
    highest: dict[int, float] = {}
    for row in held_out.rows:
        value = calibration.likelihood(row.heat, row.logit, 0.5)
        highest[row.case] = max(highest.get(row.case, 0.0), value)
    return {case: calibration.case_likelihood(value) for case, value in highest.items()}


def test_the_case_is_calibrated_beside_its_candidates() -> None:
    calibration = fit_calibration(_held_out(2000, 1))
    unseen = _held_out(2000, 2)
    stated = _stated(unseen, calibration)
    for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 1.0)):
        chosen = [case for case, value in stated.items() if low <= value < high]
        happened = float(np.mean([unseen.significant[case] > 0 for case in chosen]))
        assert happened == pytest.approx(np.mean([stated[case] for case in chosen]), abs=0.06)
    # the highest candidate alone says too little: others of the case may be cancer too
    alone = calibration.model_copy(update={"case_slope": 1.0, "case_offset": 0.0})
    assert np.mean(list(_stated(unseen, alone).values())) < unseen.prevalence - 0.1
    # and the candidates keep theirs
    assert calibration.likelihood(0.5, 1.0, 0.5) == pytest.approx(sigmoid(1.0), abs=0.05)


def test_too_few_positive_cases_leave_the_case_as_its_highest_candidate() -> None:
    calibration = fit_calibration(_held_out(4, 3))
    assert calibration.case_likelihood(0.25) == pytest.approx(0.25)


def test_the_case_likelihood_rises_with_the_highest_candidate() -> None:
    calibration = Calibration(case_slope=0.8, case_offset=0.9)
    values = [calibration.case_likelihood(value) for value in np.linspace(0, 1, 21)]
    assert values == sorted(values) and values[0] >= 0 and values[-1] <= 1
