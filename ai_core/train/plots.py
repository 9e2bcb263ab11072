"""Pictures of a training log: one PNG beside each CSV."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: Batches are few and differ much: the line is a running mean over this share of the log.
SMOOTHING = 0.03


def plot_log(log: Path) -> Path | None:
    """Draw every column of a phase's CSV over its steps; returns the picture, None without rows."""
    columns = _read(log)
    names = [name for name in columns if name not in ("step", "elapsed_s")]
    if not names or columns["step"].size < 2:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.1 * len(names)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
    for panel, name in zip(panels, names, strict=True):
        panel.plot(columns["step"], columns[name], color="0.8", linewidth=0.8)
        panel.plot(columns["step"], _smooth(columns[name]), color="C0")
        panel.set_ylabel(name)
    panels[-1].set_xlabel("step")
    figure.suptitle(log.stem)
    picture = log.with_suffix(".png")
    figure.savefig(picture, dpi=110)
    return picture


def _read(log: Path) -> dict[str, npt.NDArray[np.float64]]:
    if not log.exists():
        return {}
    with log.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = list(rows[0]) if rows else []
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a running mean that passes over what is not a number."""
    width = max(1, round(values.size * SMOOTHING))
    known = np.isfinite(values)
    total, count = (
        np.convolve(np.pad(part, width), np.ones(2 * width + 1), mode="valid")
        for part in (np.where(known, values, 0.0), known.astype(float))
    )
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
