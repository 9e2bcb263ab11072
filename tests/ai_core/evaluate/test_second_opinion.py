"""What synthesis is worth: a map that knows more adds, one that knows nothing does not."""

from __future__ import annotations

import numpy as np

from ai_core.calibration import sigmoid
from ai_core.evaluate.record import AnalysisRecord, CandidateRecord, CaseRecord, LesionRecord
from ai_core.evaluate.second_opinion import markdown, second_opinion


def _record(index: int, truth: float, noise: float, knows: bool) -> CaseRecord:
    positive = truth > 0
    likelihood = sigmoid(truth + noise)
    abnormality = max(0.0, 2.0 + 2 * truth) if knows else 2.0 + noise * 0
    candidate = CandidateRecord(
        lesion=int(positive), false=not positive, overlap=0.5, peak_inside=positive,
        scores={"likelihood": likelihood, "map": likelihood, "abnormality": abnormality},
    )  # fmt: skip
    return CaseRecord(
        name=f"case-{index}",
        positive=positive,
        lesions=(LesionRecord(isup=3, volume_ml=1.0, zone="PZ"),) if positive else (),
        highest_pirads=5 if positive else 1,
        analyses={
            "full": AnalysisRecord(
                candidates=(candidate,), case_likelihood=likelihood, abnormality=abnormality
            )
        },
    )


def _records(knows: bool, count: int = 120) -> list[CaseRecord]:
    rng = np.random.default_rng(4)
    return [_record(i, float(rng.choice([-1, 1])), float(rng.normal(0, 2)), knows)
            for i in range(count)]  # fmt: skip


def test_a_map_that_knows_more_gains() -> None:
    figures = second_opinion(_records(True), repeats=50, seed=1)
    assert figures["auroc_case"].value == 1.0
    assert figures["gain_case"].low > 0
    assert figures["gain_candidate"].low > 0
    assert figures["false_abnormality"].value == 0.0
    assert figures["normal_glands"].value > 0
    assert any("Gain by case" in line for line in markdown(figures))


def test_a_map_that_knows_nothing_gains_nothing() -> None:
    figures = second_opinion(_records(False), repeats=50, seed=1)
    assert figures["auroc_case"].value == 0.5
    assert abs(figures["gain_case"].value) < 0.02


def test_without_the_branch_there_are_no_figures() -> None:
    records = [
        r.model_copy(
            update={"analyses": {"full": AnalysisRecord(candidates=(), case_likelihood=0.1)}}
        )
        for r in _records(True, 4)
    ]
    assert second_opinion(records, repeats=5, seed=1) == {}
    assert markdown({}) == []


def test_an_abstention_is_counted_and_says_nothing() -> None:
    records = [
        r.model_copy(
            update={"analyses": {"full": r.analyses["full"].model_copy(update={"abstained": True})}}
        )
        for r in _records(True, 40)
    ]
    figures = second_opinion(records, repeats=20, seed=1)
    assert figures["abstained"].value == 1.0
    assert figures["auroc_case"].value == 0.5
