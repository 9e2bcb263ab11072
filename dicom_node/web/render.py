"""Templates, and how values are shown in them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.templating import Jinja2Templates
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dicom_node import __version__
from dicom_node.domain.account import Role
from dicom_node.web.console import console_of
from dicom_node.web.visitors import Posted, Visitor

HERE = Path(__file__).parent
_TEMPLATES = Jinja2Templates(directory=HERE / "templates")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SPANS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def moment(value: float | str | None) -> str:
    """Return a time as people read it: UTC, to the second."""
    if value is None:
        return ""
    if isinstance(value, str):
        at = datetime.fromisoformat(value)
    else:
        at = datetime.fromtimestamp(value, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}"


def span(seconds: float | None) -> str:
    """Return a length of time in its largest unit."""
    if seconds is None:
        return "none"
    for size, unit in _SPANS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def size(number: float) -> str:
    """Return a number of bytes with its unit."""
    step = 0
    while number >= 1024 and step < len(_UNITS) - 1:
        number, step = number / 1024, step + 1
    return f"{number:.0f} {_UNITS[step]}" if step < 2 else f"{number:.1f} {_UNITS[step]}"


def words(value: object) -> str:
    """Return a name of the code as words."""
    return str(value).replace("_", " ")


def number(value: float) -> str:
    """Return a whole number with groups of three digits."""
    return f"{int(value):,}".replace(",", " ")


_TEMPLATES.env.filters.update(
    moment=moment, span=span, size=size, words=words, number=number,
    segment=lambda text: quote(str(text), safe=""),
)  # fmt: skip
_TEMPLATES.env.globals.update(
    Role=Role, version=__version__, now=lambda: moment(datetime.now(UTC).timestamp())
)
_TEMPLATES.env.trim_blocks = True
_TEMPLATES.env.lstrip_blocks = True


def page(
    request: Request, template: str, visitor: Visitor | None, /, status: int = 200, **values: Any
) -> HTMLResponse:
    """Fill a template; the note that waits for the visitor is shown once, on a whole page."""
    console = console_of(request)
    whole = "hx-request" not in request.headers or "hx-boosted" in request.headers
    note = console.notes.take(visitor.session) if visitor is not None and whole else None
    context = {
        "ae_title": console.config.node.ae_title, "visitor": visitor, "note": note,
        "path": request.url.path, **values,
    }  # fmt: skip
    return _TEMPLATES.TemplateResponse(request, template, context, status_code=status)


def done(request: Request, posted: Posted, to: str, text: str, kind: str = "good") -> Response:
    """Say what was done: on the next page, or beside the button where the script asked."""
    if "hx-request" in request.headers and "hx-boosted" not in request.headers:
        return page(request, "_note.html", posted.visitor, kind=kind, text=text)
    console_of(request).notes.leave(posted.visitor.session, kind, text)
    return RedirectResponse(to, 303)
