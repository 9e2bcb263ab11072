"""Releases of the model: what runs, a switch in two steps, rollback, shadow."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request

from dicom_node.domain.assignment import Scope
from dicom_node.registry import switch
from dicom_node.registry.compare import compare
from dicom_node.store.times import iso
from dicom_node.web.api.access import Admin, Viewer
from dicom_node.web.api.shapes import (
    AgreementShape,
    Done,
    RehearsalShape,
    ReleaseShape,
    RuleShape,
    ScopeShape,
    ShadowShape,
    SwitchShape,
)
from dicom_node.web.console import console_of
from dicom_node.web.rehearsals import Rehearsal

router = APIRouter(prefix="/models", tags=["models"])
_Key = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
_Release = Annotated[str, Query(min_length=1, max_length=160, pattern=r"^[\x21-\x7e]+$")]


@router.get("")
def models(request: Request, _caller: Viewer) -> list[ReleaseShape]:
    """List the releases that this node holds."""
    console = console_of(request)
    return [
        ReleaseShape(
            name=one.name, version=one.version, sha256=one.sha256, state=one.row.state,
            packaged=one.row.sha256 is None, parent=one.row.parent,
            added_at=iso(one.row.added_at_s) or "",
        )
        for one in switch.named_releases(console.config, console.store)
    ]  # fmt: skip


@router.get("/rules")
def rules(request: Request, _caller: Viewer) -> list[RuleShape]:
    """List which release analyses what; the most specific rule wins."""
    console = console_of(request)
    named = {one.row.id: one for one in switch.named_releases(console.config, console.store)}
    return [
        RuleShape(**asdict(rule.scope), release=named[rule.release_id].sha256)
        for rule in console.store.rules()
    ]


@router.get("/compare")
def compare_(
    request: Request, _caller: Viewer, first: _Release, second: _Release
) -> AgreementShape:
    """Return how far two releases agree on the studies that both analysed."""
    console = console_of(request)
    one, other = (
        switch.find_release(console.config, console.store, name) for name in (first, second)
    )
    figures = asdict(compare(console.store, one.sha256, other.sha256))
    return AgreementShape(first=one.sha256, second=other.sha256, figures=figures)


@router.post("/rehearsals", status_code=202)
def rehearse(request: Request, caller: Admin, wanted: SwitchShape) -> RehearsalShape:
    """First step of a switch: check a release and let it analyse the phantom."""
    console = console_of(request)
    prepared = switch.prepare_switch(console.config, console.store, _scope(wanted), wanted.release)
    return _shape(console.rehearsals.begin(prepared, caller.name))


@router.get("/rehearsals/{key}")
def rehearsal(request: Request, _caller: Admin, key: _Key) -> RehearsalShape:
    """Return how a rehearsal stands."""
    return _shape(_found(request, key))


@router.post("/rehearsals/{key}/confirm")
def confirm(request: Request, caller: Admin, key: _Key) -> Done:
    """Second step of a switch: the release analyses from the next study on."""
    console = console_of(request)
    _found(request, key)
    done = console.rehearsals.spend(key)
    with caller.acting():
        switch.commit_switch(console.config, console.store, done.switch, done.proof or [])
    return Done(done=f"{done.switch.release} analyses {done.switch.scope}")


@router.post("/rollback")
def roll_back(request: Request, caller: Admin, scope: ScopeShape) -> Done:
    """Go back to what a rule named before."""
    console = console_of(request)
    with caller.acting():
        leaving, target = switch.roll_back(console.config, console.store, _scope(scope))
    return Done(done=f"{target or 'the rule is gone'}, before {leaving}")


@router.post("/shadow")
def shadow(request: Request, caller: Admin, wanted: ShadowShape) -> Done:
    """Run a release beside the active one; its results are compared and never sent."""
    console = console_of(request)
    with caller.acting():
        if wanted.release is None:
            switch.end_shadow(console.config, console.store)
            return Done(done="no release runs in the shadow")
        return Done(
            done=f"in the shadow: "
            f"{switch.begin_shadow(console.config, console.store, wanted.release)}"
        )


def _scope(scope: ScopeShape) -> Scope:
    return Scope(scope.sender.strip(), scope.station.strip(), scope.protocol.strip())


def _found(request: Request, key: str) -> Rehearsal:
    found = console_of(request).rehearsals.find(key)
    if found is None:
        raise HTTPException(404, "this rehearsal is not known, or no longer")
    return found


def _shape(one: Rehearsal) -> RehearsalShape:
    state = "running" if one.running else "failed" if one.problem else "passed"
    before = one.switch.before
    return RehearsalShape(
        key=one.key, state=state, release=one.switch.release.sha256,
        before=before.sha256 if before else None, proof=dict(one.proof or ()), problem=one.problem,
    )  # fmt: skip
