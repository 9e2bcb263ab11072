"""The table of retention: files that are to be deleted."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table, UniqueConstraint

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
