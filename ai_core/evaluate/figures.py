"""From records to figures: one row per method, differences between rows, strata, intervals.

Intervals are 95 % percentile intervals over bootstrap samples of whole cases; differences between
methods use the same samples (paired).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ai_core.evaluate.metrics import (
    Floats,
    Rows,
    auroc,
    average_precision,
    brier,
    calibration_error,
    interval,
    resampled_weights,
    sensitivity_at,
    threshold_at,
)
from ai_core.evaluate.record import (
    FULL,
    LIKELIHOOD,
    TISSUE_TABLE,
    AnalysisRecord,
    CandidateRecord,
    CaseRecord,
)

#: Names of rows: (analysis, score).
Row = tuple[str, str]
ROWS: dict[str, Row] = {
    "likelihood": (FULL, LIKELIHOOD),
    "map": (FULL, "map"),
    "classifier": (FULL, "classifier"),
    "features": (FULL, "features"),
    "tissue_table": (TISSUE_TABLE, LIKELIHOOD),
}
FALSE_PER_CASE = (0.5, 1.0, 2.0)
#: A score of benign PI-RADS 4 mimics and above is what separates hard negatives.
HARD_PIRADS = 4
SIZES_ML = ((0.0, 0.25), (0.25, 0.5), (0.5, 1.5), (1.5, float("inf")))


@dataclass(frozen=True)
class Value:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LesionTags:
    """What a reference lesion belongs to, in the order of positive rows."""

    zone: str
    size: str
    isup: int


@dataclass(frozen=True)
class RowData:
    """All rows of one method, ready for weighting. ``means``: name -> (case index, value).

    ``cases``: by the highest candidate; ``stated``: by what is said of the case, where it is.
    """

    drawn: Floats
    lesions: Rows
    cases: Rows
    stated: Rows
    findings: Rows
    hard_cases: Rows
    hard_foci: Rows
    means: Mapping[str, Rows]
    tags: tuple[LesionTags, ...]


def row_data(records: Sequence[CaseRecord], row: Row) -> RowData:
    """Collect the rows of a method."""
    analysis, score = row
    lesions, cases, stated, findings, hard_cases, hard_foci = (_Builder() for _ in range(6))
    means = {name: _Builder() for name in ("first_two_hit", "gland_dice", "pz_dice", "tz_dice")}
    tags: list[LesionTags] = []
    for index, record in enumerate(records):
        part = record.analyses[analysis]
        top = max((c.scores[score] for c in part.candidates), default=0.0)
        cases.add(index, record.positive, top)
        case = part.case_likelihood
        stated.add(index, record.positive, top if case is None else case)
        if record.positive or (record.highest_pirads or 0) >= HARD_PIRADS:
            hard_cases.add(index, record.positive, top)
        for name in ("gland_dice", "pz_dice", "tz_dice"):
            value = getattr(part, name)
            if value is not None:
                means[name].add(index, True, value)
        if record.lesions_drawn:
            tags += _lesion_rows(index, record, part, score, lesions, findings)
            _focus_rows(index, record, part, score, hard_foci)
            if record.lesions:
                means["first_two_hit"].add(index, True, float(_hit(part, score, 2)))
    return RowData(
        np.array([float(record.lesions_drawn) for record in records]),
        lesions.rows(),
        cases.rows(),
        stated.rows(),
        findings.rows(),
        hard_cases.rows(),
        hard_foci.rows(),
        {name: builder.rows() for name, builder in means.items()},
        tuple(tags),
    )


class _Builder:
    def __init__(self) -> None:
        self.case: list[int] = []
        self.positive: list[bool] = []
        self.score: list[float] = []

    def add(self, case: int, positive: bool, score: float) -> None:
        self.case.append(case)
        self.positive.append(positive)
        self.score.append(score)

    def rows(self) -> Rows:
        return Rows(
            np.array(self.case, dtype=np.int64),
            np.array(self.positive, dtype=bool),
            np.array(self.score, dtype=np.float64),
        )


def _lesion_rows(
    index: int,
    record: CaseRecord,
    part: AnalysisRecord,
    score: str,
    lesions: _Builder,
    findings: _Builder,
) -> list[LesionTags]:
    """Lesions first, in order, each with its candidate's score or 0; then false positives."""
    by_lesion = {c.lesion: c.scores[score] for c in part.candidates if c.lesion}
    for number in range(1, len(record.lesions) + 1):
        lesions.add(index, True, by_lesion.get(number, 0.0))
    for candidate in part.candidates:
        if candidate.false:
            lesions.add(index, False, candidate.scores[score])
        findings.add(index, _on_lesion(candidate), candidate.scores[score])
    return [LesionTags(r.zone, size_of(r.volume_ml), r.isup) for r in record.lesions]


def _on_lesion(candidate: CandidateRecord) -> bool:
    return not candidate.false or candidate.peak_inside


def _focus_rows(
    index: int, record: CaseRecord, part: AnalysisRecord, score: str, foci: _Builder
) -> None:
    """Significant lesions against benign foci of PI-RADS 4 and above, by candidate score."""
    by_lesion = {c.lesion: c.scores[score] for c in part.candidates if c.lesion}
    for number in range(1, len(record.lesions) + 1):
        foci.add(index, True, by_lesion.get(number, 0.0))
    for focus, numbers in zip(record.benign, part.benign_candidates, strict=True):
        if focus.pirads >= HARD_PIRADS:
            scores = [part.candidates[n].scores[score] for n in numbers]
            foci.add(index, False, max(scores, default=0.0))


