"""What is wrong, what was wrong, and whether test studies come back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from dicom_node.domain.account import Role
from dicom_node.flow.monitored import alarm_json, alarms_json, canary_json
from dicom_node.web.console import console_of
from dicom_node.web.render import page
from dicom_node.web.visitors import Visitor, looks

router = APIRouter()
SHOWN, RUNS_SHOWN = 50, 10


@router.get("/alarms")
def alarms(
    request: Request, visitor: Annotated[Visitor, Depends(looks(Role.VIEWER))]
) -> HTMLResponse:
    """Show alarms that go on, those that ended, and the last canaries."""
    console = console_of(request)
    rows = console.store.alarms(SHOWN)
    return page(
        request, "alarms.html", visitor,
        going_on=alarms_json([row for row in rows if row.ended_at_s is None]),
        over=[alarm_json(row) for row in rows if row.ended_at_s is not None],
        runs=[canary_json(run) for run in console.store.canary_runs(RUNS_SHOWN)],
        canary=console.config.canary, channels=console.config.alarms.channels,
        waiting_s=console.store.notices_waiting_s(),
    )  # fmt: skip
