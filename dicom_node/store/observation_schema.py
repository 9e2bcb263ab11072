"""The tables of what is watched for drift: scanners, and what was measured on each study."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, String, Table, Text, UniqueConstraint

from dicom_node.store.columns import metadata, new_id, only, refers

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
    Column("studies", Integer, nullable=False, server_default="0"),
    UniqueConstraint("station", "manufacturer", "model", "field_strength_t"),
)
"""Scanners that studies came from; an element that is not told is empty or 0. ``reference_after``:
the reference begins after this observation. ``alarms``: figures in alarm, separated by blanks.
``studies``: how many were observed."""

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
    Column("findings_json", Text),
    UniqueConstraint("study_id"),
    Index("ix_observations_scanner_id", "scanner_id", "id"),
    Index("ix_observations_release", "scanner_id", "release_sha256", "id"),
    Index(
        "ix_observations_annotated", "scanner_id", "release_sha256", "id",
        **only("findings_json IS NOT NULL"),
    ),
)  # fmt: skip
"""What was measured on each study: a row for its last revision that had a result or a report.
``findings_json``: what the latest annotation in use says of each finding."""
