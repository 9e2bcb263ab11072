"""`dicom-node annotations`: what people stored about the node's findings."""

from __future__ import annotations

from collections import Counter
from functools import partial
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
from dicom_node.domain.annotation import AnnotationState
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from dicom_node.config import NodeConfig

app = typer.Typer(help="What people stored about the node's findings.", no_args_is_help=True)
StudyArgument = Annotated[str, typer.Argument(help="Study Instance UID.")]
_COLUMNS = (
    "study_uid", "kind", "state", "reason", "person", "made_at", "parts", "agreement", "dice",
)  # fmt: skip


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[
        AnnotationState | None, typer.Option("--state", help="Only those in this state.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what was stored, in order of arrival: who, about what, used or not and why."""
    from dicom_node.flow.annotated import annotation_json

    with open_store(config) as (_, store):
        rows = [annotation_json(row) for row in store.annotations_of()]
    rows = [row for row in rows if state is None or row["state"] == state]
    if as_json:
        print_json(rows)
        return
    print_table("Annotations", _COLUMNS, [[_cell(row, name) for name in _COLUMNS] for row in rows])


@app.command("show")
def show(
    study_uid: StudyArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Show the annotations of one study: regions, and agreement for each finding."""
    from dicom_node.flow.annotated import annotation_json

    with open_store(config) as (_, store):
        rows = [annotation_json(row) for row in store.annotations_of(study_uid)]
    if not rows:
        raise NodeError(
            f"this node holds no annotation of study {study_uid}", "see dicom-node annotations list"
        )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        _print(row)


@app.command("export")
def export(
    config: ConfigOption = DEFAULT_CONFIG,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write to; annotated/ in the data folder if absent."),
    ] = None,
    study: Annotated[
        list[str] | None, typer.Option("--study", help="Only this study; may be repeated.")
    ] = None,
    unannotated: Annotated[
        int,
        typer.Option("--unannotated", min=0, help="Also so many of the newest without annotation."),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write the annotated studies in the PI-CAI layout that `ai-core train` and `adapt` read."""
    from rich.console import Console
    from rich.progress import Progress

    from dicom_node.flow.annotated import FOLDER, analyser, export_annotated
    from dicom_node.flow.unannotated import export_unannotated

    with open_store(config) as (node_config, store), Progress(
        console=Console(stderr=True), transient=True
    ) as bar:  # fmt: skip
        task = bar.add_task("studies", total=None)
        folder = out or node_config.node.data_dir / FOLDER
        found = export_annotated(
            store, node_config, folder, analyser(partial(_release, node_config)), study or (),
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
        others = export_unannotated(
            store, node_config, folder, unannotated,
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
        found += others
    if as_json:
        print_json([one.as_dict() for one in found])
        return
    for one in found:
        if one.left_out:
            typer.echo(f"left out {one.study_uid}: {one.left_out}")
    annotated = found[: len(found) - len(others)]
    written = sum(not one.left_out for one in annotated)
    typer.echo(f"wrote {written} of {len(annotated)} annotated studies to {folder}")
    if unannotated:
        typer.echo(f"and {sum(not one.left_out for one in others)} without annotation")


@app.command("wanted")
def wanted(
    file: Annotated[Path, typer.Argument(help="to-annotate.json of `ai-core adapt`.")],
    config: ConfigOption = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Say which studies to annotate next: those that an adaptation asks for, by their UIDs."""
    from dicom_node.flow.unannotated import wanted_studies

    with open_store(config) as (node_config, store):
        rows = [one.as_dict() for one in wanted_studies(store, node_config, file)][:limit]
    if as_json:
        print_json(rows)
        return
    columns = ("rank", "study_uid", "patient_id", "annotated", "uncertainty")
    print_table("To annotate", columns, [[row[name] for name in columns] for row in rows])


def _release(config: NodeConfig) -> Any:
    """Load the configured release, or the packaged one, where it may run."""
    from ai_core import load_release
    from dicom_node.registry.choose import release_without_registry

    due, model = release_without_registry(config), config.model
    return load_release(due.folder, model.device, model.precision, due.sha256, synthesis=False)


def _cell(row: dict[str, Any], name: str) -> object:
    if name == "parts":
        return ", ".join(row["parts"])
    if name == "agreement":
        counted = Counter(one["verdict"] for one in row["findings"])
        return ", ".join(f"{number} {verdict}" for verdict, number in counted.items())
    if name == "dice":
        return ", ".join(f"{one['dice']:.2f}" for one in row["findings"] if one["dice"] is not None)
    return row[name]


def _print(row: dict[str, Any]) -> None:
    typer.echo(f"{row['kind']}  {row['sop_instance_uid']}  from {row['from']}")
    typer.echo(f"state     {row['state']}" + (f" ({row['reason']})" if row["reason"] else ""))
    if row["message"]:
        typer.echo(f"message   {row['message']}")
    typer.echo(f"person    {row['person'] or 'not named'}, {row['made_at'] or 'time not given'}")
    if row["revision"] is not None:
        typer.echo(f"revision  {row['revision']}" + (", verified" if row["verified"] else ""))
    for one in row["regions"]:
        known_by = f" (by {one['by']})" if one["by"] else ""
        what = f"{one['segment']} {one['label']!r}: {one['meaning']}{known_by}"
        typer.echo(f"segment   {what}, {one['volume_ml']:.2f} mL")
    for one in row["findings"]:
        _print_agreement(one)
    for name, value in row["dice"].items():
        typer.echo(f"{name:<9} dice {value:.2f}")
    typer.echo("")


def _print_agreement(one: dict[str, Any]) -> None:
    what = "lesion" if one["finding"] is None else f"finding {one['finding']}"
    parts = [one["verdict"]]
    if one["dice"] is not None:
        parts.append(f"dice {one['dice']:.2f}, {'hit' if one['hit'] else 'no hit'}")
    typer.echo(f"{what:<9} {', '.join([*parts, *one['changes']])}")
