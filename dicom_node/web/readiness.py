"""Live and ready, for monitors: no login, and nothing in it but the names of what is not well."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from dicom_node.domain.roles import NEEDED, alive
from dicom_node.web.console import Console, console_of

router = APIRouter(include_in_schema=False)
_OK = "ok"


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Say that this process answers; in no thread, so that it does where others hang."""
    return {"status": "live"}


@router.get("/health")
@router.get("/health/ready")
def ready(request: Request) -> JSONResponse:
    """Say whether studies are received, analysed and delivered: 200, or 503 and what is not."""
    checks = readiness(console_of(request))
    wrong = [f"{name}: {found}" for name, found in checks.items() if found != _OK]
    told = {"status": "not ready" if wrong else "ready", "checks": checks}
    return JSONResponse(told | ({"why": "; ".join(wrong)} if wrong else {}), 503 if wrong else 200)


def readiness(console: Console) -> dict[str, str]:
    """Return each check with ``ok``, or with what is wrong in a few words."""
    try:
        lives = alive(console.store.processes(), console.clock.now_s())
    except Exception as error:  # whatever it is, this node cannot work
        return {"database": f"does not answer ({type(error).__name__})"}
    checks = {"database": _OK, "storage": _storage(console)}
    return checks | {role: _OK if lives[role] else "not seen" for role in NEEDED}


def _storage(console: Console) -> str:
    try:
        storage = console.storage()
    except OSError as error:
        return f"the data folder does not answer ({type(error).__name__})"
    return _OK if storage.trouble is None else str(storage.as_dict()["message"])
