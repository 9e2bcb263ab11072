"""The tables of retention: files that are to be deleted, and who is at it."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, String, Table, UniqueConstraint

from dicom_node.store.columns import metadata, new_id, refers

removals = Table(
    "removals",
    metadata,
    new_id(),
    refers("study_id", "studies"),
    Column("path", String(255), nullable=False),
    UniqueConstraint("path"),
    Index("ix_removals_study_id", "study_id"),
)
"""Files that no row counts on any more and that may still be on the disk."""

turns = Table(
    "turns",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("until_s", Double, nullable=False),
)
"""Work that one process does at a time, whatever the host; ``until_s``: others may take it then."""
