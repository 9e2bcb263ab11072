"""The statement of the defaults, and ports to hold against it."""

from __future__ import annotations

import pytest

from dicom_node.config import NodeConfig
from dicom_node.conformance.document import Document
from dicom_node.conformance.statement import statement
from tests.net.conftest import open_port

__all__ = ["open_port"]


@pytest.fixture(scope="session")
def document() -> Document:
    return statement(NodeConfig())
