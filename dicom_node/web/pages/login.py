"""Logging in and out, choosing a password, the own account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dicom_node.domain.account import PASSWORD_MIN, Role
from dicom_node.errors import WrongUseError
from dicom_node.flow.audit import acting
from dicom_node.passwords import digest, new_secret
from dicom_node.web.console import Console, console_of
from dicom_node.web.render import page
from dicom_node.web.visitors import (
    SESSION_LIFE_S,
    Posted,
    Visitor,
    address_of,
    changes,
    find_visitor,
    forget_session,
    form_fields,
    looks,
    same_origin,
    set_session,
)

router = APIRouter()
Fields = Annotated[Mapping[str, tuple[str, ...]], Depends(form_fields)]
Anyone = Annotated[Visitor, Depends(looks(Role.VIEWER))]
AnyonesForm = Annotated[Posted, Depends(changes(Role.VIEWER))]
_TWICE = "the two passwords differ"


@router.get("/login")
def login_page(request: Request, to: str = "/") -> Response:
    """Ask for name and password."""
    if find_visitor(request) is not None:
        return RedirectResponse(_inside(to), 303)
    some = any(one.password_hash for one in console_of(request).store.accounts())
    return page(request, "login.html", None, to=_inside(to), first=not some)


@router.post("/login")
def log_in(request: Request, fields: Fields) -> Response:
    """Begin a session."""
    same_origin(request)
    console = console_of(request)
    name = fields.get("name", ("",))[0].strip().lower()[:64]
    password = fields.get("password", ("",))[0][:1024]
    to, address = _inside(fields.get("to", ("/",))[0]), address_of(request)
    wait_s = console.throttle.wait_s(name, address)
    if wait_s > 0:
        problem = f"Too many tries. Wait {wait_s:.0f} s, then try again."
        return _refused(request, 429, problem, name, to)
    if console.accounts.log_in(name, password, address) is None:
        console.throttle.failed(name, address)
        return _refused(request, 401, "Name or password is wrong.", name, to)
    console.throttle.succeeded(name, address)
    response = RedirectResponse(to, 303)
    _begin(response, console, name, address)
    return response


@router.post("/logout")
def log_out(request: Request, posted: AnyonesForm) -> Response:
    """End the session."""
    console = console_of(request)
    with posted.acting():
        console.accounts.logged_out()
    console.store.session_end(posted.visitor.session)
    response = RedirectResponse("/login", 303)
    forget_session(response, console)
    return response


@router.get("/welcome/{code}")
def welcome(request: Request, code: str) -> HTMLResponse:
    """Let the holder of a one-time code choose a password."""
    found = console_of(request).store.account_of_code(digest(code))
    status = 200 if found else 404
    return page(request, "welcome.html", None, status, account=found, least=PASSWORD_MIN, code=code)


@router.post("/welcome/{code}")
def choose_password(request: Request, code: str, fields: Fields) -> Response:
    """Set the first password of an account and log it in."""
    same_origin(request)
    console, address = console_of(request), address_of(request)
    password, again = (fields.get(name, ("",))[0] for name in ("password", "again"))
    found = console.store.account_of_code(digest(code))
    name = found.name if found else "unknown"
    try:
        if password != again:
            raise WrongUseError(_TWICE, "type them again")
        with acting(name, address):
            console.accounts.redeem(code, password)
    except WrongUseError as error:
        return page(
            request, "welcome.html", None, 400, account=found, least=PASSWORD_MIN, code=code,
            problem=str(error),
        )  # fmt: skip
    response = RedirectResponse("/", 303)
    console.trail.login(name, address)
    _begin(response, console, name, address)
    return response


@router.get("/account")
def own_account(request: Request, visitor: Anyone) -> HTMLResponse:
    """Show the own account."""
    return page(request, "account.html", visitor, least=PASSWORD_MIN)


@router.post("/account/password")
def change_password(request: Request, posted: AnyonesForm) -> Response:
    """Change the own password; every other session of the account ends."""
    console, visitor = console_of(request), posted.visitor
    new, again = posted.secret("new"), posted.secret("again")
    wait_s = console.throttle.wait_s(visitor.account, visitor.address)
    if wait_s > 0:
        raise WrongUseError("too many tries", f"wait {wait_s:.0f} s")
    if new != again:
        raise WrongUseError(_TWICE, "type them again")
    with posted.acting():
        try:
            console.accounts.change_own(visitor.account, posted.secret("old"), new)
        except WrongUseError:
            console.throttle.failed(visitor.account, visitor.address)
            raise
    response = RedirectResponse("/login", 303)
    forget_session(response, console)
    return response


def _begin(response: Response, console: Console, name: str, address: str) -> None:
    secret = new_secret()
    oldest_s = console.clock.now_s() - SESSION_LIFE_S
    console.store.session_begin(name, digest(secret), address, oldest_s)
    set_session(response, console, secret)


def _refused(request: Request, status: int, problem: str, name: str, to: str) -> HTMLResponse:
    return page(request, "login.html", None, status, problem=problem, name=name, to=to)


def _inside(to: str) -> str:
    """Return a path of this console, whatever a link asks for."""
    plain = to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable()
    return to if plain and not to.startswith(("/login", "/welcome")) else "/"
