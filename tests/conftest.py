"""Settings shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dicom_node.clock import ManualClock
from dicom_node.store.store import Store
from tests.databases import postgresql_server, run_sql
from tests.fuzz.campaign import LINES, table
from tests.studies import StudyMaker

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile(
    "ci", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was injected and how often it did harm."""
    if LINES:
        terminalreporter.section("faults and mutations")
        terminalreporter.write_line(table(LINES))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with public PROSTATEx and Prostate-3T studies; the test skips where it is absent."""
    folder = Path(os.environ.get("PROSTATE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("public studies not found; set PROSTATE_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def prostatex_0000(real_data: Path) -> Path:
    """PROSTATEx patient ProstateX-0000: a complete bi-parametric examination."""
    return real_data / "prostatex-0000"


@pytest.fixture(scope="session")
def prostate3t_0002(real_data: Path) -> Path:
    """Prostate-3T patient 03-0002: axial T2W alone."""
    return real_data / "prostate3t-0002"


@pytest.fixture(scope="session")
def studies() -> StudyMaker:
    """Writer of small synthetic studies."""
    return StudyMaker()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a throwaway PostgreSQL that listens on a socket in its own folder."""
    with postgresql_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_template(postgresql: str) -> str:
    """Server URL; its database ``migrated`` is the one to copy."""
    run_sql(postgresql, "CREATE DATABASE migrated")
    migrated = postgresql.replace("/postgres?", "/migrated?")
    Store(migrated, clock=ManualClock(), create=True).close()
    return postgresql
