"""What is measured on each study, per scanner, so that drift is seen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables; the worker fills them from the results that are there at its next start."""
    op.create_table(
        "scanners",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("station", sa.String(length=64), nullable=False),
        sa.Column("manufacturer", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("field_strength_t", sa.Double(), nullable=False),
        sa.Column("reference_after", sa.Integer(), server_default="0", nullable=False),
        sa.Column("alarms", sa.Text(), server_default="", nullable=False),
        sa.Column("studies", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scanners")),
        sa.UniqueConstraint(
            "station", "manufacturer", "model", "field_strength_t",
            name=op.f("uq_scanners_station_manufacturer_model_field_strength_t"),
        ),
    )  # fmt: skip
    op.create_table(
        "observations",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("study_id", _ID, nullable=False),
        sa.Column("scanner_id", _ID, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("release_sha256", sa.String(length=64), server_default="", nullable=False),
        sa.Column("values_json", sa.Text(), nullable=False),
        sa.Column("findings_json", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_observations_study_id")
        ),
        sa.ForeignKeyConstraint(
            ["scanner_id"], ["scanners.id"], name=op.f("fk_observations_scanner_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_observations")),
        sa.UniqueConstraint("study_id", name=op.f("uq_observations_study_id")),
    )
    op.create_index("ix_observations_scanner_id", "observations", ["scanner_id", "id"])
    by_release = ["scanner_id", "release_sha256", "id"]
    op.create_index("ix_observations_release", "observations", by_release)
    annotated = sa.text("findings_json IS NOT NULL")
    op.create_index(
        "ix_observations_annotated", "observations", by_release,
        sqlite_where=annotated, postgresql_where=annotated,
    )  # fmt: skip
