"""Whether what a scanner sends, and what becomes of it, is still what it was. Pure.

The first studies of a scanner are the reference, the latest ones are compared with them, figure by
figure, by the population stability index (PSI): the sum over bins of ``(p - q) ln(p / q)``, zero
for equal shares and the same either way round. Where nothing changed it is not zero but about
``(1/n + 1/m)`` times a chi-square variable of ``bins - 1`` degrees of freedom (Yurdakul, Western
Michigan University 2018), so the limit depends on the numbers of studies.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

BINS = 5
"""Quantile bins of a number: at 50 studies ten in each."""
CLEARED_AT = 0.5
"""An alarm ends below this share of its limit, so that it does not come and go."""
_MAX_SHARES = 8

Value = float | str
Values = Mapping[str, Value]


class Group(StrEnum):
    """What a figure tells of."""

    INPUT = "input"
    OUTPUT = "output"
    OUTCOME = "outcome"
    AGREEMENT = "agreement"


FIGURES: Mapping[str, tuple[Group, str]] = {
    "snr_t2w": (Group.INPUT, "signal to noise, T2W"),
    "snr_dwi": (Group.INPUT, "signal to noise, highest b acquired"),
    "gland_overlap_dwi_t2w": (Group.INPUT, "overlap of the gland on diffusion and T2W"),
    "out_of_distribution": (Group.INPUT, "distance from the training images"),
    "t2w_spacing_mm": (Group.INPUT, "T2W voxel in plane, mm"),
    "t2w_slice_mm": (Group.INPUT, "T2W distance of slices, mm"),
    "diffusion_spacing_mm": (Group.INPUT, "diffusion voxel in plane, mm"),
    "b_values": (Group.INPUT, "b-values, s/mm2"),
    "images": (Group.INPUT, "kinds of image"),
    "likelihood": (Group.OUTPUT, "highest suspicion index of the study"),
    "findings": (Group.OUTPUT, "number of findings"),
    "lesions_ml": (Group.OUTPUT, "volume of all findings, mL"),
    "gland_ml": (Group.OUTPUT, "volume of the gland, mL"),
    "outcome": (Group.OUTCOME, "analysed, or why not"),
    "dice": (Group.AGREEMENT, "Dice of drawn and found lesions"),
    "agreed": (Group.AGREEMENT, "share of lesions both agree on"),
}
"""Every figure by name: what it tells of, in words."""


@dataclass(frozen=True, order=True)
class Scanner:
    """Who made the images. ``field_strength_t`` 0: not told."""

    station: str = ""
    manufacturer: str = ""
    model: str = ""
    field_strength_t: float = 0.0

    def __str__(self) -> str:
        field = f"{self.field_strength_t:g} T" if self.field_strength_t else ""
        parts = (self.station, self.manufacturer, self.model, field)
        return ", ".join(part for part in parts if part) or "unnamed scanner"


@dataclass(frozen=True)
class DriftRule:
    """How windows are cut and judged.

    ``reference``, ``current``: studies in the windows. ``least``: values that each window must
    hold. ``psi``: the least index that counts as a change. ``significance``: chance that one look
    at one figure exceeds its limit though nothing changed.
    """

    reference: int = 200
    current: int = 50
    least: int = 30
    psi: float = 0.25
    significance: float = 1e-5


@dataclass(frozen=True)
class Figure:
    """One figure of a scanner. ``psi`` and ``limit`` are None where there are too few values.

    ``before``, ``now``: median of a number (one entry, ``median``), or shares of the commonest
    values; with the number of values in ``counts`` (reference, current).
    """

    name: str
    psi: float | None
    limit: float | None
    counts: tuple[int, int]
    before: Mapping[str, float]
    now: Mapping[str, float]

    @property
    def group(self) -> Group:
        """What it tells of."""
        return FIGURES[self.name][0]

    @property
    def exceeded(self) -> bool:
        """Whether it lies above its limit."""
        return self.psi is not None and self.limit is not None and self.psi > self.limit


def psi(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the population stability index of counts in the same bins.

    Each share gets the weight of half a study of the smaller count, so that an empty bin is finite;
    equal shares stay equal by it. Bins that are empty on both sides are left out.

    Raises:
        ValueError: other numbers of bins, or nothing counted on one side.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError("counts of different bins")
    n, m = float(a.sum()), float(b.sum())
    if n <= 0 or m <= 0:
        raise ValueError("nothing was counted")
    filled = (a + b) > 0
    half = 0.5 / min(n, m)
    whole = 1 + half * int(filled.sum())
    p, q = (a[filled] / n + half) / whole, (b[filled] / m + half) / whole
    return float(((p - q) * np.log(p / q)).sum())


def limit_of(counts: tuple[int, int], bins: int, rule: DriftRule) -> float:
    """Return the index above which a change is believed, for so many values and filled bins."""
    from scipy.special import chdtri  # large, and the receiver, which never asks, imports this

    spread = 1 / counts[0] + 1 / counts[1]
    chance = float(chdtri(max(1, bins - 1), rule.significance))
    return max(rule.psi, spread * chance)


def edges_of(reference: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the inner edges of quantile bins; bin ``i`` is ``(edge i-1, edge i]``.

    A value that alone fills a bin gets one of its own, so that a constant (a voxel size) that
    changes leaves it in both directions.
    """
    values = np.sort(np.asarray(reference, dtype=np.float64))
    inner = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    found = set(inner.tolist())
    for edge in tuple(found):
        if np.count_nonzero(values == edge) * BINS > len(values):
            found.add(float(np.nextafter(edge, -math.inf)))
    return np.array(sorted(found))


