"""All tables together: ``metadata`` is whole only once each module that declares tables is read."""

from __future__ import annotations

from dicom_node.store import (
    account_schema,
    annotation_schema,
    monitor_schema,
    observation_schema,
    probe_schema,
    release_schema,
    retention_schema,
    schema,
    tallies,
)
from dicom_node.store.columns import metadata

DECLARED_IN = (
    schema,
    account_schema,
    annotation_schema,
    release_schema,
    observation_schema,
    probe_schema,
    monitor_schema,
    retention_schema,
    tallies,
)
"""The modules that declare tables."""

__all__ = ["DECLARED_IN", "metadata"]
