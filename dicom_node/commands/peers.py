"""`dicom-node peers`: the AE titles this node talks to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
from dicom_node.domain.confirmation import Check
from dicom_node.domain.probing import STEP_WORDS, SYNTAX_NAMES, Finding, Profile
from dicom_node.domain.profile import ResultKind
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
    peer = _valid(values, "add")
    with open_store(config) as (node_config, store):
        add_peer(store, node_config, peer)
    if as_json:
        print_json(_as_dict(peer, "database"))
    else:
        typer.echo(f"added {peer.name} ({peer.ae_title} at {peer.host})")


@app.command("edit")
def edit(
    name: Annotated[str, typer.Argument(help="Name of the peer.")],
    ae_title: Annotated[str | None, typer.Option("--ae-title", help="Its AE title.")] = None,
    host: Annotated[str | None, typer.Option(help="Its host name or address.")] = None,
    port: Annotated[int | None, typer.Option(help="Its DICOM port; 0: it has none.")] = None,
    may_send: Annotated[bool | None, typer.Option(help="Accept its C-STORE and C-ECHO.")] = None,
    receives_results: Annotated[bool | None, typer.Option(help="Send results there.")] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", help="Address or CIDR it sends from; repeatable; '': host alone."),
    ] = None,
    objects: Annotated[
        list[str] | None,
        typer.Option("--objects", help="Result object it gets; repeatable; '': the default set."),
    ] = None,
    tls: Annotated[bool | None, typer.Option(help="TLS alone, in both directions.")] = None,
    certificate: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or sha256:FINGERPRINT of its certificate; repeatable; '': its host."
        ),
    ] = None,
    verify: Annotated[
        Check | None, typer.Option("--verify", help="How it confirms that it keeps results.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Change what is given of a peer, and nothing else; it counts from the next association on."""
    from dicom_node.flow.peers import change_peer, find_peer

    given = {
        "ae_title": ae_title, "host": host, "port": port, "may_send": may_send,
        "receives_results": receives_results, "from": sources, "objects": objects, "tls": tls,
        "certificate": certificate, "verify": verify,
    }  # fmt: skip
    changes = {key: _cleared(value) for key, value in given.items() if value is not None}
    if not changes:
        raise WrongUseError("nothing to change was given", "see peers edit --help")
    with open_store(config) as (node_config, store):
        before = find_peer(store, node_config, name).model_dump(mode="json", by_alias=True)
        peer = _valid({**before, **changes}, "edit")
        change_peer(store, node_config, peer)
    if as_json:
        print_json(_as_dict(peer, "database"))
    else:
        typer.echo(f"changed {peer.name} ({peer.ae_title} at {peer.host})")


def _cleared(value: object) -> object:
    """Return what an option means: an empty word in a list empties it, port 0 is none."""
    if isinstance(value, list):
        return [one for one in value if one]
    return None if value == 0 and not isinstance(value, bool) else value


def _valid(values: Mapping[str, object], command: str) -> PeerConfig:
    try:
        return PeerConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        raise WrongUseError(
            f"{where + ': ' if where else ''}{what}", f"see peers {command} --help"
        ) from None


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
    send: Annotated[
        bool, typer.Option("--send", help="Store a small test study there, and look for it.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Examine a peer step by step; what it takes and confirms decides what it is sent and asked."""
    from dicom_node.flow.peers import find_peer
    from dicom_node.flow.probe import Order, examine

    with open_store(config) as (node_config, store):
        peer = find_peer(store, node_config, name)
        profile = examine(store, node_config, store.clock, Order(peer, send=send, tell=_progress))
    if as_json:
        print_json(profile.as_dict())
    else:
        _print_profile(profile)
    raise typer.Exit(0 if profile.ok else 1)


def _progress(finding: Finding) -> None:
    if sys.stderr.isatty():
        typer.echo(f"{finding.outcome}: {STEP_WORDS[finding.step]}", err=True)


def _print_profile(profile: Profile) -> None:
    rows = [
        [STEP_WORDS[one.step], one.outcome, f"{one.seconds:.1f}", one.found, one.advice]
        for one in profile.steps
    ]
    print_table(f"{profile.peer} ({profile.address})", ("step", "", "s", "found", "do"), rows)
    if profile.classes:
        classes = [
            [
                *one.words,
                one.answer,
                ", ".join(SYNTAX_NAMES[uid] for uid in one.transfer_syntaxes),
            ]
            for one in profile.classes
        ]
        print_table(
            f"What {profile.peer} takes", ("SOP class", "used for", "answer", "in"), classes
        )
    if profile.sent:
        typer.echo(
            f"The test study {profile.sent.study_uid} may be deleted there: "
            f"patient {profile.sent.patient_id}."
        )


def _as_dict(peer: PeerConfig, origin: str) -> dict[str, object]:
    return {**peer.model_dump(mode="json", by_alias=True), "origin": origin}


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else value
