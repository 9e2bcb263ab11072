"""Databases for the tests, made by copying: to migrate one for each test takes too long."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

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
    """Open the store of a URL; where there is no SQLite file yet, a migrated one is put there."""
    if not url.startswith("sqlite"):
        return Store(url, clock=clock, host=host)
    file = Path(url.removeprefix("sqlite:///"))
    if not file.exists():
        file.write_bytes(migrated())
    return Store(url, clock=clock, host=host)


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)]
"""Parameters of what is tested on both databases."""
BIN = Path("/usr/lib/postgresql/15/bin")


def _unprivileged() -> str | None:
    """The account that PostgreSQL runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def postgresql_server(port: int = 0) -> Iterator[str]:
    """A throwaway PostgreSQL: URL of its database `postgres`.

    It listens on a socket in its own folder, or on a port of loopback. Where PostgreSQL is not
    installed the test is skipped, and fails under ``INTEROP_REQUIRED=1``.
    """
    if not (BIN / "initdb").exists():
        message = "PostgreSQL 15 is not installed (apt-get install postgresql-15)"
        if os.environ.get("INTEROP_REQUIRED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="pg", dir=fast_folder()))
    if user is not None:
        shutil.chown(folder, user)
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    subprocess.run(
        [BIN / "initdb", "-D", folder / "data", "-U", "node", "-A", "trust", "-N", "-E", "UTF8"],
        check=True, capture_output=True, user=user, env=environment, cwd=folder,
    )  # fmt: skip
    settings = {
        "listen_addresses": "127.0.0.1" if port else "", "unix_socket_directories": str(folder),
        "port": str(port or 5432), "max_connections": "100", "fsync": "off",
    }  # fmt: skip
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    server = subprocess.Popen(
        [BIN / "postgres", "-D", folder / "data", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, env=environment,
        cwd=folder,
    )  # fmt: skip
    try:
        _wait_until_up(server, folder, port or 5432)
        where = f"127.0.0.1:{port}/postgres" if port else f"/postgres?host={folder}"
        yield f"postgresql+psycopg://node@{where}"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(server: subprocess.Popen[bytes], folder: Path, port: int) -> None:
    asked = [BIN / "pg_isready", "-q", "-h", folder, "-p", str(port)]
    for _ in range(900):
        assert server.poll() is None, "PostgreSQL ended at its start"
        if subprocess.run(asked, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL did not come up")


def run_sql(server: str, *statements: str) -> None:
    """Run statements outside a transaction."""
    admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def database(server: str, options: str = "TEMPLATE migrated") -> Iterator[str]:
    """A database of its own on a PostgreSQL, a migrated one, until the generator goes on."""
    name = f"t{uuid.uuid4().hex}"
    run_sql(server, f"CREATE DATABASE {name} {options} STRATEGY file_copy")
    yield server.replace("/postgres?", f"/{name}?")
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")
