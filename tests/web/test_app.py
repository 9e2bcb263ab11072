"""What monitoring asks, and how unhealthy storage is seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from dicom_node.cli import app as command_line
from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.domain.account import Role
from dicom_node.flow.health import Health, StorageTrouble, Trouble
from tests.web.conftest import Browser

Program = Callable[[Role], TestClient]


@pytest.fixture
def receiver(config: NodeConfig) -> Iterator[Health]:
    made = Health(config.node.data_dir, ManualClock())
    made.open()
    yield made
    made.close()


def test_a_node_that_is_well_is_ready(
    as_role: Callable[[Role], Browser], program: Program, receiver: Health
) -> None:
    viewer = as_role(Role.VIEWER)
    ready = viewer.get("/health/ready")
    assert ready.json()["checks"]["storage"] == "ok"
    assert program(Role.VIEWER).get("/api/v1/status").json()["storage"]["state"] == "healthy"
    page = viewer.get("/").text
    assert "Storage unhealthy" not in page and "takes what is received" in page


@pytest.mark.parametrize("trouble", Trouble)
def test_R4_unhealthy_storage_is_seen_on_every_way(
    as_role: Callable[[Role], Browser], program: Program, receiver: Health, config: NodeConfig,
    tmp_path: Path, trouble: Trouble,
) -> None:  # fmt: skip
    viewer = as_role(Role.VIEWER)
    get = viewer.get
    receiver.failed(StorageTrouble(trouble))
    words = StorageTrouble(trouble).message
    ready = get("/health/ready")
    assert (ready.status_code, ready.json()["checks"]["storage"]) == (503, words)
    assert get("/health/live").status_code == 200, "a restart by the platform mends no disk"
    storage = program(Role.VIEWER).get("/api/v1/status").json()["storage"]
    assert (storage["state"], storage["problem"]) == ("unhealthy", trouble)
    assert storage["since"].startswith("2023-11-14T22:13:20")
    page = get("/").text
    assert "Storage unhealthy" in page and words in page and 'role="alert"' in page
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\ndata_dir = "{config.node.data_dir}"\n')
    told = CliRunner().invoke(command_line, ["status", "--json", "--config", str(file)])
    assert told.exit_code == 0
    shown = json.loads(told.stdout)["storage"]
    assert {**shown, "free_bytes": 0} == {**storage, "free_bytes": 0}
    told = CliRunner().invoke(command_line, ["doctor", "--json", "--config", str(file)])
    (check,) = [one for one in json.loads(told.stdout) if one["name"] == "storage"]
    assert (check["state"], check["found"]) == ("wrong", words)
