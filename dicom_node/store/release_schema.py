"""The tables of releases of the model: which there are, which analyses what, what shadows said."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from dicom_node.domain.states import ReleaseState
from dicom_node.store.columns import Digest, Id, Uid, metadata, new_id, one_of, only, refers

releases = Table(
    "releases",
    metadata,
    new_id(),
    Column("sha256", Digest, unique=True),
    Column("name", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("parent", Digest),
    Column("state", String(16), nullable=False),
    Column("added_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    CheckConstraint(one_of("state", ReleaseState), name="state"),
    Index(
        "uq_releases_shadow", "state", unique=True,
        **only("state = 'shadow'"),
    ),
)  # fmt: skip
"""Releases of the model. ``sha256`` NULL: the one that the installed software carries."""

assignments = Table(
    "assignments",
    metadata,
    new_id(),
    Column("sender", String(64), nullable=False),
    Column("station", String(64), nullable=False),
    Column("protocol", String(64), nullable=False),
    refers("release_id", "releases"),
    Column("before_id", Id, ForeignKey("assignments.id")),
    Column("current", Boolean, nullable=False),
    Column("made_at", Double, nullable=False),
    Index(
        "uq_assignments_current", "sender", "station", "protocol", unique=True,
        **only("current"),
    ),
)  # fmt: skip
"""Which release analyses what; an empty criterion holds for everything. ``before_id``: what a
rollback goes back to."""

shadow_runs = Table(
    "shadow_runs",
    metadata,
    new_id(),
    Column("study_uid", Uid, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("active_sha256", Digest, nullable=False),
    Column("shadow_sha256", Digest, nullable=False),
    Column("at", Double, nullable=False),
    Column("pair_json", Text, nullable=False),
    UniqueConstraint("study_uid", "revision", "active_sha256", "shadow_sha256"),
    Index("ix_shadow_runs_releases", "active_sha256", "shadow_sha256"),
)
"""What a shadow release said of a study beside the one whose result was sent."""
