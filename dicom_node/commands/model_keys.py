"""`dicom-node models keys` and `models sign`: whose releases run."""

from __future__ import annotations

from pathlib import Path
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
from dicom_node.errors import WrongUseError

app = typer.Typer(help="Keys whose releases run (Ed25519).", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="Name of the key.")]


@app.command("make")
def make(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Make a key to sign releases with, and trust it. The private half is readable by you alone."""
    from dicom_node.registry.keys import make_key, private_folder
    from dicom_node.registry.switch import record

    with open_store(config) as (node_config, store):
        found = make_key(node_config, name)
        record(node_config, store, "key made and trusted", found, [("name", name)])
    typer.echo(f"made {private_folder(node_config) / name}.key; fingerprint {found}")


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the trusted keys."""
    from dicom_node.registry.keys import fingerprint, private_folder, trusted_keys

    with open_store(config) as (node_config, _):
        rows = [
            {
                "name": name, "fingerprint": fingerprint(key),
                "private_here": (private_folder(node_config) / f"{name}.key").exists(),
            }
            for name, key in trusted_keys(node_config).items()
        ]  # fmt: skip
    if as_json:
        print_json(rows)
        return
    columns = ("name", "fingerprint", "private_here")
    print_table("Trusted keys", columns, [[row[name] for name in columns] for row in rows])


@app.command("trust")
def trust(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="Public key, PEM.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Trust the public key of another place. Compare the fingerprint with its owner first."""
    from dicom_node.registry.keys import trust_key
    from dicom_node.registry.switch import record

    with open_store(config) as (node_config, store):
        found = trust_key(node_config, name, file)
        record(node_config, store, "key trusted", found, [("name", name)])
    typer.echo(f"trusted {name}; fingerprint {found}")


@app.command("distrust")
def distrust(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Trust a key no longer; what it signed does not run from the next study on."""
    from dicom_node.registry.keys import distrust_key
    from dicom_node.registry.switch import record

    with open_store(config) as (node_config, store):
        distrust_key(node_config, name)
        record(node_config, store, "key no longer trusted", name, [])
    typer.echo(f"no longer trusted: {name}")


def sign(
    folder: Annotated[Path, typer.Argument(help="Folder of a release.")],
    key: Annotated[str, typer.Option("--key", help="Name of a key made here.")] = "",
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Private key elsewhere, PEM.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Sign a release, every file checked first: writes signature.json into its folder."""
    from dicom_node.config import load_config
    from dicom_node.registry.keys import private_folder
    from dicom_node.registry.shelf import sign_folder

    if bool(key) == bool(key_file):
        raise WrongUseError("give one of --key and --key-file", "keys are made by models keys make")
    private = key_file or private_folder(load_config(config)) / f"{key}.key"
    typer.echo(f"signed {folder}, release {sign_folder(folder, private)}")
