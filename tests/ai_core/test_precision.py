"""bf16 gives the findings of fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ai_core.errors import ReleaseError
from ai_core.pipeline import examine
from ai_core.precision import TOLERANCE, Precision, choose_precision, has_bf16
from ai_core.release import Release, load_release
from ai_core.types import Case

CPU = torch.device("cpu")


def test_settings() -> None:
    assert choose_precision("auto", CPU) is Precision.FP32
    assert choose_precision("fp32", CPU) is Precision.FP32
    with pytest.raises(ReleaseError, match="not a precision"):
        choose_precision("fp8", CPU)


def test_a_processor_without_bf16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai_core.precision.has_bf16", lambda _: False)
    with pytest.raises(ReleaseError, match="no bf16 instructions"):
        choose_precision("bf16", CPU)


@pytest.mark.skipif(not has_bf16(CPU), reason="this processor has no bf16 instructions")
@pytest.mark.slow
def test_bf16_keeps_the_result(case: Case, packaged: Release) -> None:
    exact, fast = examine(case, packaged), examine(case, load_release(None, "cpu", "bf16"))
    one, other = exact.result, fast.result
    assert abs(one.case_likelihood - other.case_likelihood) < TOLERANCE
    for mask, again in ((one.gland_mask, other.gland_mask), (one.zones > 1, other.zones > 1)):
        both = np.logical_and(mask, again).sum()
        assert 2 * both / (np.count_nonzero(mask) + np.count_nonzero(again)) > 0.98
    assert np.abs(one.likelihood - other.likelihood).mean() < 0.002
    assert exact.regions
    first, same = exact.regions[0].candidate, fast.regions[0].candidate
    assert np.abs(np.subtract(first.peak_zyx, same.peak_zyx)).max() <= 2
