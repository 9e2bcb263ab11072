"""Our hit rule and figures against the challenge's own program, on random detection maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from picai_eval import evaluate
from picai_eval.eval import evaluate_case
from scipy import ndimage

from ai_core.evaluate.detection import assign, components
from ai_core.evaluate.metrics import (
    Rows,
    auroc,
    average_precision,
    calibration_error,
    sensitivity_at,
)

SHAPE = (10, 32, 32)
Volume = npt.NDArray[np.float32]


def _blobs(rng: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=bool)
    for _ in range(count):
        center, radius = rng.uniform((2, 5, 5), (8, 27, 27)), rng.uniform(1.5, 7)
        z, y, x = np.indices(SHAPE)
        inside = (2 * (z - center[0])) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2
        mask |= inside < radius**2
    return mask


def _random_case(rng: np.random.Generator) -> tuple[Volume, npt.NDArray[np.int32]]:
    truth = _blobs(rng, int(rng.integers(0, 4)))
    found = np.zeros(SHAPE, dtype=np.float32)
    mask = _blobs(rng, int(rng.integers(0, 4)))
    if truth.any() and rng.random() < 0.7:  # a shifted, perhaps split, copy of the truth
        copy = np.roll(truth, rng.integers(-1, 2, 3), axis=(0, 1, 2))
        if rng.random() < 0.3:
            copy[:, :: int(rng.integers(3, 9))] = False
        mask |= copy
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    for number in range(1, count + 1):
        score = rng.choice([0.2, 0.5, rng.uniform(0.01, 0.9)])
        right = truth[labels == number].mean() > 0.3
        found[labels == number] = np.float32(min(1.0, score + 0.3 * right))
    return found, truth.astype(np.int32)


def _ours(found: Volume, truth: npt.NDArray[np.int32]) -> list[tuple[int, float]]:
    labels, scores = components(found)
    lesions, count = ndimage.label(truth, np.ones((3, 3, 3)))
    rows, hit = [], set()
    for score, result in zip(scores, assign(labels, lesions), strict=True):
        if result.lesion:
            hit.add(result.lesion)
            rows.append((1, score))
        elif result.false:
            rows.append((0, score))
    return rows + [(1, 0.0)] * (count - len(hit))


@pytest.mark.parametrize("seed", range(40))
def test_the_hit_rule_is_that_of_picai_eval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(3):
        found, truth = _random_case(rng)
        theirs, _, _, _ = evaluate_case(found, truth)
        ours = _ours(found, truth)
        assert sorted(ours) == sorted((int(label), score) for label, score, _ in theirs)


def test_figures_are_those_of_picai_eval() -> None:
    rng = np.random.default_rng(5)
    cases = [_random_case(rng) for _ in range(60)]
    theirs = evaluate([c[0] for c in cases], [c[1] for c in cases], num_parallel_calls=1)
    rows = [(i, *row) for i, case in enumerate(cases) for row in _ours(*case)]
    lesions = Rows(
        np.array([r[0] for r in rows]),
        np.array([r[1] == 1 for r in rows]),
        np.array([r[2] for r in rows]),
    )
    by_case = Rows(
        np.arange(len(cases)),
        np.array([bool(c[1].any()) for c in cases]),
        np.array([float(c[0].max()) for c in cases]),
    )
    ones = np.ones(len(cases))
    assert 0.2 < theirs.AP < 0.98
    assert average_precision(lesions, ones) == pytest.approx(theirs.AP, abs=1e-9)
    assert auroc(by_case, ones) == pytest.approx(theirs.auroc, abs=1e-9)
    for rate in (0.5, 1.0, 2.0):
        ours = sensitivity_at(lesions, ones, rate)
        assert ours == pytest.approx(theirs.lesion_TPR_at_FPR(rate), abs=1e-6)


def test_a_case_counted_twice_weighs_twice() -> None:
    rng = np.random.default_rng(1)
    case, positive = np.arange(30), rng.random(30) < 0.4
    score = rng.choice(np.linspace(0.1, 0.9, 7), 30)
    weight = rng.integers(0, 3, 30).astype(float)
    again = np.repeat(case, weight.astype(int))
    twice = Rows(np.arange(len(again)), positive[again], score[again])
    once = Rows(case, positive, score)
    for figure in (auroc, average_precision, calibration_error):
        assert figure(once, weight) == pytest.approx(figure(twice, np.ones(len(again))))


def test_a_split_lesion_is_hit_once_and_costs_nothing() -> None:
    lesions = np.zeros((4, 10, 10), np.int64)
    lesions[1:3, 2:8, 2:8] = 1
    found = np.zeros_like(lesions)
    found[1:3, 2:8, 2:4] = 1
    found[1:3, 2:8, 5:8] = 2
    found[0, 0, 0] = 3
    first, second, third = assign(found, lesions)
    assert (first.lesion, first.false) == (0, False)
    assert second.lesion == 1
    assert (third.lesion, third.false) == (0, True)


def test_grids_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        assign(np.zeros((2, 2, 2), int), np.zeros((3, 2, 2), int))
