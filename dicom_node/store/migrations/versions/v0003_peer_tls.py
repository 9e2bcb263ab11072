"""Peers that speak TLS, and what their certificates bear."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two columns; peers that are there stay without TLS."""
    op.add_column(
        "peers", sa.Column("tls", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column(
        "peers", sa.Column("certificates_json", sa.Text(), server_default="[]", nullable=False)
    )
