"""`dicom-node init, serve, migrate, status, doctor, recover, phantom`."""

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
from dicom_node.errors import ConfigError, NodeError, WrongUseError
from dicom_node.instance import ROLES, chosen_roles

if TYPE_CHECKING:
    from dicom_node.config import NodeConfig
    from dicom_node.store.observation_rows import ScannerRow

SCANNERS_SHOWN = 50
"""So many stand in `status`, those in alarm first; `models drift` shows all."""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (init, serve, migrate, status, doctor, recover, phantom):
        app.command(command.__name__)(command)


def init(
    file: Annotated[Path, typer.Argument(help="Configuration file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented configuration with every setting and its default."""
    from dicom_node.config_text import commented_default
    from dicom_node.durable import write_file

    if file.exists() and not force:
        raise ConfigError(f"{file} exists", "choose another name, or give --force")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, [commented_default().encode()])
    typer.echo(f"wrote {file}; next: dicom-node serve --config {file}")


def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    roles: Annotated[
        str,
        typer.Option(
            "--roles", help="Of receiver, worker, delivery, web; a part needs PostgreSQL."
        ),
    ] = ",".join(ROLES),
    instance: Annotated[
        str,
        typer.Option("--instance", help="Name of this part; default: of the host, and its roles."),
    ] = "",
) -> None:
    """Run the node: receiver, worker, delivery, web. Prints `ready` once every port is open."""
    from dicom_node.config import load_config
    from dicom_node.logs import guard_tracebacks, start_logging
    from dicom_node.net.listening import listeners
    from dicom_node.supervisor import Supervisor
    from dicom_node.web.listening import check_listening

    loaded = load_config(config)
    parts = _parts(loaded, roles)
    if "receiver" in parts:
        listeners(loaded)  # nothing is begun where a port may not be opened
    if "web" in parts and loaded.web.enabled:
        check_listening(loaded)
    start_logging("supervisor")
    guard_tracebacks()
    raise typer.Exit(Supervisor(loaded, config, parts, instance).run(_say))


def _parts(config: NodeConfig, text: str) -> tuple[str, ...]:
    """Return the roles to run.

    Raises:
        WrongUseError: there is no such role, or nothing that the others could share.
    """
    parts = chosen_roles(text)
    if len(parts) < len(ROLES) and not config.shared:
        raise WrongUseError(
            "a part of a node needs a database that the others share", "set node.database"
        )
    if parts == ("web",) and not config.web.enabled:
        raise WrongUseError("the role web has nothing to do", "set web.enabled = true")
    return parts


def migrate(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Bring the database to the schema of this version. No part of the node may run."""
    from dicom_node.clock import SystemClock
    from dicom_node.config import load_config
    from dicom_node.store.engine import HEAD
    from dicom_node.store.store import Store, version_of
    from dicom_node.supervisor import lock_data_dir

    loaded = load_config(config)
    found = version_of(loaded.database_url) if _may_exist(loaded) else None
    if found == HEAD:
        typer.echo(f"schema {HEAD}, nothing to do")
        return
    with lock_data_dir(loaded.node.data_dir, wait_s=1.0):
        Store(loaded.database_url, clock=SystemClock(), create=True).close()
    typer.echo(f"schema {HEAD}, was {found or 'none'}")


def _may_exist(config: NodeConfig) -> bool:
    return config.shared or (config.node.data_dir / "node.sqlite3").exists()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the contract wants this line on stdout at once


def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show what the node holds and does."""
    from dicom_node.flow.health import storage_state
    from dicom_node.flow.monitored import alarms_json, processes_json
    from dicom_node.registry.switch import named_releases

    with open_store(config) as (node_config, store):
        report = store.status()
        report["storage"] = storage_state(node_config.node.data_dir).as_dict()
        report["processes"] = processes_json(store.processes(), store.clock.now_s())
        report["alarms"] = alarms_json(store.alarms(going_on=True))
        refusals = store.refusals()
        releases = {one.row.id: str(one) for one in named_releases(node_config, store)}
        report["models"] = (
            {str(rule.scope): releases[rule.release_id] for rule in store.rules()}
            if not node_config.model.release
            else {"pinned": node_config.model.release}
        )
        report["drift"] = {
            str(row.scanner): _drift_words(row) for row in store.scanners(SCANNERS_SHOWN)
        }
    if as_json:
        print_json({"ae_title": node_config.node.ae_title, **report, "refusals": refusals})
        return
    processes, alarms = report.pop("processes"), report.pop("alarms")
    rows = [(key, value) for key, value in _flatten(report)]
    print_table(f"Node {node_config.node.ae_title}", ("what", "value"), rows)
    _print_rows("Processes", ("role", "host", "alive", "seen_s", "version"), processes)
    _print_rows("Alarms", ("severity", "words", "subject", "found", "began_at"), alarms)
    if refusals:
        columns = ("last_at", "calling_ae", "called_ae", "address", "reason", "count")
        cells = [[refusal[column] for column in columns] for refusal in refusals]
        print_table("Refused senders", columns, cells)


def _print_rows(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    if rows:
        print_table(title, columns, [[row[column] for column in columns] for row in rows])


def _drift_words(row: ScannerRow) -> str:
    if row.alarms:
        return "ALARM: " + ", ".join(sorted(row.alarms)) + "; see models drift"
    return f"no alarm, {row.studies} studies"


def _flatten(report: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in report.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{key} ")
        else:
            rows.append((prefix + key, value))
    return rows


def doctor(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check this installation and say what to do. Exit status 1 where something is wrong."""
    from dicom_node.doctor import examine

    checks = examine(config)
    if as_json:
        print_json([check.as_dict() for check in checks])
    else:
        print_table(
            "Doctor", ("check", "state", "found", "advice"),
            [(check.name, check.state, check.found, check.advice) for check in checks],
        )  # fmt: skip
    raise typer.Exit(1 if any(check.state == "wrong" for check in checks) else 0)


def recover(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Rebuild the database from the spool. The node must be stopped."""
    from dicom_node.clock import SystemClock
    from dicom_node.config import load_config
    from dicom_node.flow.rebuild import rebuild_database
    from dicom_node.registry.switch import restore
    from dicom_node.store.store import Store
    from dicom_node.supervisor import lock_data_dir

    loaded = load_config(config)
    with lock_data_dir(loaded.node.data_dir):
        report = rebuild_database(loaded)
        store = Store(loaded.database_url, clock=SystemClock())
        try:
            report |= restore(loaded, store)
        finally:
            store.close()
    if as_json:
        print_json(report)
    else:
        for key, value in report.items():
            typer.echo(f"{key}: {value}")


def phantom(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to (made where absent).")],
) -> None:
    """Write the packaged synthetic study as DICOM files."""
    from dicom_node.durable import write_file
    from dicom_node.phantom import packaged_study

    files = sorted(path for path in packaged_study().rglob("*.dcm"))
    if not files:
        raise NodeError("the packaged study is missing", "install the project again")
    root = packaged_study()
    for file in files:
        target = out / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, [file.read_bytes()])
    typer.echo(f"wrote {len(files)} instances to {out}")
