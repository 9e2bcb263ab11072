"""Studies: search, one study, its pictures, and what an operator does to it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from starlette.responses import HTMLResponse, Response

from dicom_node.domain.account import Role
from dicom_node.domain.states import RevisionState
from dicom_node.errors import NodeError
from dicom_node.flow import operate
from dicom_node.flow.annotated import annotation_json
from dicom_node.flow.audit import acting
from dicom_node.store.console_rows import StudyQuery
from dicom_node.web.console import console_of
from dicom_node.web.pictures import picture_png
from dicom_node.web.render import done, page
from dicom_node.web.study_view import HAPPENED, study_view
from dicom_node.web.visitors import Posted, Visitor, changes, looks

router = APIRouter(prefix="/studies")
StudyUid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$")]
Viewer = Annotated[Visitor, Depends(looks(Role.VIEWER))]
OperatorsForm = Annotated[Posted, Depends(changes(Role.OPERATOR))]
_KEY_IMAGE = "1.2.840.10008.5.1.4.1.1.7"


@router.get("")
def studies(
    request: Request, visitor: Viewer, q: str = "", state: str = "", after: str = ""
) -> HTMLResponse:
    """List study revisions, by page."""
    text = q.strip()[:64]
    wanted = RevisionState(state) if state in set(RevisionState) else None
    found = console_of(request).store.study_page(StudyQuery(text, wanted, after[:64]))
    return page(
        request, "studies.html", visitor, found=found, q=text, state=state, after=after,
        states=list(RevisionState),
    )  # fmt: skip


@router.get("/{study_uid}")
def study(request: Request, visitor: Viewer, study_uid: StudyUid) -> HTMLResponse:
    """Show one study."""
    console = console_of(request)
    view = study_view(console, study_uid)
    if view is None:
        raise HTTPException(404, "This node holds no such study.")
    annotations = [annotation_json(row) for row in console.store.annotations_of(study_uid)]
    return page(
        request, "study.html", visitor, view=view, annotations=annotations, happened=HAPPENED
    )


@router.get("/{study_uid}/{number}/pictures/{sop_instance_uid}.png")
def picture(
    request: Request, visitor: Viewer, study_uid: StudyUid, number: int, sop_instance_uid: str
) -> Response:
    """Show a key image; the access is recorded."""
    console = console_of(request)
    files = console.store.revision_files(study_uid, number) if number < 2**31 else None
    path = dict(files.pictures).get(sop_instance_uid) if files else None
    if path is None:
        raise HTTPException(404, "This study has no such picture.")
    made = picture_png(console.config.node.data_dir / path)
    with acting(visitor.account, visitor.address):
        console.trail.accessed(study_uid, {_KEY_IMAGE: 1})
    return Response(made, media_type="image/png")


@router.post("/{study_uid}/retry")
def retry(request: Request, posted: OperatorsForm, study_uid: StudyUid) -> Response:
    """Look at a study anew, or release it."""
    console = console_of(request)
    try:
        with posted.acting():
            told = operate.retry_study(console.store, console.config, study_uid)
    except NodeError as error:
        return done(request, posted, f"/studies/{study_uid}", str(error), "bad")
    return done(request, posted, f"/studies/{study_uid}", told.capitalize() + ".")


@router.post("/{study_uid}/resend")
def resend(request: Request, posted: OperatorsForm, study_uid: StudyUid) -> Response:
    """Send the results of a study again."""
    console = console_of(request)
    try:
        with posted.acting():
            told = operate.send_again(
                console.store, console.config, study_uid, posted.text("peer") or None
            )
    except NodeError as error:
        return done(request, posted, f"/studies/{study_uid}", str(error), "bad")
    return done(request, posted, f"/studies/{study_uid}", told.capitalize() + ".")
