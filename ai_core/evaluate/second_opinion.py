"""What abnormality by synthesis is worth: alone, beside the likelihood, and on normal glands.

The joined model is a logistic regression of the likelihood's log-odds and the abnormality, fitted
on four fifths of the cases and applied to the fifth; the likelihood alone goes through the same, so
that the difference is the map's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from ai_core.calibration import logit
from ai_core.evaluate.figures import Bootstrap, Value, summary
from ai_core.evaluate.metrics import Floats, Rows, auroc
from ai_core.evaluate.record import ABNORMALITY, FULL, LIKELIHOOD, AnalysisRecord, CaseRecord
from ai_core.train.logistic_fit import bounded_logistic

FOLDS = 5
#: A part of the gland is abnormal from this many standard deviations of normal tissue on.
ABNORMAL_FROM = 3.0
#: Glands without foci of this PI-RADS-like score or above are normal ones.
SUSPICIOUS_PIRADS = 3
TITLES = {
    "cases": "Cases with a gland",
    "abstained": "Share in which synthesis abstains",
    "auroc_case": "AUROC by case, abnormality alone",
    "auroc_case_likelihood": "AUROC by case, likelihood (same cases)",
    "auroc_case_joined": "AUROC by case, both joined",
    "gain_case": "Gain by case: joined over likelihood alone",
    "auroc_candidate": "AUROC by candidate, abnormality alone",
    "auroc_candidate_likelihood": "AUROC by candidate, likelihood",
    "auroc_candidate_joined": "AUROC by candidate, both joined",
    "gain_candidate": "Gain by candidate: joined over likelihood alone",
    "correlation": "Rank correlation with the localization score, by candidate",
    "normal_glands": "Normal glands",
    "false_abnormality": "Share of normal glands with an abnormal part",
}


@dataclass(frozen=True)
class _Table:
    """Rows with two scores: the likelihood's log-odds and the abnormality."""

    case: np.ndarray[tuple[int], np.dtype[np.int64]]
    positive: np.ndarray[tuple[int], np.dtype[np.bool_]]
    odds: Floats
    abnormality: Floats
    heat: Floats

    def rows(self, score: Floats) -> Rows:
        return Rows(self.case, self.positive, score)

    def held_out(self, columns: Sequence[Floats]) -> Floats:
        """Return a logistic model's log-odds for each row, fitted without its fifth of cases."""
        inputs = np.stack(columns, axis=1)
        centred = (inputs - inputs.mean(0)) / np.maximum(inputs.std(0), 1e-6)
        result = np.zeros(len(inputs))
        for fold in range(FOLDS):
            out = self.case % FOLDS == fold
            weights, offset = bounded_logistic(
                centred[~out], self.positive[~out], (1,) * inputs.shape[1]
            )
            result[out] = centred[out] @ weights + offset
        return result


def second_opinion(records: Sequence[CaseRecord], repeats: int, seed: int) -> dict[str, Value]:
    """Return the figures of `TITLES`; none where no record has an abnormality."""
    seen = [r for r in records if r.problem is None and _part(r).abnormality is not None]
    if not seen:
        return {}
    boot = Bootstrap.draw(len(seen), repeats, seed)
    figures = {"cases": _count(len(seen)), "abstained": _share(boot, [_abstained(r) for r in seen])}
    figures |= _compared("case", _by_case(seen), boot)
    candidates = _by_candidate(seen)
    if len(candidates.case):
        figures |= _compared("candidate", candidates, boot)
        figures["correlation"] = _correlation(candidates, boot)
    return figures | _on_normal_glands(seen, boot)


def _part(record: CaseRecord) -> AnalysisRecord:
    return record.analyses[FULL]


def _abstained(record: CaseRecord) -> float:
    return float(_part(record).abstained)


def _by_case(records: Sequence[CaseRecord]) -> _Table:
    """One row by case; where synthesis abstains it says nothing (0)."""
    parts = [_part(r) for r in records]
    return _Table(
        np.arange(len(records)),
        np.array([r.positive for r in records]),
        np.array([logit(p.case_likelihood or 0.0) for p in parts]),
        np.array([0.0 if p.abstained else p.abnormality or 0.0 for p in parts]),
        np.array([max((c.scores["map"] for c in p.candidates), default=0.0) for p in parts]),
    )


