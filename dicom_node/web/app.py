"""The pages and the JSON behind them. Nothing here changes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.templating import Jinja2Templates

from dicom_node import __version__
from dicom_node.config import NodeConfig
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.flow.health import storage_state
from dicom_node.store.store import Store

TEMPLATES = Jinja2Templates(directory=Path(__file__).parent / "templates")
_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(config: NodeConfig, store: Store) -> FastAPI:
    """Build the web application over a store."""
    app = FastAPI(title="Prostate DICOM node", version=__version__, docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(_SECURITY_HEADERS)
        return response

    @app.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    def ready() -> JSONResponse:
        try:
            store.status()
            storage = storage_state(config.node.data_dir)
        except Exception as error:
            return JSONResponse({"status": "not ready", "why": type(error).__name__}, 503)
        if storage.trouble is not None:
            return JSONResponse({"status": "not ready", "why": storage.as_dict()["message"]}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/api/status")
    def status() -> dict[str, Any]:
        storage = storage_state(config.node.data_dir).as_dict()
        return {"ae_title": config.node.ae_title, **store.status(), "storage": storage}

    @app.get("/api/studies")
    def studies() -> list[dict[str, Any]]:
        return store.studies_list()

    @app.get("/api/studies/{study_uid}")
    def study(study_uid: str) -> list[dict[str, Any]]:
        return _known(store.studies_show(study_uid))

    @app.get("/", response_class=HTMLResponse)
    def overview(request: Request) -> HTMLResponse:
        context = {
            "ae_title": config.node.ae_title,
            "status": store.status(),
            "storage": storage_state(config.node.data_dir).as_dict(),
            "studies": store.studies_list(),
            "refusals": store.refusals(),
            "version": __version__,
        }
        return TEMPLATES.TemplateResponse(request, "overview.html", context)

    @app.get("/studies/{study_uid}", response_class=HTMLResponse)
    def study_page(request: Request, study_uid: str) -> HTMLResponse:
        revisions = _known(store.studies_show(study_uid))
        context = {
            "ae_title": config.node.ae_title,
            "study_uid": study_uid,
            "revisions": [{**row, "advice": _advice(row["reason"])} for row in revisions],
            "events": store.timeline(study_uid),
            "version": __version__,
        }
        return TEMPLATES.TemplateResponse(request, "study.html", context)

    return app


def _known(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not rows:
        raise HTTPException(404, "this node holds no such study")
    return rows


def _advice(reason: str | None) -> str:
    return REASONS[Reason(reason)].advice if reason in set(Reason) else ""
