"""The table of what examinations of peers found out."""

from __future__ import annotations

from sqlalchemy import Column, Double, String, Table, Text

from dicom_node.store.columns import metadata

probes = Table(
    "probes",
    metadata,
    Column("peer", String(64), primary_key=True),
    Column("address", String(512), nullable=False),
    Column("at", Double, nullable=False),
    Column("profile_json", Text, nullable=False),
)
"""The last examination of each peer, as `domain.probing.Profile` writes it; ``address``: AE title,
host and port at which it answered."""
