"""Releases of the model: what runs, what may run; a switch in two steps, rollback, shadow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dicom_node.domain.account import Role
from dicom_node.domain.assignment import DEFAULT_SCOPE, Rule, Scope
from dicom_node.errors import WrongUseError
from dicom_node.registry import switch
from dicom_node.registry.compare import compare
from dicom_node.web.console import Console, console_of
from dicom_node.web.render import done, page
from dicom_node.web.visitors import Posted, Visitor, changes, looks

router = APIRouter(prefix="/models")
Viewer = Annotated[Visitor, Depends(looks(Role.VIEWER))]
Admin = Annotated[Visitor, Depends(looks(Role.ADMIN))]
AdminsForm = Annotated[Posted, Depends(changes(Role.ADMIN))]
_HOME = "/models"
_LONGEST = 64


@router.get("")
def models(request: Request, visitor: Viewer) -> HTMLResponse:
    """List releases and rules."""
    console = console_of(request)
    releases = switch.named_releases(console.config, console.store)
    names = {one.row.id: one for one in releases}
    rules = [
        {
            "rule": rule,
            "release": names[rule.release_id],
            "default": rule.scope == DEFAULT_SCOPE,
            "before": _before(console, rule, names),
        }
        for rule in console.store.rules()
    ]
    return page(
        request, "models.html", visitor, releases=releases, rules=rules,
        pinned=console.config.model.release,
    )  # fmt: skip


@router.get("/compare")
def compare_page(request: Request, visitor: Viewer, first: str, second: str) -> HTMLResponse:
    """Show how far two releases agree on the studies that both analysed."""
    console = console_of(request)
    one, other = (
        switch.find_release(console.config, console.store, name) for name in (first, second)
    )
    found = asdict(compare(console.store, one.sha256, other.sha256))
    return page(request, "compare.html", visitor, one=one, other=other, found=found)


@router.post("/check")
def check(request: Request, posted: AdminsForm) -> Response:
    """First step of a switch: check the release, then rehearse it; nothing changes yet."""
    console = console_of(request)
    wanted, scope = posted.text("release"), _scope(posted)
    prepared = switch.prepare_switch(console.config, console.store, scope, wanted)
    begun = console.rehearsals.begin(prepared, posted.visitor.account)
    return RedirectResponse(f"/models/switch/{begun.key}", 303)


@router.get("/switch/{key}")
def switch_page(request: Request, visitor: Admin, key: str) -> HTMLResponse:
    """Show a rehearsal: it runs, failed, or asks for the second step."""
    console = console_of(request)
    found = console.rehearsals.find(key)
    if found is None:
        raise HTTPException(404, "This rehearsal is no longer known; begin again.")
    return page(
        request, "switch.html", visitor, found=found, agreement=_agreement(console, found.switch)
    )


@router.post("/switch/{key}/confirm")
def confirm(request: Request, posted: AdminsForm, key: str) -> Response:
    """Second step of a switch: the release analyses from the next study on."""
    console = console_of(request)
    found = console.rehearsals.spend(key)
    with posted.acting():
        switch.commit_switch(console.config, console.store, found.switch, found.proof or [])
    prepared = found.switch
    return done(
        request, posted, _HOME, f"{prepared.release} analyses {prepared.scope} from now on."
    )


@router.post("/rollback")
def roll_back(request: Request, posted: AdminsForm) -> Response:
    """Go back to what a rule named before."""
    console, scope = console_of(request), _scope(posted)
    with posted.acting():
        leaving, target = switch.roll_back(console.config, console.store, scope)
    told = f"{scope}: {target or 'the rule is gone'}, before {leaving}."
    return done(request, posted, _HOME, told)


@router.post("/unassign")
def unassign(request: Request, posted: AdminsForm) -> Response:
    """Remove a rule."""
    console, scope = console_of(request), _scope(posted)
    with posted.acting():
        switch.unassign(console.config, console.store, scope)
    return done(request, posted, _HOME, f"Removed the rule for {scope}.")


@router.post("/shadow")
def shadow(request: Request, posted: AdminsForm) -> Response:
    """Run a release in the shadow, or none."""
    console, wanted = console_of(request), posted.text("release")
    with posted.acting():
        if not wanted:
            switch.end_shadow(console.config, console.store)
            return done(request, posted, _HOME, "No release runs in the shadow.")
        begun = switch.begin_shadow(console.config, console.store, wanted)
    return done(request, posted, _HOME, f"In the shadow: {begun}.")


@router.post("/reject")
def reject(request: Request, posted: AdminsForm) -> Response:
    """Retire a release that was judged unfit."""
    console = console_of(request)
    with posted.acting():
        gone = switch.reject(console.config, console.store, posted.text("release"))
    return done(request, posted, _HOME, f"Retired {gone}.")


def _before(console: Console, rule: Rule, names: Mapping[int, switch.Named]) -> str:
    """Return what a rollback of a rule goes back to; empty: there is nothing."""
    _, before = console.store.rule_before(rule.scope)
    return "" if before is None else str(names[before.release_id])


def _agreement(console: Console, prepared: switch.PreparedSwitch) -> dict[str, object] | None:
    if prepared.before is None:
        return None
    return asdict(compare(console.store, prepared.before.sha256, prepared.release.sha256))


def _scope(posted: Posted) -> Scope:
    values = [posted.text(name) for name in ("sender", "station", "protocol")]
    if max(map(len, values)) > _LONGEST:
        raise WrongUseError("a criterion is longer than 64 characters", "shorten it")
    return Scope(*values)
