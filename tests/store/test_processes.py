"""Many processes on one database: a file on a real disk, and PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.store.store import Store
from tests.conftest import ROOT
from tests.databases import BOTH, database
from tests.store.test_store import image, make_ready

STUDIES = 12
WORKER = """
import sys
from dicom_node.clock import SystemClock
from dicom_node.domain.states import RevisionState
from dicom_node.domain.reasons import Reason
from dicom_node.store.store import Store
store = Store(sys.argv[1], clock=SystemClock())
for _ in range(60):
    claim = store.claim_ready(sys.argv[2])
    if claim is None:
        break
    store.heartbeat(claim)
    store.finish_silent(claim, RevisionState.NOT_ANALYSABLE, Reason.NOT_MR, "x")
    print(claim.study_uid)
"""


@pytest.fixture(params=BOTH)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/n.sqlite3"
        return
    yield from database(request.getfixturevalue("postgresql"), "")


def test_G3_no_two_processes_work_on_one_claim(address: str) -> None:
    url = address
    store = Store(url, clock=SystemClock(), create=True)
    for number in range(STUDIES):
        store.add_instance(image(study=f"1.2.{number}"))
        make_ready(store, f"1.2.{number}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, f"w{n}"], env=environment, text=True,
            stdout=subprocess.PIPE,
        )
        for n in range(3)
    ]  # fmt: skip
    done = [line for worker in workers for line in worker.communicate(timeout=240)[0].split()]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(done) == sorted(f"1.2.{number}" for number in range(STUDIES))
    store.close()
