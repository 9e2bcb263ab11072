"""Annotations of people, and the audit trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from dicom_node.flow.annotated import annotation_json
from dicom_node.store.times import iso
from dicom_node.web.api.access import Admin, Viewer
from dicom_node.web.api.shapes import AnnotationShape, AuditShape
from dicom_node.web.console import console_of

router = APIRouter(tags=["records"])
_Number = Annotated[int, Query(ge=0, lt=2**53)]
_Limit = Annotated[int, Query(ge=1, le=1000)]
_HEAD = ("id", "study_uid", "kind", "state", "reason", "received_at")


@router.get("/annotations")
def annotation_list(
    request: Request, _caller: Viewer, before: _Number = 0, limit: _Limit = 100
) -> list[AnnotationShape]:
    """List what people stored about findings, the latest first; ``before``: an id."""
    rows = console_of(request).store.annotations_latest(limit, before or None)
    told = [annotation_json(row) for row in rows]
    return [
        AnnotationShape(
            **{key: one[key] for key in _HEAD},
            detail={key: value for key, value in one.items() if key not in _HEAD},
        )
        for one in told
    ]


@router.get("/audit")
def audit(
    request: Request, caller: Admin, after: _Number = 0, limit: _Limit = 100
) -> list[AuditShape]:
    """List records of the audit trail, oldest first; the reading is recorded too."""
    console = console_of(request)
    rows = console.store.audit_list(after, limit)
    with caller.acting():
        console.trail.trail_read()
    return [
        AuditShape(
            number=row.number, at=iso(row.at_s) or "", event=row.event, subject=row.subject,
            hash=row.hash, message=row.message,
        )
        for row in rows
    ]  # fmt: skip
