"""`dicom-node conformance`: the DICOM conformance statement of this configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.commands.common import DEFAULT_CONFIG, JsonOption, open_store, print_json
from dicom_node.config import NodeConfig, PeerConfig, load_config


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command("conformance")(conformance)


def conformance(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="DICOM_NODE_CONFIG",
            help=f"Configuration file; {DEFAULT_CONFIG} where it exists, else the defaults.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the DICOM conformance statement of this configuration, as Markdown."""
    from dicom_node.conformance.statement import statement

    file = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    if file is None:
        document = statement(NodeConfig())
    else:
        loaded = load_config(file)
        document = statement(loaded, _peers(file, loaded), file.name)
    if as_json:
        print_json(document.as_dict())
    else:
        sys.stdout.write(document.markdown())


def _peers(file: Path, config: NodeConfig) -> list[PeerConfig]:
    """Return every peer; a database that was not made yet is not made for this."""
    from dicom_node.flow.peers import all_peers

    if not config.node.database and not (config.node.data_dir / "node.sqlite3").exists():
        return list(config.peers)
    with open_store(file) as (_, store):
        return [entry.peer for entry in all_peers(store, config)]
