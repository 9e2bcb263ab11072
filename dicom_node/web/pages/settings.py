"""Accounts, tokens of the API, and the configuration as it runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, Response

from dicom_node.conformance.network import settings as settings_table
from dicom_node.domain.account import Role
from dicom_node.errors import WrongUseError
from dicom_node.web.console import console_of
from dicom_node.web.render import done, page
from dicom_node.web.visitors import Posted, Visitor, changes, looks

router = APIRouter(prefix="/settings")
Admin = Annotated[Visitor, Depends(looks(Role.ADMIN))]
AdminsForm = Annotated[Posted, Depends(changes(Role.ADMIN))]
_ACCOUNTS, _TOKENS = "/settings/users", "/settings/tokens"


@router.get("/users")
def users(request: Request, visitor: Admin) -> HTMLResponse:
    """List accounts."""
    console = console_of(request)
    return page(
        request, "users.html", visitor, rows=console.store.accounts(), roles=list(Role),
        now_s=console.clock.now_s(),
    )  # fmt: skip


@router.post("/users")
def add_user(request: Request, posted: AdminsForm) -> Response:
    """Add an account; its one-time link is shown once."""
    console, name = console_of(request), posted.text("name").lower()
    with posted.acting():
        code = console.accounts.add(name, _role(posted))
    return _link(request, posted, name, code)


@router.post("/users/{name}/reset")
def reset(request: Request, posted: AdminsForm, name: str) -> Response:
    """Make a one-time link for a new password."""
    with posted.acting():
        code = console_of(request).accounts.new_code(name)
    return _link(request, posted, name, code)


@router.post("/users/{name}/role")
def change_role(request: Request, posted: AdminsForm, name: str) -> Response:
    """Change the role of an account."""
    role = _role(posted)
    _not_oneself(posted, name)
    with posted.acting():
        console_of(request).accounts.set_role(name, role)
    return done(request, posted, _ACCOUNTS, f"{name} is {role} now and logs in again.")


@router.post("/users/{name}/remove")
def remove_user(request: Request, posted: AdminsForm, name: str) -> Response:
    """Remove an account."""
    _not_oneself(posted, name)
    with posted.acting():
        console_of(request).accounts.remove(name)
    return done(request, posted, _ACCOUNTS, f"Removed {name}.")


@router.get("/tokens")
def tokens(request: Request, visitor: Admin) -> HTMLResponse:
    """List tokens of the API."""
    console = console_of(request)
    return page(
        request, "tokens.html", visitor, rows=console.store.tokens(), roles=list(Role),
        now_s=console.clock.now_s(),
    )  # fmt: skip


@router.post("/tokens")
def add_token(request: Request, posted: AdminsForm) -> Response:
    """Add a token; it is shown once."""
    console, name, days = console_of(request), posted.text("name").lower(), posted.text("days")
    if days and not (days.isdigit() and len(days) < 6):
        raise WrongUseError("the days are no whole number", "leave them empty for no end")
    with posted.acting():
        secret = console.accounts.add_token(
            name, _role(posted), posted.visitor.account, int(days) if days else None
        )
    return page(request, "secret.html", posted.visitor, what="token", name=name, secret=secret,
                back=_TOKENS)  # fmt: skip


@router.post("/tokens/{name}/remove")
def remove_token(request: Request, posted: AdminsForm, name: str) -> Response:
    """Remove a token."""
    with posted.acting():
        console_of(request).accounts.remove_token(name)
    return done(request, posted, _TOKENS, f"Removed {name}.")


@router.get("/configuration")
def configuration(request: Request, visitor: Admin) -> HTMLResponse:
    """Show every setting as it runs; paths and secrets are left out."""
    rows = settings_table(console_of(request).config).rows
    return page(request, "configuration.html", visitor, rows=rows)


def _link(request: Request, posted: Posted, name: str, code: str) -> HTMLResponse:
    link = f"{str(request.base_url).rstrip('/')}/welcome/{code}"
    public = console_of(request).config.web.public_url.rstrip("/")
    if public:
        link = f"{public}/welcome/{code}"
    return page(request, "secret.html", posted.visitor, what="link", name=name, secret=link,
                back=_ACCOUNTS)  # fmt: skip


def _role(posted: Posted) -> Role:
    text = posted.text("role")
    if text not in set(Role):
        raise WrongUseError(f"there is no role '{text[:40]}'", f"choose {', '.join(Role)}")
    return Role(text)


def _not_oneself(posted: Posted, name: str) -> None:
    if name == posted.visitor.account:
        raise WrongUseError("this is your own account", "let another administrator do this")
