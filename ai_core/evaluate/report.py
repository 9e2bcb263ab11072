"""The report of an evaluation: JSON, a Markdown table, plots."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ai_core.errors import InputError
from ai_core.evaluate.figures import (
    CALIBRATION_FIGURES,
    FIGURES,
    OUTLINE_FIGURES,
    ROWS,
    Bootstrap,
    Row,
    RowData,
    Strata,
    Value,
    row_data,
    strata,
    summary,
)
from ai_core.evaluate.metrics import interval
from ai_core.evaluate.record import LIKELIHOOD, CaseRecord
from ai_core.evaluate.run import Outcome
from ai_core.evaluate.second_opinion import markdown, second_opinion

MAIN = "likelihood"
REPEATS = 1000
SEED = 20_260
TITLES = {
    "auroc": "AUROC by case",
    "average_precision": "Average precision by lesion",
    "picai_score": "PI-CAI score",
    "sensitivity_at_0.5": "Lesion sensitivity at 0.5 FP/case",
    "sensitivity_at_1": "Lesion sensitivity at 1 FP/case",
    "sensitivity_at_2": "Lesion sensitivity at 2 FP/case",
    "first_two_hit": "Positive cases hit by the first two findings",
    "auroc_against_pirads4": "AUROC, positive cases over benign ones with PI-RADS 4-5",
    "lesions_over_pirads4_mimics": "AUROC, cancers over benign foci of PI-RADS 4-5",
    "gland_dice": "Gland Dice",
    "pz_dice": "PZ Dice",
    "tz_dice": "TZ Dice",
    "ece_case": "Calibration error by case",
    "ece_finding": "Calibration error by finding",
    "brier_case": "Brier score by case",
    "brier_finding": "Brier score by finding",
}


@dataclass(frozen=True)
class Report:
    """All figures of a run: by row and name; differences of the main row to the others; strata."""

    rows: Mapping[str, Mapping[str, Value]]
    differences: Mapping[str, Mapping[str, Value]]
    strata: Strata
    main: RowData
    counts: Mapping[str, Any]
    second_opinion: Mapping[str, Value]


def make_report(outcome: Outcome, against: tuple[str, ...], repeats: int = REPEATS) -> Report:
    """Compute all figures.

    ``against``: further rows of `ROWS` to compare the likelihood with; analyses without an image
    are rows of their own.

    Raises:
        InputError: no case could be evaluated.
    """
    records = [record for record in outcome.records if record.problem is None]
    if not records:
        problem = outcome.records[0].problem if outcome.records else "there are no cases"
        raise InputError(f"no case could be evaluated: {problem}", "Correct the data.")
    boot = Bootstrap.draw(len(records), repeats, SEED)
    table, values = {}, {}
    for name, row in _rows(records, against).items():
        data = row_data(records, row)
        figures = dict(FIGURES)
        if name == MAIN:
            main, figures = data, figures | CALIBRATION_FIGURES
        if row[1] == LIKELIHOOD and name != "tissue_table":
            figures |= OUTLINE_FIGURES
        values[name] = {key: boot.values(figure, data) for key, figure in figures.items()}
        table[name] = {key: summary(numbers) for key, numbers in values[name].items()}
    differences = {
        name: {key: _difference(values[MAIN][key], numbers) for key, numbers in row.items()}
        for name, row in values.items()
        if name != MAIN
    }
    opinion = second_opinion(records, repeats, SEED)
    return Report(table, differences, strata(records, main, boot), main, _counts(outcome), opinion)


def _rows(records: list[CaseRecord], against: tuple[str, ...]) -> dict[str, Row]:
    without = sorted(name for name in records[0].analyses if name.startswith("without_"))
    return {
        MAIN: ROWS[MAIN],
        **{name: ROWS[name] for name in against if name != MAIN},
        **{name: (name, LIKELIHOOD) for name in without},
    }


def _difference(ours: Any, theirs: Any) -> Value:
    change = ours - theirs
    return Value(float(change[0]), *interval(change[1:]))


def _counts(outcome: Outcome) -> dict[str, Any]:
    used = [record for record in outcome.records if record.problem is None]
    full = [record.analyses["full"] for record in used]
    problems = [r for r in outcome.records if r.problem is not None]
    return {
        "cases": len(used),
        "positive_cases": sum(record.positive for record in used),
        "lesions": sum(len(record.lesions) for record in used),
        "cases_without_drawn_lesions": sum(not record.lesions_drawn for record in used),
        "benign_pirads4_foci": sum(f.pirads >= 4 for record in used for f in record.benign),
        "sites": len({record.site for record in used}),
        "no_gland_found": sum(not part.gland_found for part in full),
        "seconds_to_read": round(float(np.mean([record.read_s for record in used])), 2),
        "seconds_to_analyse": round(float(np.mean([part.seconds for part in full])), 2),
        "problems": {record.name: record.problem for record in problems},
    }


def as_json(report: Report, outcome: Outcome, command: str) -> dict[str, Any]:
    """Return the report as plain values; a figure that cannot be computed is null."""
    return {
        "release": dataclasses.asdict(outcome.release),
        "command": command,
        "data": dict(report.counts),
        "bootstrap": {"samples": REPEATS, "seed": SEED, "interval_percent": 95},
        "rows": _plain(report.rows),
        "differences_from_likelihood": _plain(report.differences),
        "strata": _plain(report.strata),
        **({"synthesis": _plain(report.second_opinion)} if report.second_opinion else {}),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return {key: _number(number) for key, number in dataclasses.asdict(value).items()}
    return {key: _plain(item) for key, item in value.items()}


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def as_markdown(report: Report, outcome: Outcome, command: str) -> str:
    """Return the report as Markdown: figures, comparisons, strata."""
    counts = report.counts
    lines = [
        f"# Evaluation of {outcome.release.name} {outcome.release.version}",
        "",
        "Research software. Figures hold for the data below and say nothing about patients.",
        "",
        f"- Command: `{command}`",
        f"- Release: SHA-256 `{outcome.release.sha256}`",
        f"- Data: {counts['cases']} cases of {counts['sites']} site(s), "
        f"{counts['positive_cases']} with significant cancer, {counts['lesions']} lesions, "
        f"{counts['benign_pirads4_foci']} benign foci of PI-RADS 4-5",
        f"- Left out: {len(counts['problems'])}; no gland found in {counts['no_gland_found']}",
        f"- 95 % intervals: {REPEATS} bootstrap samples of whole cases, seed {SEED}",
        "",
        "| Figure | Value | 95 % interval |",
        "|---|---|---|",
        *(
            f"| {TITLES[key]} | {_text(value.value)} | {_range(value)} |"
            for key, value in report.rows[MAIN].items()
        ),
    ]
    if report.differences:
        lines += ["", "## Likelihood against other scores and inputs", *_comparison(report)]
    lines += markdown(report.second_opinion)
    for kind, groups in report.strata.items():
        lines += ["", f"## By {kind}", *_groups(groups)]
    return "\n".join(lines) + "\n"


COMPARED = (
    "auroc",
    "average_precision",
    "sensitivity_at_1",
    "first_two_hit",
    "lesions_over_pirads4_mimics",
)


def _comparison(report: Report) -> list[str]:
    lines = [
        "Value; in brackets the gain of the likelihood over it with its paired 95 % interval.",
        "",
        "| Row | " + " | ".join(TITLES[key] for key in COMPARED) + " |",
        "|---" * (len(COMPARED) + 1) + "|",
    ]
    for name, row in report.rows.items():
        cells = [_text(row[key].value) for key in COMPARED]
        if name in report.differences:
            gains = [report.differences[name][key] for key in COMPARED]
            cells = [
                f"{cell} ({gain.value:+.3f}; {gain.low:+.3f} to {gain.high:+.3f})"
                for cell, gain in zip(cells, gains, strict=True)
            ]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def _groups(groups: Mapping[str, Mapping[str, Value]]) -> list[str]:
    keys = list(next(iter(groups.values()))) if groups else []
    titles = [TITLES.get(key, key) for key in keys]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(keys) + 1) + "|"]
    for name, group in groups.items():
        cells = [
            f"{value.value:.0f}" if key in {"cases", "lesions"} else _cell(value)
            for key, value in group.items()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _text(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _range(value: Value) -> str:
    return f"{_text(value.low)} to {_text(value.high)}"


def _cell(value: Value) -> str:
    return f"{_text(value.value)} ({_range(value)})"


def write_report(report: Report, outcome: Outcome, out: Path, command: str) -> dict[str, Any]:
    """Write `evaluation.json`, `evaluation.md` and the plots; returns the JSON document."""
    from ai_core.evaluate.plots import write_plots

    document = as_json(report, outcome, command)
    write_plots(report, out)
    (out / "evaluation.md").write_text(as_markdown(report, outcome, command), encoding="utf-8")
    text = json.dumps(document, indent=1) + "\n"
    (out / "evaluation.json").write_text(text, encoding="utf-8")
    return document