def _by_candidate(records: Sequence[CaseRecord]) -> _Table:
    """One row by candidate of the cases whose lesions are drawn."""
    rows = [
        (index, not c.false or c.peak_inside, logit(c.scores[LIKELIHOOD]), c.scores)
        for index, record in enumerate(records)
        if record.lesions_drawn
        for c in _part(record).candidates
    ]
    return _Table(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=bool),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.array([row[3].get(ABNORMALITY, 0.0) for row in rows], dtype=np.float64),
        np.array([row[3]["map"] for row in rows], dtype=np.float64),
    )


def _compared(what: str, table: _Table, boot: Bootstrap) -> dict[str, Value]:
    """AUROC alone, of the likelihood, of both joined, and the paired gain."""
    alone = _aurocs(table.rows(table.abnormality), boot)
    figures = {f"auroc_{what}": summary(alone)}
    figures[f"auroc_{what}_likelihood"] = summary(_aurocs(table.rows(table.odds), boot))
    per_fold = [table.positive[table.case % FOLDS != fold] for fold in range(FOLDS)]
    if any(len(set(labels.tolist())) < 2 for labels in per_fold):
        return figures  # too few cases to fit without a fifth of them
    without = _aurocs(table.rows(table.held_out([table.odds])), boot)
    joined = _aurocs(table.rows(table.held_out([table.odds, table.abnormality])), boot)
    figures[f"auroc_{what}_joined"] = summary(joined)
    figures[f"gain_{what}"] = summary(joined - without)
    return figures


def _aurocs(rows: Rows, boot: Bootstrap) -> Floats:
    return np.array([auroc(rows, weight) for weight in boot.weights])


def _correlation(table: _Table, boot: Bootstrap) -> Value:
    def one(weight: Floats) -> float:
        chosen = np.repeat(np.arange(len(table.case)), weight[table.case].astype(int))
        pair = table.abnormality[chosen], table.heat[chosen]
        if min(len(np.unique(values)) for values in pair) < 2:
            return float("nan")  # a constant has no rank
        return float(spearmanr(*pair).statistic)

    return summary(np.array([one(weight) for weight in boot.weights]))


def _on_normal_glands(records: Sequence[CaseRecord], boot: Bootstrap) -> dict[str, Value]:
    normal = np.array(
        [not r.positive and (r.highest_pirads or 0) < SUSPICIOUS_PIRADS for r in records]
    )
    marked = [
        not p.abstained and (p.abnormality or 0.0) >= ABNORMAL_FROM for p in map(_part, records)
    ]
    figures = {"normal_glands": _count(int(normal.sum()))}
    if normal.any():
        figures["false_abnormality"] = _share(boot, [float(m) for m in marked], normal)
    return figures


def _share(
    boot: Bootstrap, values: Sequence[float], only: Sequence[bool] | np.ndarray | None = None
) -> Value:
    chosen = np.ones(len(values)) if only is None else np.asarray(only, dtype=np.float64)
    mass = boot.weights * chosen
    total = mass.sum(axis=1)
    return summary(np.where(total > 0, mass @ np.array(values) / np.maximum(total, 1e-9), np.nan))


def _count(number: int) -> Value:
    return Value(float(number), float(number), float(number))


def markdown(figures: Mapping[str, Value]) -> list[str]:
    """Return the lines of the report's section; none where there are no figures."""
    if not figures:
        return []
    cell: Callable[[float], str] = "{:.3f}".format
    rows = [
        f"| {TITLES[key]} | {value.value:.0f} | |"
        if key in {"cases", "normal_glands"}
        else f"| {TITLES[key]} | {cell(value.value)} | {cell(value.low)} to {cell(value.high)} |"
        for key, value in figures.items()
    ]
    head = [
        "",
        "## Abnormality by synthesis",
        "| Figure | Value | 95 % interval |",
        "|---|---|---|",
    ]
    return [*head, *rows]
