"""What became of sent objects (storage commitment, query), commitment asked of us, audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_GENESIS = "0" * 64
_CHANGES = ("UPDATE", "DELETE")


def upgrade() -> None:
    """Add columns, tables, and the triggers that keep the audit trail as it was written."""
    _deliveries()
    _pledges()
    _audit()
    _append_only(op.get_bind().dialect.name)


def _deliveries() -> None:
    for name in ("checks", "losses"):
        counter = sa.Column(name, sa.Integer(), server_default="0", nullable=False)
        op.add_column("deliveries", counter)
    op.add_column("deliveries", sa.Column("check_at", sa.Double(), nullable=True))
    op.add_column("deliveries", sa.Column("confirmation", sa.Text(), nullable=True))
    waiting = sa.text("check_at IS NOT NULL")
    op.create_index(
        "ix_deliveries_check_at", "deliveries", ["check_at"],
        sqlite_where=waiting, postgresql_where=waiting,
    )  # fmt: skip
    op.create_table(
        "commitments",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitments_transaction_uid")),
    )
    op.create_table(
        "commitment_items",
        sa.Column("commitment_id", _ID, nullable=False),
        sa.Column("delivery_id", _ID, nullable=False),
        sa.Column("claim_no", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["commitment_id"], ["commitments.id"], name=op.f("fk_commitment_items_commitment_id")
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["deliveries.id"],
            name=op.f("fk_commitment_items_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("commitment_id", "delivery_id", name=op.f("pk_commitment_items")),
    )
    op.create_index("ix_commitment_items_delivery_id", "commitment_items", ["delivery_id"])


def _pledges() -> None:
    op.create_index("ix_instances_sop_instance_uid", "instances", ["sop_instance_uid"])
    op.add_column(
        "peers",
        sa.Column("verify", sa.String(length=16), server_default="auto", nullable=False),
    )
    op.create_table(
        "pledges",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("peer", sa.String(length=64), nullable=False),
        sa.Column("references_json", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'answered', 'failed')", name=op.f("ck_pledges_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pledges")),
        sa.UniqueConstraint(
            "peer", "transaction_uid", name=op.f("uq_pledges_peer_transaction_uid")
        ),
    )
    op.create_index("ix_pledges_due", "pledges", ["state", "next_at"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("event", sa.String(length=48), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sa.UniqueConstraint("hash", name=op.f("uq_audit_hash")),
    )
    op.create_index("ix_audit_event", "audit", ["event", "id"])
    state = op.create_table(
        "audit_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("head_id", _ID, nullable=False),
        sa.Column("head_hash", sa.String(length=64), nullable=False),
        sa.Column("forwarded_id", _ID, nullable=False),
        sa.Column("forwarded_at", sa.Double(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_state_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_state")),
    )
    first = {"id": 1, "head_id": 0, "head_hash": _GENESIS, "forwarded_id": 0}
    op.bulk_insert(state, [first])


def _append_only(dialect: str) -> None:
    if dialect == "sqlite":
        for change in _CHANGES:
            op.execute(
                f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
    )
