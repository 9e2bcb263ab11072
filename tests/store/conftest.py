"""Databases for the tests: SQLite in a folder, and a PostgreSQL of the test's own."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from dicom_node.clock import ManualClock
from dicom_node.store.store import Store
from tests.databases import fast_folder, migrated, postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a throwaway PostgreSQL that listens on a socket in its own folder."""
    with postgresql_server() as url:
        yield url


def _run(server: str, *statements: str) -> None:
    admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _migrated(url: str) -> None:
    Store(url, clock=ManualClock(), create=True).close()


@pytest.fixture(scope="session")
def postgresql_template(postgresql: str) -> str:
    """Server URL; its database ``migrated`` is the one to copy."""
    _run(postgresql, "CREATE DATABASE migrated")
    _migrated(postgresql.replace("/postgres?", "/migrated?"))
    return postgresql


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a migrated database, once of each kind."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            (Path(folder) / "node.sqlite3").write_bytes(migrated())
            yield f"sqlite:///{folder}/node.sqlite3"
        return
    yield from database(request.getfixturevalue("postgresql_template"), "TEMPLATE migrated")


@pytest.fixture(params=BOTH)
def empty_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database without tables, once of each kind."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            yield f"sqlite:///{folder}/node.sqlite3"
        return
    yield from database(request.getfixturevalue("postgresql"), "")


def database(server: str, options: str) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    _run(server, f"CREATE DATABASE {name} {options} STRATEGY file_copy")
    yield server.replace("/postgres?", f"/{name}?")
    _run(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(url: str, clock: ManualClock) -> Iterator[Store]:
    made = Store(url, clock=clock, host="here")
    yield made
    made.close()
