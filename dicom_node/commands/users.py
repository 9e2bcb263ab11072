"""`dicom-node users` and `dicom-node tokens`: who may use the console and its API."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
from dicom_node.config import NodeConfig
from dicom_node.domain.account import Role
from dicom_node.errors import WrongUseError

app = typer.Typer(help="Accounts of the web console.", no_args_is_help=True)
tokens = typer.Typer(help="Tokens of the API under /api/v1.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="Name of the account.")]
TokenArgument = Annotated[str, typer.Argument(help="Name of the token, unique.")]
RoleOption = Annotated[Role, typer.Option(help="What the account may do.")]
StdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@app.command("add")
def add(
    name: NameArgument,
    role: RoleOption = Role.VIEWER,
    password_stdin: StdinOption = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Add an account; prints a one-time link with which the person chooses a password."""
    from dicom_node.domain.account import password_problem
    from dicom_node.flow.accounts import Accounts

    password = _read_password() if password_stdin else ""
    if password_stdin and (problem := password_problem(password, name)):
        raise WrongUseError("this password is not taken", problem)
    with open_store(config) as (node_config, store):
        accounts = Accounts(store, node_config)
        code = accounts.add(name, role)
        if password_stdin:
            accounts.set_password(name, password)
            code = ""
    _tell(node_config, name, code, as_json, f"added {name} ({role})")


@app.command("reset")
def reset(
    name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """End a password and all sessions; prints a one-time link for a new one."""
    from dicom_node.flow.accounts import Accounts

    with open_store(config) as (node_config, store):
        code = Accounts(store, node_config).new_code(name)
    _tell(node_config, name, code, as_json, f"the password of {name} no longer counts")


@app.command("role")
def role_(
    name: NameArgument,
    role: Annotated[Role, typer.Argument(help="viewer, operator or admin.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Change the role of an account; its sessions end."""
    from dicom_node.flow.accounts import Accounts

    with open_store(config) as (node_config, store):
        Accounts(store, node_config).set_role(name, role)
    typer.echo(f"{name} is {role}")


@app.command("remove")
def remove(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove an account; its sessions end. The last administrator stays."""
    from dicom_node.flow.accounts import Accounts

    with open_store(config) as (node_config, store):
        Accounts(store, node_config).remove(name)
    typer.echo(f"removed {name}")


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List all accounts."""
    from dicom_node.store.times import iso

    with open_store(config) as (_, store):
        rows = [
            {
                "name": one.name, "role": str(one.role),
                "password": "chosen" if one.password_hash else "not chosen yet",
                "last_login_at": iso(one.last_login_at_s),
            }
            for one in store.accounts()
        ]  # fmt: skip
    _list(("name", "role", "password", "last_login_at"), "Accounts", rows, as_json)


@tokens.command("add")
def token_add(
    name: TokenArgument,
    role: RoleOption = Role.VIEWER,
    days: Annotated[
        int | None, typer.Option(min=1, max=3660, help="Valid so long; absent: no end.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Add a token and print it, for this once."""
    from dicom_node.flow.accounts import Accounts

    with open_store(config) as (node_config, store):
        secret = Accounts(store, node_config).add_token(name, role, "command line", days)
    if as_json:
        print_json({"name": name, "role": str(role), "token": secret})
    else:
        typer.echo(secret)


@tokens.command("remove")
def token_remove(name: TokenArgument, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Remove a token; who uses it is refused from now on."""
    from dicom_node.flow.accounts import Accounts

    with open_store(config) as (node_config, store):
        Accounts(store, node_config).remove_token(name)
    typer.echo(f"removed {name}")


@tokens.command("list")
def token_list(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List all tokens; what they are is not kept."""
    from dicom_node.store.times import iso

    with open_store(config) as (_, store):
        rows = [
            {
                "name": one.name, "role": str(one.role), "made_by": one.made_by,
                "ends_at": iso(one.ends_at_s), "used_at": iso(one.used_at_s),
            }
            for one in store.tokens()
        ]  # fmt: skip
    _list(("name", "role", "made_by", "ends_at", "used_at"), "Tokens", rows, as_json)


def _list(
    columns: Sequence[str], title: str, rows: Sequence[Mapping[str, object]], as_json: bool
) -> None:
    if as_json:
        print_json(rows)
    else:
        print_table(title, columns, [[row[key] for key in columns] for row in rows])


def _read_password() -> str:
    password = sys.stdin.readline(1024).rstrip("\r\n")
    if not password:
        raise WrongUseError("no password on standard input", "write it as one line")
    return password


def _tell(config: NodeConfig, name: str, code: str, as_json: bool, done: str) -> None:
    link = f"{config.web.address}/welcome/{code}" if code else None
    if as_json:
        print_json({"name": name, "code": code or None, "link": link})
        return
    typer.echo(done)
    if link:
        typer.echo(f"within a day, open this link once to choose the password:\n{link}")
