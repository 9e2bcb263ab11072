"""Databases for the tests: SQLite in a folder, and a PostgreSQL of the test's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.store.store import Store
from tests.databases import BOTH, database, fast_folder, migrated


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a migrated database, once of each kind."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            (Path(folder) / "node.sqlite3").write_bytes(migrated())
            yield f"sqlite:///{folder}/node.sqlite3"
        return
    yield from database(request.getfixturevalue("postgresql_template"))


@pytest.fixture(params=BOTH)
def empty_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database without tables, once of each kind."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            yield f"sqlite:///{folder}/node.sqlite3"
        return
    yield from database(request.getfixturevalue("postgresql"), "")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(url: str, clock: ManualClock) -> Iterator[Store]:
    made = Store(url, clock=clock, host="here")
    yield made
    made.close()
