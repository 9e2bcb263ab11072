"""Drift of scanners."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from dicom_node.domain.drift import Group
from dicom_node.drift_plot import LIGHT, picture
from dicom_node.flow.drift import ScannerReport, look
from dicom_node.web.api.access import Viewer
from dicom_node.web.console import console_of

router = APIRouter(tags=["drift"])
ScannerId = Annotated[int, Path(ge=1, lt=2**31)]
_Limit = Annotated[int, Query(ge=1, le=200)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScannerShape(_Shape):
    """Who made the images; null: not told."""

    station: str
    manufacturer: str
    model: str
    field_strength_t: float | None


class FigureShape(_Shape):
    """A figure. ``psi``, ``limit`` null: too few studies.

    ``reference``, ``current``: what it was and is (median, or shares of the commonest values)
    with the number of studies.
    """

    name: str
    group: Group
    words: str
    psi: float | None
    limit: float | None
    alarm: bool
    reference: dict[str, Any]
    current: dict[str, Any]


class DriftShape(_Shape):
    """A scanner. ``state``: alarm, steady or collecting."""

    id: int
    scanner: ScannerShape
    state: str
    studies: int
    release: str | None
    alarms: list[str]
    windows: dict[str, Any]
    figures: list[FigureShape]


@router.get("/drift")
def drift(request: Request, _caller: Viewer, limit: _Limit = 50) -> list[DriftShape]:
    """List scanners with their figures, those in alarm first."""
    console = console_of(request)
    rows = console.store.scanners(limit)
    return [_out(look(console.store, console.config, row)) for row in rows]


@router.get("/drift/{scanner_id}")
def scanner(request: Request, _caller: Viewer, scanner_id: ScannerId) -> DriftShape:
    """Return the figures of a scanner."""
    return _out(_report(request, scanner_id))


@router.get(
    "/drift/{scanner_id}/plot",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
def plot(request: Request, _caller: Viewer, scanner_id: ScannerId) -> Response:
    """Draw the figures of a scanner over its studies (PNG)."""
    made = picture(console_of(request).store, _report(request, scanner_id), LIGHT)
    return Response(made, media_type="image/png")


def _report(request: Request, scanner_id: int) -> ScannerReport:
    console = console_of(request)
    row = console.store.scanner(scanner_id)
    if row is None:
        raise HTTPException(404, f"there is no scanner {scanner_id}")
    return look(console.store, console.config, row)


def _out(report: ScannerReport) -> DriftShape:
    return DriftShape(id=report.row.id, **report.as_dict())