def _hit(part: AnalysisRecord, score: str, first: int) -> bool:
    ranked = sorted(part.candidates, key=lambda c: -c.scores[score])
    return any(_on_lesion(candidate) for candidate in ranked[:first])


def size_of(volume_ml: float) -> str:
    """Name of the size stratum of a lesion."""
    for low, high in SIZES_ML:
        if low <= volume_ml < high:
            return f">={low:g} mL" if high == float("inf") else f"{low:g}-{high:g} mL"
    raise ValueError(f"a volume of {volume_ml} mL is not one")


Figure = Callable[[RowData, Floats], float]


def _mean(name: str, data: RowData, weight: Floats) -> float:
    rows = data.means[name]
    w = weight[rows.case]
    return float((w * rows.score).sum() / w.sum()) if w.sum() > 0 else float("nan")


def _score(data: RowData, weight: Floats) -> float:
    return (auroc(data.cases, weight) + average_precision(data.lesions, weight * data.drawn)) / 2


def _sensitivity(rate: float, data: RowData, weight: Floats) -> float:
    return sensitivity_at(data.lesions, weight * data.drawn, rate)


#: Figures that every row has, by name.
FIGURES: dict[str, Figure] = {
    "auroc": lambda d, w: auroc(d.cases, w),
    "average_precision": lambda d, w: average_precision(d.lesions, w * d.drawn),
    "picai_score": _score,
    **{f"sensitivity_at_{rate:g}": partial(_sensitivity, rate) for rate in FALSE_PER_CASE},
    "first_two_hit": partial(_mean, "first_two_hit"),
    "auroc_against_pirads4": lambda d, w: auroc(d.hard_cases, w),
    "lesions_over_pirads4_mimics": lambda d, w: auroc(d.hard_foci, w * d.drawn),
}
#: Figures of the row that is reported to users alone: scores of other rows are no probabilities.
CALIBRATION_FIGURES: dict[str, Figure] = {
    "ece_case": lambda d, w: calibration_error(d.stated, w),
    "ece_finding": lambda d, w: calibration_error(d.findings, w * d.drawn),
    "brier_case": lambda d, w: brier(d.stated, w),
    "brier_finding": lambda d, w: brier(d.findings, w * d.drawn),
}
OUTLINE_FIGURES: dict[str, Figure] = {
    name: partial(_mean, name) for name in ("gland_dice", "pz_dice", "tz_dice")
}
#: kind of stratum -> stratum -> figure
Strata = dict[str, dict[str, dict[str, "Value"]]]
SITE_FIGURES = ("auroc", "average_precision", "sensitivity_at_1")


@dataclass(frozen=True)
class Bootstrap:
    """Case weights: all ones first, then one line per sample."""

    weights: Floats

    @classmethod
    def draw(cls, cases: int, repeats: int, seed: int) -> Bootstrap:
        """Draw ``repeats`` samples of whole cases."""
        return cls(np.vstack([np.ones((1, cases)), resampled_weights(cases, repeats, seed)]))

    def values(self, figure: Figure, data: RowData, only: Floats | None = None) -> Floats:
        """Return the figure on all cases (first) and on every sample; ``only``: 0/1 by case."""
        chosen = self.weights if only is None else self.weights * only
        return np.array([figure(data, weight) for weight in chosen])


def summary(values: Floats) -> Value:
    """Figure and interval from `Bootstrap.values`."""
    return Value(float(values[0]), *interval(values[1:]))


def strata(records: Sequence[CaseRecord], data: RowData, boot: Bootstrap) -> Strata:
    """Figures by site, and lesion sensitivity by zone, size and grade.

    The latter at the threshold that gives one false positive per case over all cases.
    """
    result: Strata = {"site": {}}
    for site in sorted({record.site for record in records}):
        only = np.array([float(record.site == site) for record in records])
        figures = {name: FIGURES[name] for name in SITE_FIGURES} | OUTLINE_FIGURES
        result["site"][site] = {"cases": _count(only.sum())} | {
            name: summary(boot.values(figure, data, only)) for name, figure in figures.items()
        }
    limit = threshold_at(data.lesions, data.drawn, 1.0)
    positive = data.lesions.positive
    found = Rows(
        data.lesions.case[positive],
        np.ones(int(positive.sum()), dtype=bool),
        (data.lesions.score[positive] >= limit).astype(np.float64),
    )
    for kind, name_of in TAGS.items():
        names = [name_of(tag) for tag in data.tags]
        result[kind] = {
            name: _sensitivity_of([n == name for n in names], found, boot)
            for name in sorted(set(names))
        }
    return result


TAGS: dict[str, Callable[[LesionTags], str]] = {
    "zone": lambda tag: tag.zone,
    "size": lambda tag: tag.size,
    "grade": lambda tag: f"ISUP {tag.isup}" if tag.isup >= 2 else "grade unknown",
}


def _sensitivity_of(inside: list[bool], found: Rows, boot: Bootstrap) -> dict[str, Value]:
    chosen = np.array(inside, dtype=bool)
    case, score = found.case[chosen], found.score[chosen]
    mass = boot.weights[:, case]
    total = mass.sum(axis=1)
    values = np.where(total > 0, (mass * score).sum(axis=1) / np.maximum(total, 1e-12), np.nan)
    return {"lesions": _count(chosen.sum()), "sensitivity_at_1": summary(values)}


def _count(number: float) -> Value:
    return Value(float(number), float(number), float(number))
