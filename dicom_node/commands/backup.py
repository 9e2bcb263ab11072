"""`dicom-node backup, restore, support-bundle`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.commands.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    open_store,
    print_json,
)
from dicom_node.errors import NodeError


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("support-bundle")(support_bundle)


def backup(
    out: Annotated[Path, typer.Option("--out", help="Folder of the backups; each makes its own.")],
    images: Annotated[
        bool,
        typer.Option("--images", help="All images; else those in work, held or annotated."),
    ] = False,
    with_keys: Annotated[
        bool,
        typer.Option("--with-keys", help="Private keys, certificates, passwords: keep it safe."),
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Back the node up while it runs: database, results, releases, configuration."""
    from dicom_node.flow.backup import Wanted, make_backup

    with open_store(config) as (node_config, store), _progress("copying") as progress:
        folder, told = make_backup(
            store, node_config, out, store.clock, Wanted(config, images, with_keys), progress
        )
    size = sum(one.size for one in told.files)
    if as_json:
        print_json(
            {"folder": str(folder), "files": len(told.files), "bytes": size,
             "missing": list(told.missing)}
        )  # fmt: skip
    else:
        typer.echo(f"{folder}: {len(told.files)} files, {size / 2**30:.2f} GiB")
    if told.missing:
        raise NodeError(
            f"{len(told.missing)} files that the database counts on are not there",
            "the backup holds the rest; see dicom-node doctor, and the disk",
        )


def restore(
    source: Annotated[
        Path, typer.Option("--from", help="A backup, or the folder of backups: the latest.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Fill an empty data folder from a backup; where there is no configuration, it is written."""
    from dicom_node.clock import SystemClock
    from dicom_node.config import load_config
    from dicom_node.durable import write_file
    from dicom_node.flow.backup import CONFIG, CONFIG_NAME, newest
    from dicom_node.flow.restore import restore_backup

    folder = newest(source)
    if folder is None:
        raise NodeError(f"no backup in {source}", "name what dicom-node backup wrote")
    if not config.exists():
        write_file(config, [(folder / CONFIG / CONFIG_NAME).read_bytes()], mode=0o600)
        typer.echo(f"wrote {config} from the backup", err=True)
    with _progress("restoring") as progress:
        report = restore_backup(folder, load_config(config), SystemClock(), progress)
    if as_json:
        print_json(report)
    else:
        for key, value in report.items():
            typer.echo(f"{key}: {value}")
        typer.echo("next: dicom-node doctor, then dicom-node serve")


def support_bundle(
    out: Annotated[Path, typer.Option("--out", help="ZIP file to write.")],
    study: Annotated[
        str, typer.Option("--study", help="Also how the series of this study were chosen.")
    ] = "",
    log: Annotated[
        list[Path] | None, typer.Option("--log", help="Log file of the node; more than one can be.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write what helps others to help: no pixels, no patients, no passwords."""
    from dicom_node.support import write_bundle

    names = write_bundle(config, out, study, log or [])
    typer.echo(f"wrote {out}: {', '.join(names)}; look at it before you send it")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
