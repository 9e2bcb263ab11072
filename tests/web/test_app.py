"""The status pages and what monitoring asks, over a real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from dicom_node.cli import app as command_line
from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.flow.health import Health, StorageTrouble, Trouble
from dicom_node.store.store import Store
from dicom_node.web.app import create_app


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return NodeConfig.model_validate({"node": {"data_dir": tmp_path}})


Get = Callable[[str], httpx.Response]


@pytest.fixture
def get(config: NodeConfig) -> Iterator[Get]:
    store = Store(config.database_url, clock=ManualClock(), create=True)
    pages = httpx.ASGITransport(app=create_app(config, store))

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=pages, base_url="http://node") as client:
            return await client.get(path)

    yield lambda path: asyncio.run(ask(path))
    store.close()


@pytest.fixture
def receiver(config: NodeConfig) -> Iterator[Health]:
    made = Health(config.node.data_dir, ManualClock())
    made.open()
    yield made
    made.close()


def test_a_node_that_is_well_is_ready(get: Get, receiver: Health) -> None:
    ready = get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert get("/api/status").json()["storage"]["state"] == "healthy"
    assert "Storage unhealthy" not in get("/").text


@pytest.mark.parametrize("trouble", Trouble)
def test_R4_unhealthy_storage_is_seen_on_every_way(
    get: Get, receiver: Health, config: NodeConfig, tmp_path: Path, trouble: Trouble
) -> None:
    receiver.failed(StorageTrouble(trouble))
    words = StorageTrouble(trouble).message
    ready = get("/health/ready")
    assert (ready.status_code, ready.json()["why"]) == (503, words)
    assert get("/health/live").status_code == 200, "a restart by the platform mends no disk"
    storage = get("/api/status").json()["storage"]
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
