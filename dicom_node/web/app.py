"""The web application: pages for people, the API for programs, health for monitors."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from dicom_node import __version__
from dicom_node.config import NodeConfig
from dicom_node.errors import NodeError, StoreError
from dicom_node.flow.accounts import Accounts
from dicom_node.flow.audit import AuditTrail
from dicom_node.store.store import Store
from dicom_node.web import metrics, readiness
from dicom_node.web.api import api_app
from dicom_node.web.console import Console
from dicom_node.web.hardening import Hardening
from dicom_node.web.pages import (
    alarms,
    drift,
    login,
    models,
    overview,
    peers,
    records,
    settings,
    studies,
)
from dicom_node.web.rehearsals import Rehearsals
from dicom_node.web.render import HERE, done, page
from dicom_node.web.throttle import LoginThrottle
from dicom_node.web.visitors import (
    ForeignRequestError,
    LoginNeededError,
    NotAllowedError,
    Posted,
    Visitor,
    find_visitor,
)

log = logging.getLogger(__name__)
_PAGES = (login, overview, studies, peers, models, drift, records, settings, alarms)


class _Files(StaticFiles):
    """Files of the package; their names change with their version, a style sheet aside."""

    def file_response(self, *arguments: object, **named: object) -> Response:
        """Let a browser keep a file for a while."""
        response = super().file_response(*arguments, **named)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "max-age=600"
        return response


def create_console(config: NodeConfig, store: Store) -> Console:
    """Put the parts of the web process together; the audit trail is not started."""
    clock = store.clock
    return Console(
        config, store, clock, Accounts(store, config, clock), AuditTrail(store, config, clock),
        LoginThrottle(clock), Rehearsals(config),
    )  # fmt: skip


def create_app(console: Console) -> FastAPI:
    """Build the web application."""
    app = FastAPI(title="Prostate DICOM node", version=__version__, openapi_url=None)
    app.state.console = console
    app.add_middleware(Hardening, secure=console.config.web.secure)
    app.mount("/static", _Files(directory=Path(HERE) / "static"))
    app.mount("/api/v1", api_app(console))
    for module in _PAGES:
        app.include_router(module.router)
    app.include_router(readiness.router)
    app.include_router(metrics.router)
    app.exception_handler(LoginNeededError)(_login_needed)
    app.exception_handler(NotAllowedError)(_not_allowed)
    app.exception_handler(ForeignRequestError)(_foreign)
    app.exception_handler(NodeError)(_node_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_wrong_request)
    app.exception_handler(Exception)(_defect)
    return app


def _login_needed(request: Request, _error: Exception) -> Response:
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    if request.method != "GET":
        return RedirectResponse("/login", 303)
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = request.url.path + query
    return RedirectResponse(
        "/login" + (f"?{urlencode({'to': wanted})}" if wanted != "/" else ""), 303
    )


def _not_allowed(request: Request, error: Exception) -> Response:
    needed = error.needed if isinstance(error, NotAllowedError) else ""
    return _problem(request, 403, f"Your account may not do this. It needs the role {needed}.")


def _foreign(request: Request, _error: Exception) -> Response:
    return _problem(
        request, 403, "This form is no longer valid. Go back, load the page again, then repeat."
    )


def _node_error(request: Request, error: Exception) -> Response:
    status = 503 if isinstance(error, StoreError) else 400
    visitor = _visitor(request) if request.method == "POST" else None
    if visitor is not None and "hx-request" in request.headers:
        return done(request, Posted(visitor, {}), "/", str(error), "bad")
    return _problem(request, status, str(error))


def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    words = {404: "There is no such page.", 405: "This page takes no such request."}
    plain = detail if detail.endswith(".") else words.get(status, detail)
    return _problem(request, status, plain)


def _wrong_request(request: Request, _error: Exception) -> Response:
    return _problem(request, 400, "This address holds a value that cannot be used.")


def _defect(request: Request, error: Exception) -> Response:
    log.error("a page failed", exc_info=error, extra={"path": request.url.path})
    return PlainTextResponse("The console failed. See the log of the web process.\n", 500)


def _problem(request: Request, status: int, text: str) -> Response:
    if request.url.path.startswith("/api/"):  # what no route of the API is, a line break in it
        return JSONResponse({"error": text, "advice": "see /api/v1/openapi.json"}, status)
    return page(request, "problem.html", _visitor(request), status, text=text)


def _visitor(request: Request) -> Visitor | None:
    try:
        return find_visitor(request)
    except StoreError:
        return None
