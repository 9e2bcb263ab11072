"""How fast the pages answer with 100,000 studies and 1,000,000 instances in the database.

`CONSOLE_STUDIES` (100,000) and ten instances of each; the database is filled once and kept in the
temporary folder. Times are those of the whole request through the application, without a network;
beside them the processor time of the worst request: where the wall time is much longer, the machine
was busy with something else.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.domain.account import Role
from dicom_node.flow.accounts import Accounts
from dicom_node.flow.audit import AuditTrail
from dicom_node.passwords import digest
from dicom_node.store.engine import HEAD
from dicom_node.store.store import Store
from dicom_node.web.app import create_app
from dicom_node.web.console import Console
from dicom_node.web.rehearsals import Rehearsals
from dicom_node.web.throttle import LoginThrottle
from tests.bench.archive_rows import Filling, fill

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

STUDIES = int(os.environ.get("CONSOLE_STUDIES", "100000"))
ROUNDS = int(os.environ.get("CONSOLE_ROUNDS", "20"))
PER_STUDY = 10
NOW_S = 1_800_000_000.0
FILLING = Filling(STUDIES, PER_STUDY, NOW_S - 600, "console")
PAGES = (
    "/", "/studies", "/studies?state=delivered", "/studies?state=failed", "/studies?q=P77",
    f"/studies/{FILLING.uid(STUDIES - 3)}", "/peers", "/models", "/annotations", "/audit",
    "/api/v1/status", "/api/v1/studies?limit=200",
)  # fmt: skip


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    kept = Path(tempfile.gettempdir()) / f"dicom-node-console-{HEAD}-{STUDIES}.sqlite3"
    if not kept.exists():
        made = kept.with_suffix(f".{os.getpid()}")
        fill(made, FILLING)
        made.rename(kept)
    shutil.copyfile(kept, tmp_path / "node.sqlite3")
    peers = [{"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5", "port": 104,
              "receives_results": True}]  # fmt: skip
    config = NodeConfig.model_validate({"node": {"data_dir": tmp_path}, "peers": peers})
    clock = ManualClock(NOW_S)
    store = Store(config.database_url, clock=clock, host="here")
    store.account_add("ann", Role.ADMIN, "c" * 64, NOW_S + 60)
    store.session_begin("ann", digest("secret"), "10.0.0.9", NOW_S - 60)
    store.token_add("bench", Role.VIEWER, digest("token"), "ann", None)
    console = Console(
        config, store, clock, Accounts(store, config, clock), AuditTrail(store, config, clock),
        LoginThrottle(clock), Rehearsals(config),
    )  # fmt: skip
    headers = {"Cookie": "session=secret", "Authorization": "Bearer token"}
    with TestClient(create_app(console), headers=headers) as opened:
        yield opened
    store.close()


def test_pages_with_a_hundred_thousand_studies(client: TestClient) -> None:
    print(f"\n{STUDIES:,} studies, {STUDIES * PER_STUDY:,} instances; {ROUNDS} rounds")
    print(f"{'':60}{'first ms':>10}{'median ms':>11}{'worst ms':>10}{'its CPU ms':>12}")
    for path in PAGES:
        times_ms = []
        for _ in range(ROUNDS + 1):
            since_s, used_s = time.perf_counter(), time.process_time()
            answer = client.get(path, follow_redirects=False)
            wall_ms = 1e3 * (time.perf_counter() - since_s)
            times_ms.append((wall_ms, 1e3 * (time.process_time() - used_s)))
            assert answer.status_code == 200, path
        first, *rest = times_ms
        median_ms = statistics.median(wall_ms for wall_ms, _ in rest)
        worst_ms, cpu_ms = max(rest)
        print(f"{path:60}{first[0]:10.1f}{median_ms:11.1f}{worst_ms:10.1f}{cpu_ms:12.1f}")
