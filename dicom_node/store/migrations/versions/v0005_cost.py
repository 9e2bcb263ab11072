"""Running totals, and indexes, so that no operation costs more the more the node holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_REVISION_STATES = (
    "receiving", "ready", "running", "analysed", "delivered", "not_analysable", "failed", "held",
    "superseded",
)  # fmt: skip
_DELIVERY_STATES = ("pending", "sending", "sent", "verified", "failed")
_COUNTED = {
    "studies": "SELECT count(*) FROM studies",
    "instances": "SELECT count(*) FROM instances",
    "bytes": "SELECT coalesce(sum(size), 0) FROM instances",
    "copies": "SELECT count(*) FROM conflicts",
    "results": "SELECT count(*) FROM results",
} | {
    f"{one} {state}": f"SELECT count(*) FROM {table} WHERE state = '{state}'"  # noqa: S608
    for one, table, states in (
        ("revision", "revisions", _REVISION_STATES),
        ("delivery", "deliveries", _DELIVERY_STATES),
    )
    for state in states
}


def upgrade() -> None:
    """Add indexes, the number of instances of each study, and the totals of what is there."""
    _indexes()
    op.add_column(
        "studies", sa.Column("instances", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.execute(
        "UPDATE studies SET instances = "
        "(SELECT count(*) FROM instances WHERE instances.study_id = studies.id)"
    )
    op.create_table(
        "tallies",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tallies")),
    )
    for name, count in _COUNTED.items():
        op.execute(f"INSERT INTO tallies (name, n) SELECT '{name}', ({count})")


def _indexes() -> None:
    op.create_index("ix_instances_received_at", "instances", ["received_at"])
    op.create_index("ix_conflicts_received_at", "conflicts", ["received_at"])
    op.create_index("ix_pledges_requested_at", "pledges", ["requested_at"])
    op.create_index(
        "ix_revisions_manifest_due", "revisions", ["manifest_due"],
        sqlite_where=sa.text("manifest_due = 1"), postgresql_where=sa.text("manifest_due"),
    )  # fmt: skip
    op.drop_index("ix_deliveries_revision_id", "deliveries")
    op.create_index("ix_deliveries_revision_id", "deliveries", ["revision_id", "peer", "state"])
    op.drop_index("ix_deliveries_check_at", "deliveries")
    waiting = sa.text("check_at IS NOT NULL")
    op.create_index(
        "ix_deliveries_check_at", "deliveries", ["peer", "check_at"],
        sqlite_where=waiting, postgresql_where=waiting,
    )  # fmt: skip
