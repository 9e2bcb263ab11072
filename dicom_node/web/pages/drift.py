"""Drift: each scanner's latest studies against its first ones, as a table and as a plot."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from starlette.responses import HTMLResponse, Response

from dicom_node.domain.account import Role
from dicom_node.domain.drift import FIGURES
from dicom_node.drift_plot import DARK, LIGHT, picture
from dicom_node.flow import drift as watching
from dicom_node.flow.drift import ScannerReport
from dicom_node.store.observation_rows import ScannerRow
from dicom_node.web.console import Console, console_of
from dicom_node.web.render import done, page
from dicom_node.web.visitors import Posted, Visitor, changes, looks

router = APIRouter(prefix="/drift")
ScannerId = Annotated[int, Path(ge=1, lt=2**31)]
Viewer = Annotated[Visitor, Depends(looks(Role.VIEWER))]
AdminsForm = Annotated[Posted, Depends(changes(Role.ADMIN))]
MAX_SHOWN = 200
_PALETTES = {"light": LIGHT, "dark": DARK}


@router.get("")
def scanners(request: Request, visitor: Viewer) -> HTMLResponse:
    """List scanners, those in alarm first."""
    console = console_of(request)
    rows = console.store.scanners(MAX_SHOWN)
    words = {name: told for name, (_, told) in FIGURES.items()}
    rule = watching.rule_of(console.config)
    return page(request, "drift.html", visitor, rows=rows, words=words, rule=rule)


@router.get("/{scanner_id}")
def scanner(request: Request, visitor: Viewer, scanner_id: ScannerId) -> HTMLResponse:
    """Show the figures of a scanner."""
    report = _report(console_of(request), scanner_id)
    words = {name: told for name, (_, told) in FIGURES.items()}
    return page(request, "scanner.html", visitor, report=report, words=words)


@router.get("/{scanner_id}/{scheme}.png")
def plot(request: Request, _visitor: Viewer, scanner_id: ScannerId, scheme: str) -> Response:
    """Draw the figures of a scanner over its studies, in light or dark."""
    if scheme not in _PALETTES:
        raise HTTPException(404, "There is no such picture.")
    console = console_of(request)
    made = picture(console.store, _report(console, scanner_id), _PALETTES[scheme])
    return Response(made, media_type="image/png")


@router.post("/{scanner_id}/restart")
def restart(request: Request, posted: AdminsForm, scanner_id: ScannerId) -> Response:
    """Begin the reference of a scanner anew: the change is known."""
    console = console_of(request)
    row = _row(console, scanner_id)
    with posted.acting():
        watching.restart(console.store, console.config, console.clock, [row])
    told = f"The reference of {row.scanner} begins with its next study."
    return done(request, posted, f"/drift/{scanner_id}", told)


def _row(console: Console, scanner_id: int) -> ScannerRow:
    found = console.store.scanner(scanner_id)
    if found is None:
        raise HTTPException(404, "No study came from such a scanner.")
    return found


def _report(console: Console, scanner_id: int) -> ScannerReport:
    return watching.look(console.store, console.config, _row(console, scanner_id))
