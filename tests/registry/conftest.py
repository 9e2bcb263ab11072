"""A node without processes: configuration, store, a key, releases that were signed with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.registry.keys import make_key, private_folder
from dicom_node.registry.shelf import sign_folder
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.releases import light

Sign = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return NodeConfig.model_validate({"node": {"data_dir": tmp_path / "data"}})


@pytest.fixture
def store(config: NodeConfig) -> Iterator[Store]:
    config.node.data_dir.mkdir()
    made = open_store(config.database_url, SystemClock())
    yield made
    made.close()


@pytest.fixture
def signed(config: NodeConfig, tmp_path: Path) -> Sign:
    """Write a light release of a name, signed by the site's key; returns its folder."""

    def make(name: str, origin: bytes = b"") -> Path:
        key = private_folder(config) / "site.key"
        if not key.exists():
            make_key(config, "site")
        folder = tmp_path / "made" / name
        light(folder, name, origin)
        sign_folder(folder, key)
        return folder

    return make
