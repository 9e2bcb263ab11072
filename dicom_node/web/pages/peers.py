"""AE titles: who may send, where results go, who was refused. A change is live at once."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dicom_node.config import PeerConfig
from dicom_node.domain.account import Role
from dicom_node.domain.confirmation import Check
from dicom_node.domain.probing import STEP_WORDS, SYNTAX_NAMES
from dicom_node.domain.profile import DEFAULT_KINDS, ResultKind
from dicom_node.errors import NodeError, WrongUseError
from dicom_node.flow.connection_study import PATIENT_ID
from dicom_node.flow.peers import (
    add_peer,
    address_of,
    all_peers,
    change_peer,
    find_peer,
    remove_peer,
)
from dicom_node.flow.probe import Order
from dicom_node.net.access import Refusal
from dicom_node.net.refusal_words import ADDRESS, UNKNOWN, WORDS
from dicom_node.web.console import Console, console_of
from dicom_node.web.render import done, page
from dicom_node.web.visitors import Posted, Visitor, changes, looks

router = APIRouter(prefix="/peers")
Viewer = Annotated[Visitor, Depends(looks(Role.VIEWER))]
Admin = Annotated[Visitor, Depends(looks(Role.ADMIN))]
AdminsForm = Annotated[Posted, Depends(changes(Role.ADMIN))]
OperatorsForm = Annotated[Posted, Depends(changes(Role.OPERATOR))]
_HOME = "/peers"


@router.get("")
def peers(request: Request, visitor: Viewer) -> HTMLResponse:
    """List AE titles, and who was refused."""
    console = console_of(request)
    entries = all_peers(console.store, console.config)
    refusals = [
        {**one, "words": WORDS.get(_kind(one), one["reason"]), "allow": _kind(one) in _ALLOWED}
        for one in console.store.refusals(50)
    ]
    return page(request, "peers.html", visitor, entries=entries, refusals=refusals)


@router.get("/new")
def new(request: Request, visitor: Admin, refusal: int = 0) -> HTMLResponse:
    """Show the form for a new AE title; of a refused sender it is filled."""
    console = console_of(request)
    found = console.store.refusal(refusal) if 0 < refusal < 2**31 else None
    values: dict[str, Any] = {"may_send": True, "verify": "auto", "refusal": refusal}
    if found:
        values |= {
            "name": _free_name(console, found["calling_ae"]), "ae_title": found["calling_ae"],
            "host": found["address"],
        }  # fmt: skip
    return _form(request, visitor, values, fresh=True)


@router.post("/new")
def add(request: Request, posted: AdminsForm) -> Response:
    """Add an AE title."""
    console, values = console_of(request), _values(posted)
    try:
        peer = _peer(values)
        with posted.acting():
            add_peer(console.store, console.config, peer)
    except NodeError as error:
        return _form(request, posted.visitor, values, fresh=True, problem=str(error))
    if posted.text("refusal").isdigit() and len(posted.text("refusal")) < 10:
        console.store.refusal_forget(int(posted.text("refusal")))
    return done(request, posted, _HOME, f"Added {peer.name}. It counts from now on.")


@router.get("/{name}/edit")
def edit(request: Request, visitor: Admin, name: str) -> HTMLResponse:
    """Show the form for an AE title."""
    console = console_of(request)
    return _form(request, visitor, _as_values(find_peer(console.store, console.config, name)))


@router.post("/{name}/edit")
def change(request: Request, posted: AdminsForm, name: str) -> Response:
    """Change an AE title."""
    console, values = console_of(request), {**_values(posted), "name": name}
    try:
        with posted.acting():
            change_peer(console.store, console.config, _peer(values))
    except NodeError as error:
        return _form(request, posted.visitor, values, problem=str(error))
    return done(request, posted, _HOME, f"Changed {name}. It counts from now on.")


@router.post("/{name}/remove")
def remove(request: Request, posted: AdminsForm, name: str) -> Response:
    """Remove an AE title."""
    console = console_of(request)
    with posted.acting():
        remove_peer(console.store, console.config, name)
    return done(
        request, posted, _HOME, f"Removed {name}. Its associations are refused from now on."
    )


@router.post("/{name}/echo")
def echo(request: Request, posted: OperatorsForm, name: str) -> Response:
    """Send a C-ECHO and say what came back."""
    console = console_of(request)
    answer = console.neighbours.echo(console.store, console.config, name)
    text = f"{name}: {answer.message}"
    return done(request, posted, _HOME, text, "good" if answer.ok else "bad")


@router.post("/{name}/probe")
def probe(request: Request, posted: OperatorsForm, name: str) -> Response:
    """Begin the examination of a peer; the page that follows shows it."""
    console = console_of(request)
    peer = find_peer(console.store, console.config, name)
    order = Order(peer, send=posted.ticked("send"))
    home = f"{_HOME}/{name}/probe"
    try:
        with posted.acting():
            console.neighbours.begin(console.store, console.config, console.clock, order)
    except NodeError as error:
        return done(request, posted, home, str(error), "bad")
    return RedirectResponse(home, 303)


@router.get("/{name}/probe")
def examination(request: Request, visitor: Viewer, name: str) -> HTMLResponse:
    """Show the examination of a peer that runs, or the last one."""
    console = console_of(request)
    peer = find_peer(console.store, console.config, name)
    run = console.neighbours.find(peer)
    running = run is not None and run.running
    profile = None if running else console.store.probe_of(peer.name, address_of(peer))
    counts = console.store.destination_counts([name])[name] if peer.receives_results else None
    shown = list(run.findings) if run and running else list(profile.steps) if profile else []
    return page(
        request, "probe.html", visitor, peer=peer, run=run, running=running, profile=profile,
        findings=shown, step_words=STEP_WORDS, syntaxes=SYNTAX_NAMES, patient_id=PATIENT_ID,
        expected=len(STEP_WORDS), counts=counts,
    )  # fmt: skip


@router.post("/refusals/{refusal_id}/allow")
def allow(request: Request, posted: AdminsForm, refusal_id: int) -> Response:
    """Let a known AE title send from the address that was refused."""
    console = console_of(request)
    found = console.store.refusal(refusal_id) if 0 < refusal_id < 2**31 else None
    if found is None:
        raise HTTPException(404, "This refusal is no longer known.")
    named = [
        entry.peer
        for entry in all_peers(console.store, console.config)
        if entry.peer.ae_title == found["calling_ae"] and entry.origin == "database"
    ]
    if len(named) != 1 or _kind(found) is not ADDRESS:
        raise WrongUseError(
            "this is not the other address of one AE title", "edit the AE title by hand"
        )
    peer = named[0]
    sources = (*(peer.from_ or (peer.host,)), found["address"])
    with posted.acting():
        change_peer(console.store, console.config, _peer({**_as_values(peer), "from": sources}))
    console.store.refusal_forget(refusal_id)
    return done(request, posted, _HOME, f"{peer.name} may send from {found['address']} too.")


@router.post("/refusals/{refusal_id}/forget")
def forget(request: Request, posted: AdminsForm, refusal_id: int) -> Response:
    """Take a refused sender off the list; it comes back when it tries again."""
    if 0 < refusal_id < 2**31:
        console_of(request).store.refusal_forget(refusal_id)
    return done(request, posted, _HOME, "Taken off the list. It comes back if it tries again.")


_ALLOWED = (UNKNOWN, ADDRESS)


def _kind(refusal: dict[str, Any]) -> Refusal | None:
    first = str(refusal["reason"]).partition(":")[0]
    return Refusal(first) if first in set(Refusal) else None


def _free_name(console: Console, ae_title: str) -> str:
    base = re.sub(r"[^a-z0-9._-]+", "-", ae_title.lower()).strip("-.")[:58] or "peer"
    taken = {entry.peer.name for entry in all_peers(console.store, console.config)}
    names = [base, *(f"{base}-{number}" for number in range(2, 1000))]
    return next(name for name in names if name not in taken)


def _form(
    request: Request, visitor: Visitor, values: dict[str, Any], *, fresh: bool = False,
    problem: str = "",
) -> HTMLResponse:  # fmt: skip
    return page(
        request, "peer.html", visitor, 400 if problem else 200, values=values, fresh=fresh,
        problem=problem, kinds=list(ResultKind), defaults=DEFAULT_KINDS, checks=list(Check),
        tls_ready=console_of(request).config.tls.has_certificate,
    )  # fmt: skip


def _values(posted: Posted) -> dict[str, Any]:
    return {
        "name": posted.text("name"), "ae_title": posted.text("ae_title"),
        "host": posted.text("host"), "port": posted.text("port") or None,
        "may_send": posted.ticked("may_send"),
        "receives_results": posted.ticked("receives_results"),
        "from": tuple(posted.words("from")), "objects": posted.fields.get("objects", ()),
        "tls": posted.ticked("tls"), "certificate": tuple(posted.words("certificate")),
        "verify": posted.text("verify") or "auto",
    }  # fmt: skip


def _as_values(peer: PeerConfig) -> dict[str, Any]:
    return peer.model_dump(mode="json", by_alias=True)


def _peer(values: dict[str, Any]) -> PeerConfig:
    try:
        return PeerConfig.model_validate({k: v for k, v in values.items() if k != "refusal"})
    except ValidationError as error:
        problem = error.errors()[0]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        what = problem["msg"].removeprefix("Value error, ")
        raise WrongUseError(_PLAIN.get(field, what), "mend this field") from None


_PLAIN = {
    "name": "the name has 1 to 64 letters, digits, dots, dashes or underscores",
    "port": "the port is a number from 1 to 65535",
    "host": "give a host name or an address",
}
