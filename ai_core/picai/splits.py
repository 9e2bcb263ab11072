"""Splits by patient: no patient in two parts, positives spread evenly, the same for a seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def split_patients(
    positive: Mapping[str, bool], folds: int, seed: int
) -> tuple[tuple[str, ...], ...]:
    """Deal patients out to ``folds`` parts.

    Args:
        positive: patient identifier -> whether any examination shows significant cancer.
        folds: number of parts.
        seed: same seed and patients, same parts, whatever the order of ``positive``.

    Raises:
        ValueError: fewer than two parts, or fewer patients than parts.
    """
    if folds < 2 or len(positive) < folds:
        raise ValueError(f"{len(positive)} patients cannot be split into {folds} parts")
    rng = np.random.default_rng(seed)
    ordered: list[str] = []
    for wanted in (True, False):
        group = sorted(name for name, is_positive in positive.items() if is_positive == wanted)
        ordered += [group[i] for i in rng.permutation(len(group))]
    return tuple(tuple(sorted(ordered[part::folds])) for part in range(folds))
