"""Agreement of two releases."""

from __future__ import annotations

import pytest

from dicom_node.domain.agreement import FindingSummary, Pair, Summary, agreement_of, wilson


def said(likelihood: float, x_mm: float | None = None, seconds: float = 1.0) -> Summary:
    findings = ()
    if x_mm is not None:
        findings = (FindingSummary((x_mm, 0.0, 0.0), likelihood, 0.5, True, 4.0, "PZ"),)
    return Summary(likelihood, likelihood >= 0.5, 40.0, seconds, findings)


def test_figures_worked_out_by_hand() -> None:
    pairs = [
        Pair(said(0.9, 0.0), said(0.8, 6.0, 2.0), 0.90, 0.6),
        Pair(said(0.6, 0.0), said(0.4, 30.0, 2.0), 0.95, 0.2),
        Pair(said(0.2), said(0.7, 1.0, 4.0), 0.85, 0.0),
        Pair(said(0.1), said(0.1), 0.95, None),
        Pair(said(0.1), None, error="broken"),
    ]
    found = agreement_of(pairs)
    assert (found.studies, found.failed) == (4, 1)
    assert found.labels == {"both": 1, "first_only": 1, "second_only": 1, "neither": 1}
    assert found.agreement == 0.5
    assert found.kappa == pytest.approx(0.0)
    assert found.mean_difference == pytest.approx((-10 - 20 + 50 + 0) / 4)
    assert found.limits is not None
    # differences -10, -20, 50, 0: sum of squares 2900 over 3
    assert found.limits[1] - found.limits[0] == pytest.approx(
        2 * 1.96 * (2900 / 3) ** 0.5, abs=1e-2
    )
    assert (found.median_dice_gland, found.median_dice_lesions) == (pytest.approx(0.925), 0.2)
    assert found.same_first_finding == (1, 2)
    assert found.median_seconds == (1.0, 2.0)
    turned = agreement_of([pair for one in pairs if (pair := one.turned())])
    assert turned.mean_difference == pytest.approx(-5.0)
    assert turned.median_seconds == (2.0, 1.0)


def test_no_study_and_one_study_have_no_spread() -> None:
    assert agreement_of([]).studies == 0
    assert agreement_of([Pair(said(0.1), None, error="x")]).failed == 1
    one = agreement_of([Pair(said(0.9), said(0.9))])
    assert (one.agreement, one.kappa, one.limits) == (1.0, None, None)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # published values, Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_the_interval_is_wilsons(hits: int, count: int, low: float, high: float) -> None:
    assert wilson(hits, count) == pytest.approx((low, high), abs=1e-4)
