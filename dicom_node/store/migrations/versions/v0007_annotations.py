"""What people stored about the node's findings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KINDS = {
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",
    "1.2.840.10008.5.1.4.1.1.66.7": "seg",
    "1.2.840.10008.5.1.4.1.1.88.22": "sr",
    "1.2.840.10008.5.1.4.1.1.88.33": "sr",
    "1.2.840.10008.5.1.4.1.1.88.34": "sr",
    "1.2.840.10008.5.1.4.1.1.88.59": "key-object",
}


def upgrade() -> None:
    """Add the table, and a row for each object that is stored already and can be an annotation."""
    op.create_table(
        "annotations",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("study_id", _ID, nullable=False),
        sa.Column("instance_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("person", sa.String(length=255), server_default="", nullable=False),
        sa.Column("made_at", sa.String(length=14), server_default="", nullable=False),
        sa.Column("parts", sa.String(length=64), server_default="", nullable=False),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("superseded_by", _ID, nullable=True),
        sa.Column("detail_json", sa.Text(), server_default="{}", nullable=False),
        sa.Column("judgings", sa.Integer(), server_default="0", nullable=False),
        sa.Column("waits", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("judged_at", sa.Double(), nullable=True),
        sa.CheckConstraint("kind IN ('seg', 'sr', 'key-object')", name=op.f("ck_annotations_kind")),
        sa.CheckConstraint(
            "state IN ('pending', 'waiting', 'used', 'superseded', 'unusable', 'no_annotation')",
            name=op.f("ck_annotations_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('waiting', 'unusable', 'no_annotation') OR reason IS NOT NULL",
            name=op.f("ck_annotations_reasoned"),
        ),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_annotations_study_id")),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name=op.f("fk_annotations_instance_id")
        ),
        sa.ForeignKeyConstraint(
            ["superseded_by"], ["annotations.id"], name=op.f("fk_annotations_superseded_by")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sa.UniqueConstraint("instance_id", name=op.f("uq_annotations_instance_id")),
    )
    op.create_index("ix_annotations_due", "annotations", ["state", "next_at"])
    op.create_index("ix_annotations_study_id", "annotations", ["study_id"])
    for sop_class, kind in _KINDS.items():
        known = sa.text(
            "INSERT INTO annotations (study_id, instance_id, kind, state, next_at) "
            "SELECT study_id, id, :kind, 'pending', 0 FROM instances "
            "WHERE role = 'other' AND sop_class_uid = :sop_class"
        )
        op.execute(known.bindparams(kind=kind, sop_class=sop_class))
