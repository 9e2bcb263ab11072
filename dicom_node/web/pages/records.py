"""What was recorded: annotations of people, and the audit trail."""

from __future__ import annotations

import re
from html import unescape
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, Response

from dicom_node.domain.account import Role
from dicom_node.flow.annotated import annotation_json
from dicom_node.flow.audit import acting
from dicom_node.store.rows import AuditRow
from dicom_node.web.console import console_of
from dicom_node.web.render import done, page
from dicom_node.web.visitors import Posted, Visitor, changes, looks

router = APIRouter()
Viewer = Annotated[Visitor, Depends(looks(Role.VIEWER))]
Admin = Annotated[Visitor, Depends(looks(Role.ADMIN))]
AdminsForm = Annotated[Posted, Depends(changes(Role.ADMIN))]
PAGE = 50
# the records are the XML of `dicom_node.domain.audit`, with its order of attributes
_PERSON = re.compile(r'<ActiveParticipant UserID="([^"]*)"[^>]*UserIsRequestor="(true|false)"')
_STUDY = re.compile(r'ParticipantObjectID="([0-9.]+)" ParticipantObjectTypeCode="2"')
_WORDS = re.compile(r"<EventOutcomeDescription>([^<]*)</EventOutcomeDescription>")


@router.get("/annotations")
def annotation_list(request: Request, visitor: Viewer, after: int = 0) -> HTMLResponse:
    """List what people stored about findings, the latest first."""
    before = after if 0 < after < 2**53 else None
    rows = console_of(request).store.annotations_latest(PAGE + 1, before)
    shown = [annotation_json(row) for row in rows[:PAGE]]
    following = shown[-1]["id"] if len(rows) > PAGE else 0
    return page(request, "annotations.html", visitor, rows=shown, after=following)


@router.get("/audit")
def audit(request: Request, visitor: Admin, before: int = 0) -> HTMLResponse:
    """List the audit trail, the latest first; the reading is recorded (PS3.15 A.5.3.2)."""
    console = console_of(request)
    head, digest = console.store.audit_head()
    last = min(before - 1, head) if before > 0 else head
    first = max(0, last - PAGE)
    rows = console.store.audit_list(first, last - first) if last > first else []
    with acting(visitor.account, visitor.address):
        console.trail.trail_read()
    return page(
        request, "audit.html", visitor, rows=[_told(row) for row in rows[::-1]], head=head,
        digest=digest, before=first + 1 if first > 0 else 0,
    )  # fmt: skip


@router.post("/audit/verify")
def verify(request: Request, posted: AdminsForm) -> Response:
    """Compute the chain of the audit trail anew."""
    found = console_of(request).store.audit_verify()
    if found.problem:
        told = (
            f"{found.problem}. Keep the database as it is, compare it with what was forwarded, "
            "and find out who could write to it."
        )
        return done(request, posted, "/audit", told, "bad")
    return done(request, posted, "/audit", f"{found.records} records, whole. Head {found.head}.")


def _told(row: AuditRow) -> tuple[AuditRow, str, str]:
    """Return a record, who asked for what happened, and what it is about."""
    people = _PERSON.findall(row.message)
    who = next((name for name, asked in people if asked == "true"), "")
    study = _STUDY.search(row.message)
    words = _WORDS.search(row.message)
    parts = (row.subject, study[1] if study else "", words[1] if words else "")
    return row, unescape(who), unescape("  ".join(part for part in parts if part))
