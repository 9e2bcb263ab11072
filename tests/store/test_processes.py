"""Many processes on one database file, on a real disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dicom_node.clock import SystemClock
from dicom_node.store.store import Store
from tests.conftest import ROOT
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


def test_G3_no_two_processes_work_on_one_claim(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/n.sqlite3"
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
