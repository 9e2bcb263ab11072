"""What is kept of two releases on one study."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from dicom_node.domain.agreement import Pair
from dicom_node.flow.shadow import dice, summary_of
from dicom_node.registry.compare import pair_of
from dicom_node.store.rows import ShadowRow
from tests.results import result_cases as cases


def test_dice_by_hand() -> None:
    one, other = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert dice(one, other) is None
    one[0, :3] = True
    assert dice(one, other) == 0.0
    other[0, 1:] = True
    other[1, 0] = True
    assert dice(one, other) == pytest.approx(2 * 2 / (3 + 4))
    assert dice(one, one) == 1.0


def test_a_pair_comes_back_from_the_table_as_it_went_in() -> None:
    outcome = cases.stack_request().outcome
    assert isinstance(outcome, cases.Analysed)
    summary = summary_of(outcome.result)
    assert summary.findings
    assert summary.likelihood == outcome.result.case_likelihood
    pair = Pair(summary, summary, 0.9, None)
    run = ShadowRow("1.2", 1, "a" * 64, "b" * 64, json.dumps(asdict(pair)))
    assert pair_of(run) == pair
    failed = pair_of(ShadowRow("1.2", 1, "a" * 64, "b" * 64, '{"error": "broken"}'))
    assert (failed.second, failed.error) == (None, "broken")
