"""`dicom-node models drift`: is what the scanners send, and what is found, still what it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.commands.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    open_store,
    print_json,
    print_table,
)
from dicom_node.errors import WrongUseError

if TYPE_CHECKING:
    from dicom_node.flow.drift import ScannerReport
    from dicom_node.store.observation_rows import ScannerRow
    from dicom_node.store.store import Store

COLUMNS = ("figure", "PSI", "limit", "before", "now", "studies", "state")


def drift(
    station: Annotated[
        str, typer.Option("--station", help="Only the scanner of this Station Name.")
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw each scanner: FILE, or FILE-1, FILE-2 where several."),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="The change is known: begin the reference anew (--station)."
        ),
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Compare the latest studies of each scanner with its first ones."""
    from dicom_node.flow import drift as watching

    if restart and not station:
        raise WrongUseError("--restart needs --station", "name the scanner that was changed")
    with open_store(config) as (node_config, store):
        rows = _rows(store, station)
        if restart:
            watching.restart(store, node_config, store.clock, rows)
            rows = _rows(store, station)
        reports = [watching.look(store, node_config, row) for row in rows]
        files = [] if plot is None else _draw(store, reports, plot)
    if as_json:
        print_json([{**report.as_dict(), "plot": name} for report, name in _beside(reports, files)])
        return
    if not reports:
        typer.echo("no study was observed yet")
    for report, name in _beside(reports, files):
        print_table(f"{report.row.scanner}: {report.state}", COLUMNS, _cells(report))
        if name is not None:
            typer.echo(f"plot: {name}")


def _rows(store: Store, station: str) -> list[ScannerRow]:
    rows = [row for row in store.scanners() if station in ("", row.scanner.station)]
    if station and not rows:
        raise WrongUseError(f"no study came from station {station}", "see dicom-node models drift")
    return rows


def _draw(store: Store, reports: list[ScannerReport], plot: Path) -> list[str]:
    from dicom_node.drift_plot import draw

    files = []
    for number, report in enumerate(reports, start=1):
        name = plot if len(reports) == 1 else plot.with_stem(f"{plot.stem}-{number}")
        draw(store, report, name)
        files.append(str(name))
    return files


def _beside(
    reports: list[ScannerReport], files: list[str]
) -> list[tuple[ScannerReport, str | None]]:
    return [(report, files[n] if files else None) for n, report in enumerate(reports)]


def _cells(report: ScannerReport) -> list[list[object]]:
    rows: list[list[object]] = []
    for figure in report.figures:
        state = "ALARM" if figure.name in report.alarms else ""
        if figure.psi is None:
            state = state or "too few studies"
        rows.append(
            [
                figure.name.replace("_", " "), _number(figure.psi), _number(figure.limit),
                _told(figure.before), _told(figure.now), "{} / {}".format(*figure.counts), state,
            ]
        )  # fmt: skip
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _told(summary: Any) -> str:
    if set(summary) == {"median"}:
        return f"{summary['median']:.3g}"
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in summary.items())