def compare(
    name: str, reference: Sequence[Value], current: Sequence[Value], rule: DriftRule
) -> Figure:
    """Compare the values of one figure; texts are categories, numbers are binned."""
    counts = (len(reference), len(current))
    told = (_summary(reference), _summary(current))
    if min(counts) < rule.least:
        return Figure(name, None, None, counts, *told)
    before, now = _counted(reference, current)
    bins = sum(1 for a, b in zip(before, now, strict=True) if a + b > 0)
    return Figure(name, psi(before, now), limit_of(counts, bins, rule), counts, *told)


def _counted(
    reference: Sequence[Value], current: Sequence[Value]
) -> tuple[Sequence[float], Sequence[float]]:
    if any(isinstance(value, str) for value in (*reference, *current)):
        one, other = Counter(map(str, reference)), Counter(map(str, current))
        names = sorted(one | other)
        return [one[n] for n in names], [other[n] for n in names]
    edges = edges_of([float(value) for value in reference])
    first, second = (
        np.bincount(
            np.searchsorted(edges, np.asarray(values, dtype=np.float64)), minlength=len(edges) + 1
        )
        for values in (reference, current)
    )
    return first.tolist(), second.tolist()


def _summary(values: Sequence[Value]) -> dict[str, float]:
    if not values:
        return {}
    if any(isinstance(value, str) for value in values):
        common = Counter(map(str, values)).most_common(_MAX_SHARES)
        return {name: round(count / len(values), 4) for name, count in common}
    return {"median": statistics.median(float(value) for value in values)}


def compare_all(
    names: Iterable[str], windows: Sequence[Sequence[Values]], rule: DriftRule
) -> tuple[Figure, ...]:
    """Compare figures over the reference and the current window of studies.

    A study without a value is left out of that figure.
    """
    reference, current = windows
    return tuple(
        compare(
            name,
            [study[name] for study in reference if name in study],
            [study[name] for study in current if name in study],
            rule,
        )
        for name in names
    )


def names_of(*groups: Group) -> tuple[str, ...]:
    """Names of the figures of groups."""
    return tuple(name for name, (group, _) in FIGURES.items() if group in groups)


def alarms_after(figures: Iterable[Figure], before: Collection[str]) -> frozenset[str]:
    """Return the figures in alarm: above the limit, or not yet back below half of it.

    A figure that can no longer be judged keeps what it had.
    """
    found = set()
    for figure in figures:
        if figure.psi is None or figure.limit is None:
            stays = figure.name in before
        else:
            share = CLEARED_AT if figure.name in before else 1.0
            stays = figure.psi > share * figure.limit
        if stays:
            found.add(figure.name)
    return frozenset(found)


def agreement_values(findings: Iterable[Mapping[str, object]]) -> dict[str, float]:
    """Return Dice and agreement of one annotated study from what it says of each finding.

    ``findings``: as kept with an annotation (verdict, dice). A finding that a drawing made from
    nothing does not contain, and a lesion without a result to compare with, say nothing.
    """
    told = [one for one in findings if one.get("verdict") in ("accepted", "rejected", "missed")]
    if not told:
        return {}
    values = {"agreed": sum(one["verdict"] == "accepted" for one in told) / len(told)}
    drawn = [float(str(one["dice"])) for one in told if one.get("dice") is not None]
    if drawn:
        values["dice"] = statistics.fmean(drawn)
    return values
