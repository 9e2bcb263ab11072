"""`dicom-node process`: the same path without network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.commands.common import JsonOption, print_json, print_table
from dicom_node.config import NodeConfig, load_config
from dicom_node.domain.profile import DEFAULT_KINDS, ResultKind


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("process")(process)


def process(
    study_folder: Annotated[Path, typer.Argument(help="Folder with the DICOM files of a study.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to (made where absent).")],
    maps: Annotated[bool, typer.Option("--maps", help="Also write NIfTI maps.")] = False,
    objects: Annotated[
        list[ResultKind] | None,
        typer.Option("--objects", help="Result object to write; repeatable. Default set if none."),
    ] = None,
    psa: Annotated[
        float | None, typer.Option("--psa", help="Serum PSA in ng/mL, for the PSA density.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Analyse a folder and write the result objects.

    Exit status 0 also when the study is not analysable: then a report says why.
    """
    from dicom_node.logs import start_logging
    from dicom_node.process import ProcessOptions, process_folder

    start_logging("process")
    loaded = load_config(config) if config else NodeConfig()
    kinds = tuple(objects) if objects else DEFAULT_KINDS
    options = ProcessOptions(maps=maps, kinds=kinds, psa_ng_ml=psa, registry=config is not None)
    report = process_folder(study_folder, out, loaded, options)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    raise typer.Exit(1 if report["state"] == "failed" else 0)


def _print_report(report: dict[str, object]) -> None:
    typer.echo(f"study     {report['study_uid']}")
    reason = f" ({report['reason']})" if report["reason"] else ""
    typer.echo(f"state     {report['state']}{reason}")
    if report["message"]:
        typer.echo(f"message   {report['message']}")
    findings = report["findings"]
    if isinstance(findings, list):
        columns = ("rank", "sector", "volume_ml", "longest_diameter_mm", "mean_adc_um2_s",
                   "likelihood_percent", "suspicion_score", "significant")  # fmt: skip
        rows = [[finding[column] for column in columns] for finding in findings]
        title = "Findings (machine-made, unverified, research use only)"
        print_table(title, columns, rows) if rows else typer.echo("findings  none")
    for path in report["outputs"]:  # type: ignore[attr-defined]
        typer.echo(f"wrote     {path}")
