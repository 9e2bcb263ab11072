"""`dicom-node alarms list, test` and `canary run, list`."""

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
from dicom_node.errors import NodeError, WrongUseError

app = typer.Typer(help="What is wrong, and how people are told.", no_args_is_help=True)
canary = typer.Typer(help="A test study through the whole path.", no_args_is_help=True)
_Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many at most.")]


@app.command("list")
def alarms_list(
    limit: _Limit = 100,
    going_on: Annotated[bool, typer.Option("--going-on", help="Only what goes on.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """List alarms: those that go on first."""
    from dicom_node.flow.monitored import alarm_json

    with open_store(config) as (_, store):
        rows = [alarm_json(row) for row in store.alarms(limit, going_on=going_on)]
    if as_json:
        print_json(rows)
        return
    columns = ("severity", "words", "subject", "found", "began_at", "ended_at", "advice")
    print_table("Alarms", columns, [[row[column] for column in columns] for row in rows])


@app.command("test")
def alarms_test(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Send a test message to each channel now. Exit status 1 where one did not take it."""
    from dicom_node.clock import SystemClock
    from dicom_node.config import load_config
    from dicom_node.flow.messages import send_by, trial_body

    loaded, now_s = load_config(config), SystemClock().now_s()
    if not loaded.alarms.channels:
        raise WrongUseError("no channel is set up", "set alarms.webhook_url or alarms.mail_to")
    found = []
    for channel in loaded.alarms.channels:
        problem = ""
        try:
            send_by(loaded, channel, trial_body(loaded, now_s), now_s)
        except NodeError as error:
            problem = str(error)
        found.append({"channel": channel, "taken": not problem, "problem": problem or None})
    if as_json:
        print_json(found)
    else:
        rows = [(one["channel"], "taken" if one["taken"] else "not taken", one["problem"])
                for one in found]  # fmt: skip
        print_table("Test messages", ("channel", "state", "problem"), rows)
    raise typer.Exit(0 if all(one["taken"] for one in found) else 1)


@canary.command("run")
def canary_run(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Send a test study through the running node and wait for it. Exit status 1: it is lost."""
    from dicom_node.domain.canary import RunState
    from dicom_node.flow.monitored import canary_json
    from dicom_node.path_canary import PathCanary

    with open_store(config) as (loaded, store):
        run = PathCanary(store, loaded, store.clock).run_once()
    told = canary_json(run)
    if as_json:
        print_json(told)
    else:
        typer.echo(f"{run.state} after {told['seconds']} s: {run.message}")
    raise typer.Exit(0 if run.state is RunState.PASSED else 1)


@canary.command("list")
def canary_list(
    limit: _Limit = 20, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """List test studies, the latest first."""
    from dicom_node.flow.monitored import canary_json

    with open_store(config) as (_, store):
        rows = [canary_json(run) for run in store.canary_runs(limit)]
    if as_json:
        print_json(rows)
        return
    columns = ("started_at", "state", "seconds", "message", "study_uid")
    print_table("Canaries", columns, [[row[column] for column in columns] for row in rows])
