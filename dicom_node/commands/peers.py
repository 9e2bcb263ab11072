"""`dicom-node peers`: the AE titles this node talks to."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from dicom_node.commands.common import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    open_store,
    print_json,
    print_table,
)
from dicom_node.config import PeerConfig
from dicom_node.domain.confirmation import SERVICES, Check
from dicom_node.domain.profile import SOP_CLASSES, ResultKind
from dicom_node.errors import WrongUseError

app = typer.Typer(
    help="AE titles this node talks to. A change is live without a restart.", no_args_is_help=True
)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Short name, unique.")],
    ae_title: Annotated[str, typer.Option("--ae-title", help="Its AE title.")],
    host: Annotated[str, typer.Option(help="Its host name or address.")],
    port: Annotated[int | None, typer.Option(help="Its DICOM port, where it receives.")] = None,
    may_send: Annotated[bool, typer.Option(help="Accept its C-STORE and C-ECHO.")] = True,
    receives_results: Annotated[bool, typer.Option(help="Send results there.")] = False,
    sources: Annotated[
        list[str] | None, typer.Option("--from", help="Address or CIDR it sends from; repeatable.")
    ] = None,
    objects: Annotated[
        list[ResultKind] | None,
        typer.Option("--objects", help="Result object it gets; repeatable."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="TLS alone, in both directions.")] = False,
    certificate: Annotated[
        list[str] | None,
        typer.Option(help="Name or sha256:FINGERPRINT of its certificate; repeatable."),
    ] = None,
    verify: Annotated[
        Check, typer.Option("--verify", help="How it confirms that it keeps results.")
    ] = Check.AUTO,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Add a peer; it counts from the next association on."""
    from dicom_node.flow.peers import add_peer

    values = {
        "name": name, "ae_title": ae_title, "host": host, "port": port, "may_send": may_send,
        "receives_results": receives_results, "from": sources or (), "objects": objects or (),
        "tls": tls, "certificate": certificate or (),
        "verify": verify,
    }  # fmt: skip
    try:
        peer = PeerConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        raise WrongUseError(
            f"{where + ': ' if where else ''}{what}", "see peers add --help"
        ) from None
    with open_store(config) as (node_config, store):
        add_peer(store, node_config, peer)
    if as_json:
        print_json(_as_dict(peer, "database"))
    else:
        typer.echo(f"added {peer.name} ({peer.ae_title} at {peer.host})")


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List all peers, with where each is configured."""
    from dicom_node.flow.peers import all_peers

    with open_store(config) as (node_config, store):
        rows = [_as_dict(entry.peer, entry.origin) for entry in all_peers(store, node_config)]
    if as_json:
        print_json(rows)
        return
    columns = (
        "name",
        "ae_title",
        "host",
        "port",
        "may_send",
        "receives_results",
        "from",
        "tls",
        "origin",
    )
    print_table("Peers", columns, [[_cell(row[key]) for key in columns] for row in rows])


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Name of the peer.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Remove a peer that was added by command line or console."""
    from dicom_node.flow.peers import remove_peer

    with open_store(config) as (node_config, store):
        remove_peer(store, node_config, name)
    typer.echo(f"removed {name}")


@app.command("echo")
def echo(
    name: Annotated[str, typer.Argument(help="Name of the peer.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Send a C-ECHO to a peer and say what came back."""
    from dicom_node.flow.peers import find_peer
    from dicom_node.net.sender import echo as send_echo

    with open_store(config) as (node_config, store):
        peer = find_peer(store, node_config, name)
        outcome = send_echo(peer, calling_ae=node_config.node.ae_title, tls=node_config.tls)
    if as_json:
        print_json({"name": name, "ok": outcome.ok, "message": outcome.message})
    else:
        typer.echo(outcome.message, err=not outcome.ok)
    raise typer.Exit(0 if outcome.ok else 1)


@app.command("probe")
def probe(
    name: Annotated[str, typer.Argument(help="Name of the peer.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Ask a peer what it takes and confirms; its answer decides what it is sent and asked."""
    from dicom_node.flow.peers import address_of, find_peer
    from dicom_node.net.sender import probe as ask

    with open_store(config) as (node_config, store):
        peer = find_peer(store, node_config, name)
        own = node_config.node.ae_title
        classes = {**SOP_CLASSES, **SERVICES}
        answer = ask(peer, tuple(classes), calling_ae=own, tls=node_config.tls)
        store.learn(peer.name, address_of(peer), answer.accepted, answer.refused)
    rows = [
        {
            "sop_class_uid": uid, "name": name_of, "used_for": use,
            "answer": "taken" if uid in answer.accepted
            else "not taken" if uid in answer.refused else "refused without a reason",
        }
        for uid, (name_of, use) in classes.items()
    ]  # fmt: skip
    if as_json:
        print_json(rows)
        return
    table = [[row["name"], row["used_for"], row["answer"]] for row in rows]
    print_table(f"What {name} takes", ("SOP class", "used for", "answer"), table)


def _as_dict(peer: PeerConfig, origin: str) -> dict[str, object]:
    return {**peer.model_dump(mode="json", by_alias=True), "origin": origin}


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else value
