"""AE titles and refused senders."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from pydantic import ValidationError

from dicom_node.config import PeerConfig
from dicom_node.errors import WrongUseError
from dicom_node.flow.peers import PeerEntry, add_peer, all_peers, change_peer, remove_peer
from dicom_node.web.api.access import Admin, Operator, Viewer
from dicom_node.web.api.shapes import (
    AnswerShape,
    Done,
    EchoShape,
    NewPeerShape,
    PeerName,
    PeerOut,
    PeerShape,
    RefusalShape,
)
from dicom_node.web.console import console_of
from dicom_node.web.neighbours import echo_peer, probe_peer

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
    answer = echo_peer(console_of(request), name)
    return EchoShape(ok=answer.ok, message=answer.message)


@router.post("/peers/{name}/probe")
def probe(request: Request, _caller: Operator, name: PeerName) -> list[AnswerShape]:
    """Ask a peer what it takes; the answer decides what it is sent."""
    _found(request, name)
    return [
        AnswerShape(
            sop_class_uid=one.sop_class_uid, name=one.name, used_for=one.used_for, answer=one.answer
        )
        for one in probe_peer(console_of(request), name)
    ]


@router.get("/refusals")
def refusals(request: Request, _caller: Viewer) -> list[RefusalShape]:
    """List refused senders, the latest first."""
    return [RefusalShape(**one) for one in console_of(request).store.refusals()]


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
