"""Opening a database. The only place that knows SQLite from PostgreSQL."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dicom_node.errors import StoreError

HEAD = "0012"
"""The schema that this version of the program speaks."""
READ_ONLY = "node_read_only"
BUSY_S = 30
# below 3.51.3 the WAL can be corrupted when two connections write and checkpoint at once
# (sqlite.org/wal.html#walresetbug)
_SAFE_WAL = (3, 51, 3)
_MIGRATION_LOCK = 0x70726F73


def open_engine(address: str) -> Engine:
    """Make the engine for a SQLAlchemy URL; every commit waits for the disk.

    Raises:
        StoreError: the URL is wrong or its driver is missing.
    """
    try:
        url = make_url(address)
        backend = url.get_backend_name()
        if backend == "sqlite":
            return _sqlite(url)
        if backend == "postgresql":
            return _postgresql(url)
    except (ArgumentError, ImportError, SQLAlchemyError) as error:
        raise StoreError(
            f"the database address cannot be used: {error}", "see node.database"
        ) from None
    raise StoreError(
        f"the database '{backend}' is not supported", "leave node.database empty, or PostgreSQL"
    )


def journal_settings(version: tuple[int, ...]) -> tuple[str, str]:
    """Journal mode and synchronous setting for a version of SQLite."""
    return ("WAL", "FULL") if version >= _SAFE_WAL else ("DELETE", "EXTRA")


def describe_sqlite() -> str:
    """Say which SQLite this is and how its journal is run, for the doctor."""
    journal, synchronous = journal_settings(sqlite_version())
    return f"{sqlite3.sqlite_version}, journal_mode {journal}, synchronous {synchronous}"


def sqlite_version() -> tuple[int, ...]:
    """Return the version of the SQLite library that this Python uses."""
    return sqlite3.sqlite_version_info


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError("a database in memory is lost with the process", "name a file")
    engine = create_engine(url, pool_size=4, max_overflow=60, connect_args={"timeout": BUSY_S})
    journal, synchronous = journal_settings(sqlite_version())

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # the driver must not start transactions on its own: it starts them late and deferred
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_S * 1000}")
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get(READ_ONLY, False)
        # a transaction that will write takes the lock at once, so that it can never deadlock
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    options = f"-c lock_timeout={BUSY_S}s -c synchronous_commit=on"
    return create_engine(
        url, pool_size=4, max_overflow=60, pool_pre_ping=True, connect_args={"options": options}
    )


def schema_version(engine: Engine) -> str | None:
    """Read the version of the schema in the database; None where there is none.

    Raises:
        StoreError: the database cannot be read.
    """
    try:
        with engine.connect().execution_options(**{READ_ONLY: True}) as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found = connection.execute(text("SELECT version_num FROM alembic_version"))
            return found.scalar_one_or_none()
    except SQLAlchemyError as error:
        raise unusable(error) from None


def migrate(engine: Engine) -> None:
    """Bring the schema of the database to ``HEAD``; nothing to do costs one query.

    Raises:
        StoreError: the database cannot be used, or a newer version of the program wrote it.
    """
    if schema_version(engine) == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    settings = Config()
    settings.set_main_option("script_location", str(files("dicom_node.store") / "migrations"))
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
    except CommandError as error:
        raise StoreError(
            f"the database was written by another version of the program ({error})",
            "start that version, or move the database away and run dicom-node recover",
        ) from None
    except SQLAlchemyError as error:
        raise unusable(error) from None


def quick_check(connection: Connection) -> None:
    """Let SQLite check its own pages; PostgreSQL checks them as it reads.

    Raises:
        StoreError: the file is damaged.
    """
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("PRAGMA quick_check").scalar_one()
    if found != "ok":
        raise StoreError(f"the database is damaged: {found}", "stop the node, dicom-node recover")


def unusable(error: SQLAlchemyError) -> StoreError:
    """Turn an error of the database into one for people; values of rows never stand in it."""
    cause = getattr(error, "orig", None) or error
    return StoreError(
        f"the database cannot be used ({type(cause).__name__}: {str(cause).splitlines()[0]})",
        "see that it is reachable and its disk not full; if it is damaged: dicom-node recover",
    )
