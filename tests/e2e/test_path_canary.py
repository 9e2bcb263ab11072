"""The canary of the path through a whole node: it comes back, it is lost, and it counts nowhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pydicom
import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.domain.canary import is_canary
from dicom_node.net.standin import PacsStandIn
from dicom_node.path_canary import PATIENT_NAME
from dicom_node.store.store import Store
from tests.running import NodeUnderTest, pacs_peer, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROLES = {"receiver", "worker", "delivery", "web"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: PacsStandIn) -> Iterator[NodeUnderTest]:
    """A node with two destinations, one of them for canaries; scrapes come from loopback."""
    peers = pacs_peer(pacs.port, name="test-pacs") + pacs_peer(pacs.port, name="pacs")
    settings = '[canary]\nto = "test-pacs"\n[metrics]\nscrape_from = ["127.0.0.1"]\n'
    under_test = NodeUnderTest(tmp_path_factory.mktemp("canary"), settings + peers)
    under_test.start()
    try:
        yield under_test
    finally:
        if under_test.running:
            assert under_test.stop() == 0


def web_of(node: NodeUnderTest) -> str:
    found = re.search(r"http://[^ /]+", next(line for line in node.lines if "http://" in line))
    assert found is not None
    return found[0]


def test_a_canary_comes_back_as_the_test_patient_and_counts_nowhere(
    node: NodeUnderTest, pacs: PacsStandIn
) -> None:
    base = web_of(node)
    wait_until(lambda: httpx.get(f"{base}/health/ready").status_code == 200, 60, "ready")
    command = ["-m", "dicom_node", "canary", "run", "--json", "--config", str(node.config_file)]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=500
    )
    run = json.loads(done.stdout)
    assert run["state"] == "passed", run
    assert is_canary(run["study_uid"])
    came = [one for one in pacs.filed() if one.study_uid == run["study_uid"]]
    assert len(came) >= 3
    first = pydicom.dcmread(came[0].path, stop_before_pixels=True)
    assert (str(first.PatientID), str(first.PatientName)) == ("CANARY", PATIENT_NAME)
    (row, *_) = node.revisions(run["study_uid"])
    assert row["state"] == "delivered"
    assert {d["peer"] for r in row["results"] for d in r["deliveries"]} == {"test-pacs"}
    store = Store(load_config(node.config_file).database_url, clock=SystemClock())
    try:
        assert store.scanners() == [], "no drift"
        assert store.throughput(0.0).instances == store.throughput(0.0).delivered == 0
        assert store.refusals() == [], "its sender was let in at once"
        assert {one.role for one in store.processes()} == ROLES
    finally:
        store.close()
    text = httpx.get(f"{base}/metrics").text
    assert "dicom_node_received_instances_total 0.0" in text
    assert "dicom_node_analysis_seconds_count 0.0" in text
    assert "dicom_node_canary_passed 1.0" in text
    assert httpx.get(f"{base}/metrics", headers={"X-Forwarded-For": "9.9.9.9"}).status_code == 200
    status = node.json("status")
    assert {one["role"] for one in status["processes"] if one["alive"]} == ROLES


def test_a_canary_of_a_stopped_node_is_lost_and_says_why(tmp_path: Path, pacs: PacsStandIn) -> None:
    stopped = NodeUnderTest(tmp_path, pacs_peer(pacs.port))
    done = stopped.command("canary", "run", check=False)
    assert done.returncode == 1
    assert "no receiver runs on this machine" in done.stdout
    (run,) = stopped.json("canary", "list")
    assert run["state"] == "failed"
