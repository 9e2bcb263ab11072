"""The tables of what watches the node: processes, alarms, messages, canaries, counters, leases."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from dicom_node.domain.canary import RunState
from dicom_node.store.columns import Uid, metadata, new_id, one_of, only

processes = Table(
    "processes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(32), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("ports_json", Text, nullable=False),
)
"""A row for each process that lives, or went without a word."""

leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Double, nullable=False),
)
"""What only one process of all hosts does at a time."""

alarms = Table(
    "alarms",
    metadata,
    new_id(),
    Column("code", String(32), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("found", String(255), nullable=False),
    Column("began_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("told_at", Double, nullable=False),
    Column("ended_at", Double),
    Index("uq_alarms_open", "code", "subject", unique=True, **only("ended_at IS NULL")),
)

notices = Table(
    "notices",
    metadata,
    new_id(),
    Column("channel", String(16), nullable=False),
    Column("body_json", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("problem", String(255)),
    CheckConstraint(one_of("state", ("pending", "sent", "failed")), name="state"),
    Index("ix_notices_due", "state", "next_at"),
)
"""What people are told of alarms, for each channel, until it took it."""

canaries = Table(
    "canaries",
    metadata,
    new_id(),
    Column("study_uid", Uid, nullable=False),
    Column("scheduled", Boolean, nullable=False),
    Column("state", String(16), nullable=False),
    Column("message", String(255), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    UniqueConstraint("study_uid"),
    CheckConstraint(one_of("state", RunState), name="state"),
    CheckConstraint("(state = 'running') = (ended_at IS NULL)", name="ended"),
    Index("ix_canaries_started_at", "started_at"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("label", String(96), primary_key=True),
    Column("n", Double, nullable=False),
)
"""What happened since the database was made; nothing of it is ever taken away."""
