"""Plots of an evaluation: ROC, FROC, calibration, strata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ai_core.evaluate.metrics import froc, reliability

if TYPE_CHECKING:
    from ai_core.evaluate.report import Report

SIZE_IN = (5.0, 4.2)
MOST_FALSE_PER_CASE = 4.0


def write_plots(report: Report, out: Path) -> None:
    """Write the four PNG files."""
    for name, draw in (("roc", _roc), ("froc", _froc), ("calibration", _calibration)):
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        draw(figure.subplots(), report)
        figure.savefig(out / f"{name}.png", dpi=120)
    _strata(report, out / "strata.png")


def _roc(axes: Axes, report: Report) -> None:
    data = report.main
    right, wrong = data.cases.counts(np.ones(len(data.drawn)))
    if len(right) and right[-1] > 0 and wrong[-1] > 0:
        axes.step([0, *(wrong / wrong[-1])], [0, *(right / right[-1])], where="post")
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="By case", aspect="equal")


def _froc(axes: Axes, report: Report) -> None:
    per_case, share, _ = froc(report.main.lesions, report.main.drawn)
    axes.step([0, *per_case], [0, *share], where="post")
    axes.set(
        xlabel="false positives per case",
        ylabel="lesion sensitivity",
        title="By lesion",
        xlim=(0, MOST_FALSE_PER_CASE),
        ylim=(0, 1),
    )


def _calibration(axes: Axes, report: Report) -> None:
    ones = np.ones(len(report.main.drawn))
    for rows, name in ((report.main.cases, "case"), (report.main.findings, "finding")):
        mean, share, _ = reliability(rows, ones)
        axes.plot(mean, share, "o-", label=name)
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.legend()
    axes.set(xlabel="suspicion index", ylabel="share with significant cancer", aspect="equal")


def _strata(report: Report, path: Path) -> None:
    """Lesion sensitivity at one false positive per case, with intervals."""
    names, values = [], []
    for kind, groups in report.strata.items():
        for name, group in groups.items():
            if np.isfinite(group["sensitivity_at_1"].value):
                names.append(f"{kind}: {name}")
                values.append(group["sensitivity_at_1"])
    figure = Figure(figsize=(6.0, 1.2 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    middle = np.array([value.value for value in values])
    low = np.array([value.low for value in values])
    high = np.array([value.high for value in values])
    places = np.arange(len(names))
    errors = np.nan_to_num(np.abs(np.array([middle - low, high - middle])))
    axes.errorbar(middle, places, xerr=errors, fmt="o", capsize=2)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="lesion sensitivity at 1 false positive per case")
    figure.savefig(path, dpi=120)
