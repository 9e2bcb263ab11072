"""What examinations of peers found out; what a storage commitment report denied."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table and a column."""
    op.create_table(
        "probes",
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=512), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("profile_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("peer", name=op.f("pk_probes")),
    )
    op.add_column("commitments", sa.Column("lost", sa.Integer(), nullable=True))
