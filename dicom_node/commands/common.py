"""What the commands share: the `--config` and `--json` options, opening the store, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.config import NodeConfig, load_config

if TYPE_CHECKING:
    from dicom_node.store.store import Store

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config", envvar="DICOM_NODE_CONFIG", help="Configuration file.", show_default=True
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
DEFAULT_CONFIG = Path("node.toml")


@contextmanager
def open_store(config_file: Path) -> Iterator[tuple[NodeConfig, Store]]:
    """Read the configuration and open the database of the node (made where it is absent)."""
    from dicom_node.store.shared_clock import clock_of
    from dicom_node.store.store import Store, version_of

    config = load_config(config_file)
    config.node.data_dir.mkdir(parents=True, exist_ok=True)
    # parts of another version may run on a shared database: dicom-node migrate looks for them
    create = not config.shared or version_of(config.database_url) is None
    clock = clock_of(config.database_url, lasting=False)
    store = Store(config.database_url, clock=clock, create=create)
    try:
        yield config, store
    finally:
        store.close()


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows as a table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
