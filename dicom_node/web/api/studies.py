"""Studies: list, show, look at anew, send again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request

from dicom_node.domain.states import RevisionState
from dicom_node.flow import operate
from dicom_node.store.console_rows import StudyLine, StudyQuery
from dicom_node.store.times import iso
from dicom_node.web.api.access import Operator, Viewer
from dicom_node.web.api.shapes import (
    DeliveryShape,
    Done,
    EventShape,
    StudiesShape,
    StudyShape,
    StudyUid,
)
from dicom_node.web.console import console_of

router = APIRouter(prefix="/studies", tags=["studies"])
_Text = Annotated[str, Query(max_length=64, description="Study Instance UID or Patient ID")]
_Cursor = Annotated[str, Query(max_length=64, pattern=r"^([0-9.e+]{1,40}:)?[0-9]{0,15}$")]
_Limit = Annotated[int, Query(ge=1, le=200)]
_Peer = Annotated[
    str | None,
    Query(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="this destination alone"),
]


@router.get("")
def studies(
    request: Request, _caller: Viewer, q: _Text = "", state: RevisionState | None = None,
    after: _Cursor = "", limit: _Limit = 50,
) -> StudiesShape:  # fmt: skip
    """List study revisions: the latest first; of a state, the latest change first."""
    query = StudyQuery(q.strip(), state, after, limit)
    found = console_of(request).store.study_page(query)
    return StudiesShape(studies=[_shape(line) for line in found.lines], after=found.after)


@router.get("/{study_uid}")
def study(request: Request, _caller: Viewer, study_uid: StudyUid) -> list[dict[str, Any]]:
    """Return the revisions of a study, in the shape of `dicom-node studies show --json`."""
    return _known(console_of(request).store.studies_show(study_uid))


@router.get("/{study_uid}/timeline")
def timeline(request: Request, _caller: Viewer, study_uid: StudyUid) -> list[EventShape]:
    """Return what happened to a study, oldest first."""
    return [EventShape(**one) for one in _known(console_of(request).store.timeline(study_uid))]


@router.get("/{study_uid}/deliveries")
def deliveries(request: Request, _caller: Viewer, study_uid: StudyUid) -> list[DeliveryShape]:
    """Return every delivery of a study."""
    store = console_of(request).store
    _known(store.studies_show(study_uid))
    return [DeliveryShape(**one) for one in store.delivery_details(study_uid)]


@router.post("/{study_uid}/retry")
def retry(request: Request, caller: Operator, study_uid: StudyUid) -> Done:
    """Look at a study anew that failed or was not analysable, or release one that is held."""
    console = console_of(request)
    _known(console.store.studies_show(study_uid))
    with caller.acting():
        return Done(done=operate.retry_study(console.store, console.config, study_uid))


@router.post("/{study_uid}/resend")
def resend(request: Request, caller: Operator, study_uid: StudyUid, peer: _Peer = None) -> Done:
    """Send the results of a study again, byte for byte."""
    console = console_of(request)
    _known(console.store.studies_show(study_uid))
    with caller.acting():
        return Done(done=operate.send_again(console.store, console.config, study_uid, peer))


def _known(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not rows:
        raise HTTPException(404, "this node holds no such study")
    return rows


def _shape(line: StudyLine) -> StudyShape:
    return StudyShape(
        study_uid=line.study_uid, revision=line.revision, state=line.state, reason=line.reason,
        message=line.message, instances=line.instances, received_at=iso(line.received_at_s) or "",
        changed_at=iso(line.changed_at_s) or "", deliveries=line.objects, arrived=line.sent,
    )  # fmt: skip
