"""The first page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from dicom_node.domain.account import Role
from dicom_node.web.console import console_of
from dicom_node.web.overview_view import overview
from dicom_node.web.render import page
from dicom_node.web.visitors import Visitor, looks

router = APIRouter()


@router.get("/")
def first_page(
    request: Request, visitor: Annotated[Visitor, Depends(looks(Role.VIEWER))]
) -> HTMLResponse:
    """Show the node at a glance."""
    return page(request, "overview.html", visitor, view=overview(console_of(request)))
