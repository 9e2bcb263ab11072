"""`dicom-node retention`: what the rules of `[retention]` would delete, and deleting it now."""

from __future__ import annotations

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

app = typer.Typer(help="How long images and results are kept.", no_args_is_help=True)
_GIB = 2**30
_SHOWN = 200


@app.command("plan")
def plan_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show what would go now, why and how much room that makes; nothing is deleted."""
    from dicom_node.flow.health import disk_of
    from dicom_node.flow.retention import plan, pressure_of
    from dicom_node.store.times import iso

    with open_store(config) as (node_config, store):
        short = pressure_of(store, node_config, disk_of(node_config.node.data_dir)).words
        found = list(plan(store, node_config, store.clock))
    total = sum(one.freed_bytes for one in found)
    rows = [
        {
            "study_uid": one.kept.study_uid, "sort": one.sort,
            "ended_at": iso(one.kept.facts.ended_at_s),
            "images": one.kept.images if one.images else 0,
            "results": one.kept.results if one.results else 0, "bytes": one.freed_bytes,
            "why": one.why,
        }
        for one in found
    ]  # fmt: skip
    if as_json:
        print_json(
            {"enabled": node_config.retention.enabled, "short_of_room": short or None,
             "bytes": total, "studies": rows}
        )  # fmt: skip
        return
    if rows:
        columns = ("study_uid", "sort", "ended_at", "images", "results", "bytes", "why")
        print_table("Would go now", columns, [[row[c] for c in columns] for row in rows[:_SHOWN]])
    if len(rows) > _SHOWN:
        typer.echo(f"and {len(rows) - _SHOWN} more: --json shows all")
    typer.echo(f"{len(rows)} studies, {total / _GIB:.2f} GiB" + (f"; {short}" if short else ""))
    if not node_config.retention.enabled:
        typer.echo("retention.enabled is false: the node deletes nothing by itself")


@app.command("run")
def run_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Delete now what `retention plan` shows; the node may run."""
    from dicom_node.flow.audit import AuditTrail
    from dicom_node.flow.retention import Retention

    with open_store(config) as (node_config, store):
        clock = store.clock
        trail = AuditTrail(store, node_config, clock)
        retention = Retention(store, node_config, clock, trail)
        if not retention.turn():
            raise NodeError(
                "the node itself, or a backup, has the turn to delete", "try again in ten minutes"
            )
        try:
            gone = retention.sweep()
        finally:
            retention.end()
            trail.flush()
    report = {
        "studies": len(gone), "images": sum(sum(one.images.values()) for one in gone),
        "results": sum(sum(one.results.values()) for one in gone),
        "bytes": sum(one.freed_bytes for one in gone),
    }  # fmt: skip
    if as_json:
        print_json(report)
    else:
        typer.echo(", ".join(f"{value} {name}" for name, value in report.items()) + " removed")
