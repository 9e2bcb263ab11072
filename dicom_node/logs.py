"""Logging: one JSON object a line on stderr. No patient data: studies appear as a short hash."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from datetime import UTC, datetime

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
    # pynetdicom and pydicom write names and identifiers into their messages
    for name in ("pynetdicom", "pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def pseudonym(study_uid: str) -> str:
    """Short stable stand-in for a Study Instance UID in logs."""
    return hashlib.sha256(study_uid.encode()).hexdigest()[:12]
