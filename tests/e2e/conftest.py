"""A whole node with a PACS stand-in, and small synthetic studies to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.net.standin import PacsStandIn
from tests.running import NodeUnderTest, pacs_peer
from tests.studies import StudyMaker


@pytest.fixture
def make_study(tmp_path: Path, studies: StudyMaker) -> Callable[..., list[Path]]:
    """Write a synthetic study under new UIDs; returns its files."""

    def make(name: str, **options: object) -> list[Path]:
        return studies.write(tmp_path / "studies" / name, name, **options)

    return make


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacsStandIn]:
    """A PACS that files what it gets; shared by the tests of a module."""
    with PacsStandIn("PACS", tmp_path_factory.mktemp("pacs")) as standin:
        yield standin


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: PacsStandIn) -> Iterator[NodeUnderTest]:
    """A running node whose only peer is the stand-in; shared by the tests of a module."""
    under_test = NodeUnderTest(tmp_path_factory.mktemp("node"), pacs_peer(pacs.port))
    under_test.start()
    try:
        yield under_test
    finally:
        if under_test.running:
            assert under_test.stop() == 0
