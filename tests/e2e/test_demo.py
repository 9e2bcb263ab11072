"""`make demo`, as the README says it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_make_demo_shows_results_that_came_back(tmp_path: Path) -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "-n", "-o", ".venv/.installed", "demo",
         f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={name: value for name, value in os.environ.items() if "MAKE" not in name},
    )  # fmt: skip
    (command,) = told.stdout.splitlines()  # the environment of the tests is the installed one
    done = subprocess.run(
        shlex.split(command), cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    objects = list((tmp_path / "demo-out").rglob("*.dcm"))
    kinds = {pydicom.dcmread(path, stop_before_pixels=True).Modality for path in objects}
    assert kinds >= {"SEG", "SR"}
    assert list((tmp_path / "demo-out").glob("*.png"))
    assert "finding" in done.stdout.lower()
