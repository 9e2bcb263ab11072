"""Drift: the index, its limit, and how often it is wrong and right on simulated scanners."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.drift import (
    FIGURES,
    DriftRule,
    Figure,
    Group,
    Scanner,
    Value,
    agreement_values,
    alarms_after,
    compare,
    compare_all,
    edges_of,
    limit_of,
    names_of,
    psi,
)

RULE = DriftRule()
COUNTS = st.integers(2, 8).flatmap(
    lambda bins: st.tuples(
        *(st.lists(st.integers(0, 200), min_size=bins, max_size=bins).filter(any) for _ in range(2))
    )
)


@given(COUNTS)
def test_the_index_is_finite_not_negative_and_the_same_either_way(
    counts: tuple[list[int], list[int]],
) -> None:
    one, other = counts
    found = psi(one, other)
    assert 0 <= found < 50
    assert found == pytest.approx(psi(other, one), abs=1e-12)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any), st.integers(1, 9))
def test_equal_shares_have_index_zero_whatever_the_numbers(counts: list[int], times: int) -> None:
    assert psi(counts, [times * count for count in counts]) == pytest.approx(0, abs=1e-12)


@given(COUNTS)
def test_unequal_shares_have_an_index_above_zero(counts: tuple[list[int], list[int]]) -> None:
    one, other = (np.array(side) / sum(side) for side in counts)
    if np.abs(one - other).max() > 0.01:
        assert psi(*counts) > 0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="different bins"):
        psi([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="nothing was counted"):
        psi([0, 0], [1, 2])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_edges_ascend_and_no_bin_but_a_single_value_holds_more_than_two_fifths(
    values: list[float],
) -> None:
    edges = edges_of(values)
    assert (np.diff(edges) > 0).all()
    places = np.searchsorted(edges, values)
    for place in set(places.tolist()):
        inside = {v for v, p in zip(values, places, strict=True) if p == place}
        share = int((places == place).sum()) / len(values)
        assert len(inside) == 1 or share <= 0.4 + 4 / len(values)


@pytest.mark.parametrize("changed", [0.3, 0.7])
def test_a_constant_that_changes_is_seen_in_both_directions(changed: float) -> None:
    figure = compare("t2w_spacing_mm", [0.5] * 200, [0.5] * 30 + [changed] * 20, RULE)
    assert figure.exceeded
    assert not compare("t2w_spacing_mm", [0.5] * 200, [0.5] * 50, RULE).exceeded


def test_a_new_category_is_seen() -> None:
    before: list[Value] = ["50 400 800"] * 200
    now: list[Value] = ["50 400 800"] * 25 + ["50 1000"] * 25
    figure = compare("b_values", before, now, RULE)
    assert figure.exceeded
    assert figure.now == {"50 400 800": 0.5, "50 1000": 0.5}


def test_few_studies_are_not_judged() -> None:
    figure = compare("snr_t2w", [1.0] * 200, [9.0] * 5, RULE)
    assert (figure.psi, figure.exceeded, figure.counts) == (None, False, (200, 5))
    assert figure.before == {"median": 1.0}


def test_the_limit_grows_where_studies_are_few_and_never_falls_below_the_least() -> None:
    limits = [limit_of((200, m), 5, RULE) for m in (30, 50, 100, 5000)]
    assert limits == sorted(limits, reverse=True)
    assert limit_of((10**6, 10**6), 5, RULE) == RULE.psi


STREAMS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: np.exp(rng.normal(size=n)),
    "index": lambda rng, n: rng.beta(0.5, 1.5, size=n),
    "count": lambda rng, n: rng.poisson(1.2, size=n).astype(float),
    "nearly constant": lambda rng, n: np.where(rng.random(n) < 0.97, 0.5, 0.5625),
    "reasons": lambda rng, n: rng.choice(
        ["analysed", "no_t2w", "timeout"], n, p=[0.96, 0.03, 0.01]
    ),
}


def test_a_scanner_that_does_not_change_rings_for_less_than_one_figure_in_fifty() -> None:
    """1,000 studies of a figure, looked at after every tenth: measured none of 480."""
    alarms = 0
    for kind, draw in STREAMS.items():
        for seed in range(10):
            values = draw(np.random.default_rng([seed, len(kind)]), 1000).tolist()
            alarms += any(
                compare("snr_t2w", values[:200], values[max(200, end - 50) : end], RULE).exceeded
                for end in range(230, 1001, 10)
            )
    assert alarms <= 0.02 * 10 * len(STREAMS)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.0, 0.01), (1.0, 0.6, 0.85),
                                                     (1.5, 0.98, 1.0)])  # fmt: skip
def test_power_at_the_first_fifty_studies_after_a_shift(
    shift: float, least: float, most: float
) -> None:
    """A shift of one standard deviation is seen in about 7 of 10 scanners, of 1.5 in all."""
    seen = [
        compare("snr_t2w", rng.normal(size=200).tolist(), rng.normal(shift, 1, 50).tolist(), RULE)
        for rng in map(np.random.default_rng, range(300))
    ]
    assert least <= np.mean([figure.exceeded for figure in seen]) <= most


def test_a_study_without_a_value_counts_in_the_other_figures() -> None:
    reference = [{"snr_t2w": 1.0, "outcome": "analysed"}] * 40 + [{"outcome": "no_t2w"}] * 2
    snr, outcome = compare_all(["snr_t2w", "outcome"], [reference, reference], RULE)
    assert (snr.counts, outcome.counts) == ((40, 40), (42, 42))


def figure(name: str, index: float | None, limit: float | None = 0.7) -> Figure:
    return Figure(name, index, None if index is None else limit, (200, 50), {}, {})


def test_an_alarm_begins_above_the_limit_and_ends_below_half_of_it() -> None:
    assert alarms_after([figure("snr_t2w", 0.71)], ()) == {"snr_t2w"}
    assert alarms_after([figure("snr_t2w", 0.69)], ()) == frozenset()
    assert alarms_after([figure("snr_t2w", 0.36)], {"snr_t2w"}) == {"snr_t2w"}
    assert alarms_after([figure("snr_t2w", 0.34)], {"snr_t2w"}) == frozenset()
    assert alarms_after([figure("snr_t2w", None)], {"snr_t2w"}) == {"snr_t2w"}


def test_agreement_of_one_annotated_study() -> None:
    findings = [
        {"verdict": "accepted", "dice": 0.8}, {"verdict": "accepted", "dice": None},
        {"verdict": "rejected", "dice": None}, {"verdict": "missed", "dice": None},
        {"verdict": "not_drawn", "dice": None},
    ]  # fmt: skip
    assert agreement_values(findings) == {"agreed": 0.5, "dice": 0.8}
    assert agreement_values([{"verdict": "new", "dice": None}]) == {}


def test_every_group_has_figures_and_a_scanner_has_a_name() -> None:
    assert sorted(name for group in Group for name in names_of(group)) == sorted(FIGURES)
    assert str(Scanner("MR1", "Vendor", "Model", 3.0)) == "MR1, Vendor, Model, 3 T"
    assert str(Scanner()) == "unnamed scanner"
