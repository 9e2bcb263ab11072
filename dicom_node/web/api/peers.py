"""AE titles and refused senders."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from pydantic import ValidationError

from dicom_node.config import PeerConfig
from dicom_node.domain.probing import Profile
from dicom_node.errors import WrongUseError
from dicom_node.flow.peers import (
    PeerEntry,
    add_peer,
    address_of,
    all_peers,
    change_peer,
    remove_peer,
)
from dicom_node.flow.probe import Order
from dicom_node.store.times import iso
from dicom_node.web.api.access import Admin, Operator, Viewer
from dicom_node.web.api.shapes import (
    Done,
    EchoShape,
    NewPeerShape,
    PeerName,
    PeerOut,
    PeerShape,
    ProbeShape,
    RefusalShape,
)
from dicom_node.web.console import console_of
from dicom_node.web.neighbours import Run

router = APIRouter(tags=["AE titles"])


@router.get("/peers")
def peers(request: Request, _caller: Viewer) -> list[PeerOut]:
    """List AE titles; those of the configuration file are read-only."""
    console = console_of(request)
    return [_out(entry) for entry in all_peers(console.store, console.config)]


@router.post("/peers", status_code=201)
def add(request: Request, caller: Admin, peer: NewPeerShape) -> PeerOut:
    """Add an AE title; it counts from the next association on."""
    console, made = console_of(request), _config(peer, peer.name)
    with caller.acting():
        add_peer(console.store, console.config, made)
    return _out(PeerEntry(made, "database"))


@router.get("/peers/{name}")
def show(request: Request, _caller: Viewer, name: PeerName) -> PeerOut:
    """Return an AE title."""
    return _out(_found(request, name))


@router.put("/peers/{name}")
def change(request: Request, caller: Admin, name: PeerName, peer: PeerShape) -> PeerOut:
    """Change an AE title of the database."""
    console = console_of(request)
    _found(request, name)
    made = _config(peer, name)
    with caller.acting():
        change_peer(console.store, console.config, made)
    return _out(PeerEntry(made, "database"))


@router.delete("/peers/{name}")
def remove(request: Request, caller: Admin, name: PeerName) -> Done:
    """Remove an AE title of the database."""
    console = console_of(request)
    _found(request, name)
    with caller.acting():
        remove_peer(console.store, console.config, name)
    return Done(done=f"removed {name}")


@router.post("/peers/{name}/echo")
def echo(request: Request, _caller: Operator, name: PeerName) -> EchoShape:
    """Send a C-ECHO."""
    _found(request, name)
    console = console_of(request)
    answer = console.neighbours.echo(console.store, console.config, name)
    return EchoShape(ok=answer.ok, message=answer.message)


@router.post("/peers/{name}/probe", status_code=202)
def probe(request: Request, caller: Operator, name: PeerName, send: bool = False) -> ProbeShape:
    """Begin the examination of a peer; ``send``: with a small test study. GET tells how it goes."""
    console, peer = console_of(request), _found(request, name).peer
    with caller.acting():
        run = console.neighbours.begin(
            console.store, console.config, console.clock, Order(peer, send=send)
        )
    return _examination(peer, run, None)


@router.get("/peers/{name}/probe")
def examination(request: Request, _caller: Viewer, name: PeerName) -> ProbeShape:
    """Return the examination of a peer that runs, or the last one."""
    console, peer = console_of(request), _found(request, name).peer
    run = console.neighbours.find(peer)
    running = run is not None and run.running
    profile = None if running else console.store.probe_of(peer.name, address_of(peer))
    return _examination(peer, run, profile)


@router.get("/refusals")
def refusals(request: Request, _caller: Viewer) -> list[RefusalShape]:
    """List refused senders, the latest first."""
    return [RefusalShape(**one) for one in console_of(request).store.refusals()]


def _examination(peer: PeerConfig, run: Run | None, profile: Profile | None) -> ProbeShape:
    findings = run.findings if run is not None and profile is None else ()
    shown = profile or Profile(peer.name, address_of(peer), 0.0, tuple(findings))
    told = shown.as_dict()
    at_s = told.pop("at_s")
    return ProbeShape(
        **{**told, "ok": None if profile is None else profile.ok},
        at=iso(at_s) if profile is not None else None,
        running=run is not None and run.running,
        problem=run.problem if run is not None else "",
    )


def _found(request: Request, name: str) -> PeerEntry:
    console = console_of(request)
    for entry in all_peers(console.store, console.config):
        if entry.peer.name == name:
            return entry
    raise HTTPException(404, f"there is no peer '{name}'")


def _config(peer: PeerShape, name: str) -> PeerConfig:
    values = {**peer.model_dump(by_alias=True), "name": name}
    try:
        return PeerConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        raise WrongUseError(f"{where + ': ' if where else ''}{what}", "mend this value") from None


def _out(entry: PeerEntry) -> PeerOut:
    return PeerOut(**entry.peer.model_dump(mode="json", by_alias=True), origin=entry.origin)
