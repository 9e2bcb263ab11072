"""Who asks: the session behind a cookie, what its role may do, and that a change was meant.

A change comes from a page of this console: by a POST from the same origin that carries the token of
the session (CSRF), which only these pages know.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.responses import Response

from dicom_node.domain.account import Role
from dicom_node.flow.audit import acting
from dicom_node.passwords import digest
from dicom_node.web.console import Console, console_of

SESSION_LIFE_S = 12 * 3600.0
COOKIE = "session"
REFRESH = "X-Refresh"
"""Header of requests that a page sends by itself: they keep no session alive."""


class LoginNeededError(Exception):
    """Nobody is logged in."""


class NotAllowedError(Exception):
    """The role may not do this. ``needed``: which may."""

    def __init__(self, needed: Role) -> None:
        super().__init__(str(needed))
        self.needed = needed


class ForeignRequestError(Exception):
    """A change that does not come from a page of this console, or from one of an old session."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who is logged in, with the token that forms of the session carry."""

    account: str
    role: Role
    address: str
    session: str
    csrf: str

    def may(self, needed: str) -> bool:
        """Whether the role may do what another may; for templates."""
        return self.role.includes(Role(needed))


@dataclass(frozen=True)
class Posted:
    """A form that a visitor sent."""

    visitor: Visitor
    fields: Mapping[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """Return a field without blanks around it; empty where it is absent."""
        return self.fields.get(name, ("",))[0].strip()

    def secret(self, name: str) -> str:
        """Return a field as it was typed."""
        return self.fields.get(name, ("",))[0]

    def words(self, name: str) -> list[str]:
        """Return the words of a field, by blanks, commas or lines."""
        return self.text(name).replace(",", " ").split()

    def ticked(self, name: str) -> bool:
        """Whether a box was ticked."""
        return name in self.fields

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Record what is done inside as done by the visitor."""
        with acting(self.visitor.account, self.visitor.address):
            yield


def cookie_name(console: Console) -> str:
    """Return the name of the session cookie; over HTTPS browsers bind it to this host."""
    return f"__Host-{COOKIE}" if console.config.web.secure else COOKIE


def set_session(response: Response, console: Console, secret: str) -> None:
    """Give a browser its session."""
    response.set_cookie(
        cookie_name(console), secret, max_age=int(SESSION_LIFE_S), path="/", httponly=True,
        secure=console.config.web.secure, samesite="strict",
    )  # fmt: skip


def forget_session(response: Response, console: Console) -> None:
    """Take the session cookie from a browser."""
    response.delete_cookie(
        cookie_name(console), path="/", httponly=True, secure=console.config.web.secure,
        samesite="strict",
    )  # fmt: skip


def address_of(request: Request) -> str:
    """Return the address of the browser, or of the proxy before this node."""
    return request.client.host if request.client else "unknown"


def find_visitor(request: Request) -> Visitor | None:
    """Return who is logged in, if anybody is."""
    console = console_of(request)
    secret = request.cookies.get(cookie_name(console), "")
    if not secret:
        return None
    found = console.store.session(
        digest(secret), 60.0 * console.config.web.idle_min, SESSION_LIFE_S,
        use=REFRESH not in request.headers,
    )  # fmt: skip
    if found is None:
        return None
    return Visitor(
        found.account, found.role, address_of(request), digest(secret), csrf_token(secret)
    )


def csrf_token(secret: str) -> str:
    """Return what forms of a session carry; it does not tell the session."""
    return hmac.new(secret.encode(), b"form", "sha256").hexdigest()


def looks(needed: Role) -> Callable[[Request], Visitor]:
    """Return a dependency: somebody whose role may look."""

    def check(request: Request) -> Visitor:
        visitor = find_visitor(request)
        if visitor is None:
            raise LoginNeededError
        if not visitor.role.includes(needed):
            raise NotAllowedError(needed)
        return visitor

    return check


def changes(needed: Role) -> Callable[..., Posted]:
    """Return a dependency: a form, meant, by somebody whose role may change something."""
    visitor_of = looks(needed)

    def check(request: Request, fields: Mapping[str, tuple[str, ...]] = _FIELDS) -> Posted:
        same_origin(request)
        visitor = visitor_of(request)
        sent = fields.get("csrf", ("",))[0]
        if not hmac.compare_digest(sent.encode(), visitor.csrf.encode()):
            raise ForeignRequestError
        return Posted(visitor, fields)

    return check


def same_origin(request: Request) -> None:
    """Refuse a request that a page of another site made.

    Raises:
        ForeignRequestError: it is one.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise ForeignRequestError
        return
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ForeignRequestError


async def form_fields(request: Request) -> Mapping[str, tuple[str, ...]]:
    """Read a form; files are no part of any."""
    form = await request.form(max_files=0, max_fields=100)
    found: dict[str, tuple[str, ...]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            found[name] = (*found.get(name, ()), value)
    return found


_FIELDS = Depends(form_fields)
