"""Logging: one JSON object a line on stderr. No patient data: studies appear as a short hash."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

_told: set[tuple[str, type[Warning]]] = set()
"""Warnings that were logged, by their place in the code: each is logged once."""
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One record as one line of JSON; keyword ``extra`` values become fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "event": record.getMessage(),
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            # the traceback names code, not values: no patient data stands in it
            frames = logging.Formatter().formatException(record.exc_info).splitlines()[1:-1]
            line["trace"] = [frame.strip() for frame in frames if frame.lstrip().startswith("File")]
        return json.dumps(line, default=str)


def start_logging(role: str, level: int = logging.INFO) -> None:
    """Send the log of this process to stderr. Third-party loggers stay at warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("dicom_node").setLevel(level)
    warnings.showwarning = _warned  # a warning may quote a value: the log names where, not what
    # to show one only once, Python keeps the text of each: without end where texts quote values
    warnings.simplefilter("always", append=True)
    _told.clear()
    # pynetdicom and pydicom write names and identifiers into their messages
    for name in ("pynetdicom", "pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def guard_tracebacks() -> None:
    """Log errors that nobody caught without their words, which may quote a value.

    For processes that nobody watches; without it Python prints them whole on stderr.
    """
    sys.excepthook = _uncaught
    threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if error is not None:
        logging.getLogger(__name__).error("uncaught error", exc_info=(kind, error, trace))


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    where = f"{Path(filename).name}:{lineno}"
    if (where, category) in _told:
        return
    _told.add((where, category))
    logging.getLogger(__name__).warning(
        "warning", extra={"category": category.__name__, "where": where}
    )


def pseudonym(study_uid: str) -> str:
    """Short stable stand-in for a Study Instance UID in logs."""
    return hashlib.sha256(study_uid.encode()).hexdigest()[:12]
