"""`ai-core adapt` and `ai-core experiment adapt`."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def adapt(
    data: Annotated[
        Path, typer.Option("--data", help="Studies of the site, PI-CAI layout; some annotated.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the adaptation and its release.")],
    release: Annotated[
        Path | None, typer.Option("--release", help="Release folder; default: the packaged one.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Settings of the adaptation (TOML).")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the new release.")] = "site",
    roles: Annotated[
        Path | None,
        typer.Option("--roles", help="roles.json of an earlier adaptation: keeps its hold-out."),
    ] = None,
    simulated: Annotated[
        Path | None, typer.Option("--simulated", help="Cached anatomies to rehearse and measure.")
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune/--no-finetune", help="Train the networks, or only adjust.")
    ] = True,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Adapt a release to a site: profile, calibration, fine-tuning, gate.

    Writes the list of studies to annotate next, and a release where the gate lets it pass. Run
    again with the same folder to go on after a stop.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from ai_core.adapt.gate import GateRefused
    from ai_core.adapt.keep import REPORT_FILE
    from ai_core.adapt.plan import read_plan
    from ai_core.adapt.run import Request
    from ai_core.adapt.run import adapt as run

    settings = read_plan(plan)
    if not finetune:
        phase = settings.finetune.phase.model_copy(update={"steps": 0})
        part = settings.finetune.model_copy(update={"phase": phase})
        settings = settings.model_copy(update={"finetune": part})
    request = Request(release, data, out, settings, device, name, simulated, roles)
    try:
        report = run(request)
    except GateRefused:
        if as_json:
            typer.echo((out / REPORT_FILE).read_text(encoding="utf-8"))
        raise
    typer.echo(json.dumps(report, indent=1) if as_json else _words(report, out))


experiment = typer.Typer(help="Experiments on simulated sites.", no_args_is_help=True)


@experiment.callback()
def _experiments() -> None:
    """Measure what a method brings, on simulated sites."""


@experiment.command("adapt")
def experiment_adapt(
    config: Annotated[Path, typer.Option("--config", help="configs/adapt-experiment.toml.")],
    work: Annotated[Path, typer.Option("--work", help="Folder for what can be made anew.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder for one JSON file by cell, table, plot.")
    ],
    cells: Annotated[
        int | None, typer.Option("--cells", min=0, help="At most so many cells; default: all.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "cpu",
) -> None:
    """Adapt to simulated sites: before, by stage, by number and order of annotated studies.

    Finished cells are kept; the table and the plot are made of them.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from ai_core.adapt.experiment import Lab, read_experiment, run_experiment
    from ai_core.adapt.summary import summarise

    lab = Lab(read_experiment(config), work, device)
    run_experiment(lab, out, cells)
    typer.echo(summarise(lab, config, out))


def _words(report: dict[str, Any], out: Path) -> str:
    lines = [f"{report['studies']} studies, {report['annotated']} of them annotated"]
    lines += [f"left out {name}: {why}" for name, why in report["left_out"].items()]
    if report["state"] == "annotate":
        return "\n".join([*lines, report["message"], f"annotate next: {out / 'to-annotate.csv'}"])
    lines += [
        f"{c['figure']} on the {c['cases']} ({c['count']}): {c['before']:.3f} -> {c['after']:.3f}"
        for c in report["checks"]
    ]
    return "\n".join([*lines, f"release written to {report['release']}", report["sha256"]])
