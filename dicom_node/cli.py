"""`dicom-node`: the command line of the product. Each command stands in `dicom_node/commands`.

Exit status 0: done; 1: failure; 2: wrong use, which a missing or wrong configuration is too.
Errors are one line on stderr that says what is wrong and what to do; `--debug` before the
subcommand adds the traceback.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dicom_node import __version__
from dicom_node.commands import (
    alarms,
    audit,
    conformance,
    models,
    node,
    peers,
    process,
    studies,
    users,
)
from dicom_node.commands import annotations as annotation_commands
from dicom_node.commands import backup as backup_commands
from dicom_node.commands import retention as retention_commands
from dicom_node.errors import NodeError

app = typer.Typer(
    name="dicom-node",
    help="A DICOM node that reads prostate MRI. Research software, not for clinical use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""


node.register(app)
backup_commands.register(app)
process.register(app)
conformance.register(app)
app.add_typer(peers.app, name="peers")
app.add_typer(studies.app, name="studies")
app.add_typer(audit.app, name="audit")
app.add_typer(models.app, name="models")
app.add_typer(annotation_commands.app, name="annotations")
app.add_typer(retention_commands.app, name="retention")
app.add_typer(users.app, name="users")
app.add_typer(users.tokens, name="tokens")
app.add_typer(alarms.app, name="alarms")
app.add_typer(alarms.canary, name="canary")


def main() -> None:
    """Run the command line and exit with its status."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()  # wrong use ends here, with Typer's own words and exit status 2
    except NodeError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_status) from None
    except OSError as error:
        if debug:
            raise
        typer.echo(f"error: {error}; check the path, its rights and the disk", err=True)
        raise SystemExit(1) from None
