"""The study that annotations are drawn on."""

from __future__ import annotations

import pytest

from dicom_node.annotations.agreement import NodeResult
from tests.annotations.make import Scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Twenty axial slices and a result with two findings."""
    return Scene()


@pytest.fixture(scope="session")
def node_result(scene: Scene) -> NodeResult:
    """What the node said, read back from its own objects."""
    return scene.node
