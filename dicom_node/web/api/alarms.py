"""Alarms and canaries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from dicom_node.flow.monitored import alarm_json, canary_json
from dicom_node.web.api.access import Viewer
from dicom_node.web.console import console_of

router = APIRouter(tags=["monitoring"])
_Limit = Annotated[int, Query(ge=1, le=1000)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AlarmShape(_Shape):
    """An alarm. ``ended_at`` null: it goes on; ``subject``: what it is about."""

    id: int
    code: str
    subject: str
    severity: str
    words: str
    found: str
    advice: str
    began_at: str
    ended_at: str | None


class CanaryShape(_Shape):
    """A test study. ``state``: running, passed or failed."""

    id: int
    study_uid: str
    scheduled: bool
    state: str
    message: str
    seconds: float | None
    started_at: str
    ended_at: str | None


@router.get("/alarms")
def alarm_list(
    request: Request, _caller: Viewer, going_on: bool = False, limit: _Limit = 100
) -> list[AlarmShape]:
    """List alarms: those that go on first, then the latest; ``going_on``: no others."""
    rows = console_of(request).store.alarms(limit, going_on=going_on)
    return [AlarmShape(**alarm_json(row)) for row in rows]


@router.get("/canaries")
def canary_list(request: Request, _caller: Viewer, limit: _Limit = 100) -> list[CanaryShape]:
    """List test studies, the latest first."""
    return [CanaryShape(**canary_json(run)) for run in console_of(request).store.canary_runs(limit)]
