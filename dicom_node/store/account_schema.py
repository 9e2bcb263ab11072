"""Tables of the console: accounts, sessions, tokens; who may use it."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Double, ForeignKey, Index, String, Table

from dicom_node.domain.account import Role
from dicom_node.store.columns import Digest, Id, metadata, new_id, one_of

accounts = Table(
    "accounts",
    metadata,
    new_id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", String(255)),
    Column("code_digest", Digest, unique=True),
    Column("code_until", Double),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("last_login_at", Double),
    CheckConstraint(one_of("role", Role), name="role"),
    CheckConstraint("(code_digest IS NULL) = (code_until IS NULL)", name="code"),
)
"""Who may log in. ``password_hash`` NULL: not chosen yet; ``code_digest``: SHA-256 of the one-time
code that lets the person choose one."""

sessions = Table(
    "sessions",
    metadata,
    Column("digest", Digest, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    Column("address", String(64), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Index("ix_sessions_account_id", "account_id"),
)
"""Who is logged in. ``digest``: SHA-256 of what the cookie holds."""

tokens = Table(
    "tokens",
    metadata,
    new_id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("digest", Digest, nullable=False, unique=True),
    Column("made_by", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ends_at", Double),
    Column("used_at", Double),
    CheckConstraint(one_of("role", Role), name="role"),
)
"""Bearer tokens of the API; ``ends_at`` NULL: no end."""
