"""Databases for the tests, made by copying: to migrate one for each test takes too long."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from dicom_node.clock import Clock, ManualClock
from dicom_node.store.store import Store


def fast_folder() -> str | None:
    """A folder in memory where there is one, for tests about rows and not about the disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


@cache
def migrated() -> bytes:
    """A migrated SQLite file without rows."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        file = Path(folder) / "template.sqlite3"
        Store(f"sqlite:///{file}", clock=ManualClock(), create=True).close()
        return file.read_bytes()


def open_store(url: str, clock: Clock, host: str | None = None) -> Store:
    """Open the store of an SQLite URL; where there is none yet, a migrated one is put there."""
    file = Path(url.removeprefix("sqlite:///"))
    if not file.exists():
        file.write_bytes(migrated())
    return Store(url, clock=clock, host=host)
