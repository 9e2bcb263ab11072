"""Releases of the model, the rules that name them, what shadow releases said."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_STATES = "state IN ('candidate', 'shadow', 'active', 'retired')"


def upgrade() -> None:
    """Add three tables; the packaged release is active and named by the default rule."""
    _releases()
    _assignments()
    _shadow_runs()


def _releases() -> None:
    table = op.create_table(
        "releases",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("parent", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("added_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.CheckConstraint(_STATES, name=op.f("ck_releases_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("sha256", name=op.f("uq_releases_sha256")),
    )
    shadow = sa.text("state = 'shadow'")
    op.create_index(
        "uq_releases_shadow", "releases", ["state"], unique=True,
        sqlite_where=shadow, postgresql_where=shadow,
    )  # fmt: skip
    now_s = time.time()
    packaged = {"name": "packaged", "version": "", "state": "active"}
    op.bulk_insert(table, [{**packaged, "added_at": now_s, "changed_at": now_s}])


def _assignments() -> None:
    table = op.create_table(
        "assignments",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("sender", sa.String(length=64), nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("protocol", sa.String(length=64), nullable=False),
        sa.Column("release_id", _ID, nullable=False),
        sa.Column("before_id", _ID, nullable=True),
        sa.Column("current", sa.Boolean(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["before_id"], ["assignments.id"], name=op.f("fk_assignments_before_id")
        ),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name=op.f("fk_assignments_release_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignments")),
    )
    current = sa.text("current")
    op.create_index(
        "uq_assignments_current", "assignments", ["sender", "station", "protocol"], unique=True,
        sqlite_where=current, postgresql_where=current,
    )  # fmt: skip
    packaged = op.get_bind().execute(sa.text("SELECT id FROM releases")).scalar_one()
    default = {"sender": "", "station": "", "protocol": "", "current": True}
    op.bulk_insert(table, [{**default, "release_id": packaged, "made_at": time.time()}])


def _shadow_runs() -> None:
    op.create_table(
        "shadow_runs",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("active_sha256", sa.String(length=64), nullable=False),
        sa.Column("shadow_sha256", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("pair_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_runs")),
        sa.UniqueConstraint(
            "study_uid", "revision", "active_sha256", "shadow_sha256",
            name=op.f("uq_shadow_runs_study_uid_revision_active_sha256_shadow_sha256"),
        ),
    )  # fmt: skip
    op.create_index("ix_shadow_runs_releases", "shadow_runs", ["active_sha256", "shadow_sha256"])
