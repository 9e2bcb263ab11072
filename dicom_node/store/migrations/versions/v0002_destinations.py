"""Forms of a result, what destinations take, and what they did not get."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the column and the two tables."""
    op.add_column(
        "results", sa.Column("variant", sa.String(length=32), server_default="", nullable=False)
    )
    op.create_table(
        "acceptances",
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=512), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("learned_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("peer", "sop_class_uid", name=op.f("pk_acceptances")),
    )
    op.create_table(
        "omissions",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("revision_id", _ID, nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("replaced_by", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=255), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name=op.f("fk_omissions_revision_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_omissions")),
        sa.UniqueConstraint(
            "revision_id", "peer", "kind", name=op.f("uq_omissions_revision_id_peer_kind")
        ),
    )
