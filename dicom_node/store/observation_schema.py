"""The tables of what is watched for drift; they belong to the metadata of `store.schema`."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, String, Table, Text, UniqueConstraint

from dicom_node.store.schema import _id as new_id
from dicom_node.store.schema import _refers as refers
from dicom_node.store.schema import metadata

scanners = Table(
    "scanners",
    metadata,
    new_id(),
    Column("station", String(64), nullable=False),
    Column("manufacturer", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("field_strength_t", Double, nullable=False),
    Column("reference_after", Integer, nullable=False, server_default="0"),
    Column("alarms", Text, nullable=False, server_default=""),
    UniqueConstraint("station", "manufacturer", "model", "field_strength_t"),
)
"""Scanners that studies came from; an element that is not told is empty or 0. ``reference_after``:
the reference begins after this observation. ``alarms``: figures in alarm, separated by blanks."""

observations = Table(
    "observations",
    metadata,
    new_id(),
    refers("study_id", "studies"),
    refers("scanner_id", "scanners"),
    Column("revision", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("release_sha256", String(64), nullable=False, server_default=""),
    Column("values_json", Text, nullable=False),
    UniqueConstraint("study_id"),
    Index("ix_observations_scanner_id", "scanner_id", "id"),
)
"""What was measured on each study: a row for its last revision that had a result or a report."""
