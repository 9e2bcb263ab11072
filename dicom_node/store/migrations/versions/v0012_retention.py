"""What retention deleted, what it is deleting, and what it looks at next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_IMAGES = sa.text("images_removed_at IS NULL")
_RESULTS = sa.text("images_removed_at IS NOT NULL AND results_removed_at IS NULL")


def upgrade() -> None:
    """Add columns for what is gone, a table and the indexes that retention reads."""
    op.add_column("studies", sa.Column("images_removed_at", sa.Double(), nullable=True))
    op.add_column("studies", sa.Column("results_removed_at", sa.Double(), nullable=True))
    op.add_column("instances", sa.Column("removed_at", sa.Double(), nullable=True))
    op.add_column("results", sa.Column("removed_at", sa.Double(), nullable=True))
    for name, condition in (("ix_studies_images", _IMAGES), ("ix_studies_results", _RESULTS)):
        op.create_index(
            name, "studies", ["last_image_at", "id"], sqlite_where=condition,
            postgresql_where=condition,
        )  # fmt: skip
    op.create_table(
        "removals",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("study_id", _ID, nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_removals_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removals")),
        sa.UniqueConstraint("path", name=op.f("uq_removals_path")),
    )
    op.create_index("ix_removals_study_id", "removals", ["study_id"])
