"""`dicom-node studies`: what the node holds and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.commands.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    open_store,
    print_json,
    print_table,
)
from dicom_node.errors import NodeError

app = typer.Typer(help="The studies this node holds.", no_args_is_help=True)
StudyArgument = Annotated[str, typer.Argument(help="Study Instance UID.")]
_COLUMNS = ("study_uid", "revision", "state", "reason", "instances", "received_at", "delivered")


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List every study revision, newest first."""
    with open_store(config) as (_, store):
        rows = store.studies_list()
    if as_json:
        print_json(rows)
        return
    table = [
        [_delivered(row) if key == "delivered" else row[key] for key in _COLUMNS] for row in rows
    ]
    print_table("Studies", _COLUMNS, table)


@app.command("show")
def show(
    study_uid: StudyArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Show the revisions of one study: state, reason, model, results, deliveries, timeline."""
    from dicom_node.flow.outbox import model_of

    with open_store(config) as (node_config, store):
        rows = store.studies_show(study_uid)
        events = store.timeline(study_uid)
    if not rows:
        raise _unknown(study_uid)
    for row in rows:
        row["model"] = model_of(node_config.node.data_dir, study_uid, row["revision"])
    if as_json:
        print_json([{**row, "timeline": _of_revision(events, row["revision"])} for row in rows])
        return
    for row in rows:
        _print_revision(row, _of_revision(events, row["revision"]))


@app.command("retry")
def retry(study_uid: StudyArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Try a study again that failed, is held, was not analysable, or was not delivered."""
    from dicom_node.flow.operate import retry_study

    with open_store(config) as (node_config, store):
        typer.echo(retry_study(store, node_config, study_uid))


@app.command("resend")
def resend(
    study_uid: StudyArgument,
    peer: Annotated[str | None, typer.Option("--to", help="This destination alone.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send the results of a study again, byte for byte, also what arrived."""
    from dicom_node.flow.operate import send_again

    with open_store(config) as (node_config, store):
        typer.echo(send_again(store, node_config, study_uid, peer))


@app.command("export")
def export(
    study_uid: StudyArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to (made where absent).")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Write the received instances as Part 10 files, data set bytes as received."""
    from dicom_node.flow.export import export_study, removed_on

    with open_store(config) as (node_config, store):
        written = export_study(store, node_config, study_uid, out)
        known = store.headers_of(study_uid)
    if not written:
        raise _unknown(study_uid)
    if as_json:
        print_json([str(path) for path in written])
    else:
        typer.echo(f"wrote {len(written)} instances to {out}")
    if missing := len(known) - len(written):
        removed = f"{missing} instances were removed on {removed_on(known)} by retention"
        typer.echo(removed, err=True)


def _unknown(study_uid: str) -> NodeError:
    return NodeError(f"this node holds no study {study_uid}", "see dicom-node studies list")


def _of_revision(events: list[dict[str, Any]], revision: int) -> list[dict[str, Any]]:
    return [event for event in events if event.get("revision") in (revision, None)]


def _delivered(row: dict[str, Any]) -> str:
    deliveries = [delivery for result in row["results"] for delivery in result["deliveries"]]
    done = sum(delivery["state"] in ("sent", "verified") for delivery in deliveries)
    return f"{done} of {len(deliveries)}" if deliveries else ""


def _print_revision(row: dict[str, Any], events: list[dict[str, Any]]) -> None:
    typer.echo(f"study     {row['study_uid']}  revision {row['revision']}")
    typer.echo(f"state     {row['state']}" + (f" ({row['reason']})" if row["reason"] else ""))
    if row["message"]:
        typer.echo(f"message   {row['message']}")
    typer.echo(f"received  {row['instances']} instances, since {row['received_at']}")
    if row["model"]:
        model = row["model"]
        typer.echo(f"model     {model['name']} {model['version']}  {model['sha256']}")
    for what in ("images", "results"):
        if row[f"{what}_removed_at"]:
            typer.echo(f"removed   {what}, on {row[f'{what}_removed_at']} by retention")
    for result in row["results"]:
        form = f" ({result['variant']})" if result["variant"] else ""
        typer.echo(f"result    {result['kind']}{form}  {result['sop_instance_uid']}")
        for delivery in result["deliveries"]:
            tries = f"{delivery['attempts']} attempt" + ("s" if delivery["attempts"] != 1 else "")
            kept = f" ({delivery['confirmation']})" if delivery["confirmation"] else ""
            typer.echo(f"            to {delivery['peer']}: {delivery['state']}{kept}, {tries}")
    for one in row["left_out"]:
        what = f"replaced by {one['replaced_by']}" if one["replaced_by"] else "left out"
        typer.echo(f"to {one['peer']}: {one['kind']} {what}: {one['reason']}")
    if events:
        print_table("Timeline", ("at", "event", "detail"), [
            (event["at"], event["event"], event["detail"]) for event in events
        ])  # fmt: skip
    typer.echo("")
