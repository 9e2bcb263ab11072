"""The plot of a scanner: each figure over its studies, the windows shaded, alarms in red."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.domain.drift import FIGURES, Figure, Group, Value, agreement_values
from dicom_node.errors import NodeError
from dicom_node.flow.drift import ScannerReport
from dicom_node.store.observation_rows import ObservedStudy
from dicom_node.store.store import Store

MOST_STUDIES = 2000
"""So many after the reference are drawn, the latest."""
_COLUMNS = 4
_RUNNING = 25
_CATEGORIES = 6
_ONE_AT_A_TIME = threading.Lock()
_PLACES = threading.BoundedSemaphore(4)
"""So many wait for their plot; more would hold the threads of other pages (G5)."""


@dataclass(frozen=True)
class Palette:
    """Colours of a plot."""

    ground: str
    ink: str
    line: str
    alarm: str
    calm: str
    reference: str
    current: str


LIGHT = Palette("#ffffff", "#1b242c", "#9aa7b3", "#b3261e", "#2f5d8a", "#dfe7ef", "#f3e3c3")
DARK = Palette("#1a2026", "#e4eaf0", "#5b6875", "#ff8d82", "#6fb3e0", "#28333e", "#4a3b1c")


def draw(store: Store, report: ScannerReport, file: Path) -> None:
    """Write the plot of a scanner; the ending of the file name says its kind (png, pdf, svg)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _canvas(store, report, LIGHT).savefig(file, dpi=90)


def picture(store: Store, report: ScannerReport, palette: Palette) -> bytes:
    """Return the plot of a scanner as PNG. Safe for many threads; one is drawn at a time.

    Raises:
        NodeError: too many are asked for at this moment.
    """
    if not _PLACES.acquire(blocking=False):
        raise NodeError("other plots are being drawn", "try again in some seconds")
    out = io.BytesIO()
    try:
        with _ONE_AT_A_TIME:
            canvas = _canvas(store, report, palette)
            canvas.savefig(out, format="png", dpi=90, facecolor=palette.ground)
    finally:
        _PLACES.release()
    return out.getvalue()


def _canvas(store: Store, report: ScannerReport, palette: Palette) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    rows = -(-len(FIGURES) // _COLUMNS)
    canvas = Canvas(figsize=(4 * _COLUMNS, 2.5 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(canvas)
    title = f"{report.row.scanner}: {report.state}, {report.row.studies} studies"
    canvas.suptitle(title, color=palette.ink)
    axes = canvas.subplots(rows, _COLUMNS).ravel()
    for figure, axis in zip(report.figures, axes, strict=False):
        _paint(axis, palette)
        _panel(axis, figure, _series(store, report, figure), report, palette)
    for axis in axes[len(report.figures) :]:
        axis.set_axis_off()
    return canvas


def _paint(axis: Any, palette: Palette) -> None:
    axis.set_facecolor(palette.ground)
    axis.tick_params(labelsize=8, color=palette.line, labelcolor=palette.ink)
    for spine in axis.spines.values():
        spine.set_color(palette.line)


def _series(
    store: Store, report: ScannerReport, figure: Figure
) -> tuple[Sequence[ObservedStudy], int]:
    """Studies from the first of the reference on, and how many of them are the reference."""
    first = len(report.windows[figure.group][0])
    if first == 0:
        return [], 0
    if figure.group is Group.AGREEMENT:
        both = store.annotated(report.row, first, MOST_STUDIES, report.release)
    else:
        of_release = figure.group is Group.OUTPUT or figure.name == "out_of_distribution"
        release = report.release if of_release else None
        both = store.observed(report.row, first, MOST_STUDIES, release)
    return [*both[0], *both[1]], len(both[0])


def _panel(
    axis: Any, figure: Figure, series: tuple[Sequence[ObservedStudy], int],
    report: ScannerReport, palette: Palette,
) -> None:  # fmt: skip
    studies, first = series
    alarm = figure.name in report.alarms
    words = FIGURES[figure.name][1]
    told = "too few studies" if figure.psi is None else f"PSI {figure.psi:.2f}, limit "
    if figure.limit is not None:
        told += f"{figure.limit:.2f}"
    axis.set_title(f"{words}\n{told}", fontsize=9, color=palette.alarm if alarm else palette.ink)
    values = [_value(study, figure.name) for study in studies]
    if not any(value is not None for value in values):
        axis.set_xticks([])
        axis.set_yticks([])
        return
    current = len(report.windows[figure.group][1])
    axis.axvspan(-0.5, first - 0.5, color=palette.reference, lw=0)
    if current:
        axis.axvspan(len(studies) - current - 0.5, len(studies) - 0.5, color=palette.current, lw=0)
    axis.set_xlim(-0.5, max(1, len(studies)) - 0.5)
    colour = palette.alarm if alarm else palette.calm
    if any(isinstance(value, str) for value in values):
        _categories(axis, [None if v is None else str(v) for v in values], colour)
    else:
        _numbers(axis, values, colour)


def _value(study: ObservedStudy, name: str) -> Value | None:
    if FIGURES[name][0] is Group.AGREEMENT:
        return agreement_values(study.findings).get(name)
    return study.values.get(name)


def _numbers(axis: Any, values: Sequence[Value | None], colour: str) -> None:
    places = np.array([n for n, value in enumerate(values) if value is not None])
    known = np.array([float(value) for value in values if value is not None])
    axis.plot(places, known, ".", ms=2.5, color=colour, alpha=0.55)
    if len(known) >= _RUNNING:
        windows = np.lib.stride_tricks.sliding_window_view(known, _RUNNING)
        axis.plot(places[_RUNNING - 1 :], np.median(windows, axis=1), color=colour, lw=1.4)


def _categories(axis: Any, values: Sequence[str | None], colour: str) -> None:
    common = [name for name, _ in Counter(v for v in values if v).most_common(_CATEGORIES)]
    for height, name in enumerate(common):
        places = [n for n, value in enumerate(values) if value == name]
        axis.plot(places, [height] * len(places), "|", ms=7, color=colour)
    axis.set_yticks(range(len(common)), common)
    axis.set_ylim(-0.6, len(common) - 0.4)
