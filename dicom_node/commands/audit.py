"""`dicom-node audit`: the audit trail."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_node.commands.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    open_store,
    print_json,
    print_table,
)

app = typer.Typer(
    help="The audit trail (DICOM PS3.15 A.5): append-only, hash-chained.", no_args_is_help=True
)


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    after: Annotated[int, typer.Option(min=0, help="Only records behind this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List records, oldest first. The reading is recorded too (PS3.15 A.5.3.2)."""
    from dicom_node.clock import SystemClock
    from dicom_node.flow.audit import AuditTrail
    from dicom_node.store.times import iso

    with open_store(config) as (node_config, store):
        rows = store.audit_list(after, limit)
        trail = AuditTrail(store, node_config, SystemClock())
        trail.trail_read()
        trail.flush()
    shown = [
        {
            "number": row.number, "at": iso(row.at_s), "event": row.event,
            "subject": row.subject, "hash": row.hash, "message": row.message,
        }
        for row in rows
    ]  # fmt: skip
    if as_json:
        print_json(shown)
        return
    columns = ("number", "at", "event", "subject", "hash")
    print_table("Audit trail", columns, [[row[name] for name in columns] for row in shown])


@app.command("verify")
def verify(
    config: ConfigOption = DEFAULT_CONFIG,
    expect: Annotated[
        str, typer.Option("--expect", help="NUMBER:HASH noted earlier; must still be in the trail.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Compute the chain anew. Exit status 1 where a record is missing or was changed."""
    from dicom_node.errors import WrongUseError
    from dicom_node.store.times import iso

    number, _, digest = expect.partition(":")
    if expect and not (number.isdigit() and int(number) > 0 and digest):
        raise WrongUseError("--expect wants NUMBER:HASH", "take both from an earlier audit verify")
    with open_store(config) as (_, store):
        check = store.audit_verify()
        problem, broken_at = check.problem, check.broken_at
        if expect and not problem:
            found = store.audit_list(int(number) - 1, 1)
            if not found or (found[0].number, found[0].hash) != (int(number), digest):
                problem, broken_at = f"record {number} is not the one that was noted", int(number)
    if as_json:
        print_json({
            "whole": not problem, "records": check.records, "head": check.head,
            "problem": problem or None, "broken_at": broken_at, "last_at": iso(check.last_at_s),
        })  # fmt: skip
    elif problem:
        typer.echo(
            f"error: {problem}; keep the database as it is, compare it with what was forwarded, "
            "and find out who could write to it",
            err=True,
        )
    else:
        typer.echo(f"{check.records} records, whole; head {check.records}:{check.head}")
    raise typer.Exit(1 if problem else 0)
