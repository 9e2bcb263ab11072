"""Settings shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
