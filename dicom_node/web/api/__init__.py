"""The API under /api/v1: what pages and command line do, as JSON, for bearer tokens.

Described by OpenAPI at /api/v1/openapi.json, for those with a token.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from dicom_node import __version__
from dicom_node.domain.account import Role
from dicom_node.errors import NodeError, StoreError
from dicom_node.web.api import alarms, drift, models, peers, records, status, studies
from dicom_node.web.api.access import may
from dicom_node.web.api.shapes import Problem
from dicom_node.web.console import Console

log = logging.getLogger(__name__)
_ROUTERS = (status.router, studies.router, peers.router, models.router, drift.router,
            records.router, alarms.router)  # fmt: skip
_ERRORS: dict[int | str, dict[str, Any]] = {
    number: {"model": Problem, "description": what}
    for number, what in {
        400: "The request cannot be understood", 401: "No token, or none that counts",
        403: "The role of the token may not do this", 404: "There is no such thing",
        409: "It cannot be done in the present state", 413: "The request is too long",
        422: "A value or parameter is not what is described",
        503: "The database cannot be used",
    }.items()
}  # fmt: skip


def api_app(console: Console) -> FastAPI:
    """Build the API; it is mounted under /api/v1."""
    app = FastAPI(
        title="Prostate DICOM node", version=__version__, docs_url=None, redoc_url=None,
        openapi_url=None, responses=_ERRORS, redirect_slashes=False,
        description="Research software. Results are machine-made and unverified.",
        servers=[{"url": "/api/v1"}], dependencies=[Depends(_known_parameters)],
    )  # fmt: skip
    app.state.console = console
    for router in _ROUTERS:
        app.include_router(router)
    app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(may(Role.VIEWER))])(
        lambda: JSONResponse(app.openapi())
    )
    app.exception_handler(NodeError)(_node_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_wrong_value)
    app.exception_handler(Exception)(_defect)
    return app


def _known_parameters(request: Request) -> None:
    """Refuse a parameter that the operation does not have: a typing error must not be silent."""
    route = request.scope.get("route")
    if isinstance(route, APIRoute):
        known = {parameter.alias for parameter in route.dependant.query_params}
        if unknown := sorted(set(request.query_params) - known):
            raise HTTPException(422, f"unknown parameter '{unknown[0][:64]}'")


def _node_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer 409: the request was understood, but what the node holds does not allow it."""
    message, advice = (error.message, error.advice) if isinstance(error, NodeError) else ("", "")
    return _problem(503 if isinstance(error, StoreError) else 409, message, advice)


def _http_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _problem(500, "the API failed", "")
    return _problem(error.status_code, str(error.detail), "", error.headers)


def _wrong_value(_request: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    places = [".".join(str(part) for part in one["loc"]) for one in problems[:5]]
    told = "; ".join(f"{at}: {one['msg']}" for at, one in zip(places, problems, strict=False))
    return _problem(422, told[:1000] or "wrong value", "see /api/v1/openapi.json")


def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("the API failed", exc_info=error, extra={"path": request.url.path})
    return _problem(500, "the API failed", "see the log of the web process")


def _problem(status_code: int, error: str, advice: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": error, "advice": advice}, status_code, headers=headers)
