"""Accounts, sessions and tokens of the console. Secrets come and stay as SHA-256 digests."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.domain.account import Role
from dicom_node.errors import ConfigError
from dicom_node.store.account_schema import accounts, sessions, tokens
from dicom_node.store.base import Database
from dicom_node.store.console_rows import AccountRow, SessionRow, TokenRow

SESSIONS_PER_ACCOUNT = 20
"""So many sessions of one account live at once, the latest (G5)."""
MAX_TOKENS = 200
SEEN_EVERY_S = 30.0
"""The use of a session or token is written down so often: each note is a synced transaction."""


class AccountStore(Database):
    """Transactions of accounts, sessions and tokens."""

    def accounts(self) -> list[AccountRow]:
        """Return all accounts, by name."""
        with self._read() as db:
            return [_account(row) for row in db.execute(select(accounts).order_by(accounts.c.name))]

    def account(self, name: str) -> AccountRow | None:
        """Return the account of a name."""
        with self._read() as db:
            row = db.execute(select(accounts).where(accounts.c.name == name)).one_or_none()
        return None if row is None else _account(row)

    def account_add(self, name: str, role: Role, code_digest: str, code_until_s: float) -> None:
        """Add an account without a password.

        Raises:
            ConfigError: the name is taken.
        """
        now_s = self._clock.now_s()
        values = {
            "name": name, "role": role, "code_digest": code_digest, "code_until": code_until_s,
            "created_at": now_s, "changed_at": now_s,
        }  # fmt: skip
        with self._write() as db:
            try:
                with db.begin_nested():
                    db.execute(insert(accounts).values(**values))
            except IntegrityError:
                raise ConfigError(
                    f"there is an account '{name}' already", "choose another name"
                ) from None

    def account_code(self, name: str, code_digest: str, code_until_s: float) -> None:
        """Let a person choose a new password by a one-time code; the old one stops counting.

        Raises:
            ConfigError: there is no such account.
        """
        values = {"password_hash": None, "code_digest": code_digest, "code_until": code_until_s}
        with self._write() as db:
            _change(db, _found(db, name), self._clock.now_s(), values)

    def account_of_code(self, code_digest: str) -> AccountRow | None:
        """Return the account that a one-time code opens, while it is valid."""
        query = select(accounts).where(
            accounts.c.code_digest == code_digest, accounts.c.code_until > self._clock.now_s()
        )
        with self._read() as db:
            row = db.execute(query).one_or_none()
        return None if row is None else _account(row)

    def account_password(self, name: str, password_hash: str, code_digest: str | None) -> bool:
        """Set a password and end the sessions of the account.

        ``code_digest``: the one-time code that allows it, spent with it; None: none is needed.
        False where the code is not valid, or no longer.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            row = _found(db, name)
            if code_digest is not None and (
                row.code_digest != code_digest or row.code_until <= now_s
            ):
                return False
            values = {"password_hash": password_hash, "code_digest": None, "code_until": None}
            _change(db, row, now_s, values)
            return True

    def account_role(self, name: str, role: Role) -> None:
        """Change the role of an account and end its sessions.

        Raises:
            ConfigError: there is no such account, or it is the last administrator.
        """
        with self._write() as db:
            row = _found(db, name)
            if role is not Role.ADMIN:
                _keep_an_admin(db, row)
            _change(db, row, self._clock.now_s(), {"role": role})

    def account_remove(self, name: str) -> None:
        """Remove an account with its sessions.

        Raises:
            ConfigError: there is no such account, or it is the last administrator.
        """
        with self._write() as db:
            row = _found(db, name)
            _keep_an_admin(db, row)
            db.execute(delete(sessions).where(sessions.c.account_id == row.id))
            db.execute(delete(accounts).where(accounts.c.id == row.id))

    # sessions

    def session_begin(self, name: str, digest: str, address: str, oldest_s: float) -> None:
        """Begin a session of an account; those begun before ``oldest_s`` are forgotten."""
        now_s = self._clock.now_s()
        with self._write() as db:
            row = _found(db, name)
            db.execute(delete(sessions).where(sessions.c.started_at < oldest_s))
            mine = select(sessions.c.digest).where(sessions.c.account_id == row.id)
            latest = mine.order_by(sessions.c.started_at.desc(), sessions.c.digest)
            surplus = db.execute(latest.offset(SESSIONS_PER_ACCOUNT - 1).limit(100)).scalars().all()
            for gone in surplus:
                db.execute(delete(sessions).where(sessions.c.digest == gone))
            db.execute(
                insert(sessions).values(
                    digest=digest, account_id=row.id, address=address[:64], started_at=now_s,
                    seen_at=now_s,
                )
            )  # fmt: skip
            db.execute(update(accounts).where(accounts.c.id == row.id).values(last_login_at=now_s))

    def session(
        self, digest: str, idle_s: float, life_s: float, *, use: bool = True
    ) -> SessionRow | None:
        """Return a session that has neither been idle nor lived too long.

        ``use``: note that it is used; a page that refreshes itself is no use.
        """
        now_s = self._clock.now_s()
        query = (
            select(sessions, accounts.c.name, accounts.c.role)
            .join(accounts, accounts.c.id == sessions.c.account_id)
            .where(
                sessions.c.digest == digest, sessions.c.seen_at > now_s - idle_s,
                sessions.c.started_at > now_s - life_s,
            )
        )  # fmt: skip
        with self._read() as db:
            row = db.execute(query).one_or_none()
        if row is None:
            return None
        if use and now_s - row.seen_at > min(SEEN_EVERY_S, idle_s / 2):
            with self._write() as db:
                mine = update(sessions).where(sessions.c.digest == digest)
                db.execute(mine.values(seen_at=now_s))
        return SessionRow(row.name, Role(row.role), row.address, row.started_at)

    def session_end(self, digest: str) -> None:
        """End a session."""
        with self._write() as db:
            db.execute(delete(sessions).where(sessions.c.digest == digest))

    # tokens

    def tokens(self) -> list[TokenRow]:
        """Return all tokens of the API, by name."""
        with self._read() as db:
            return [_token(row) for row in db.execute(select(tokens).order_by(tokens.c.name))]

    def token_add(
        self, name: str, role: Role, digest: str, made_by: str, ends_at_s: float | None
    ) -> None:
        """Add a token.

        Raises:
            ConfigError: the name is taken, or there are too many.
        """
        values = {
            "name": name, "role": role, "digest": digest, "made_by": made_by,
            "created_at": self._clock.now_s(), "ends_at": ends_at_s,
        }  # fmt: skip
        with self._write() as db:
            if db.execute(select(func.count()).select_from(tokens)).scalar_one() >= MAX_TOKENS:
                raise ConfigError(f"there are {MAX_TOKENS} tokens", "remove one that is not used")
            try:
                with db.begin_nested():
                    db.execute(insert(tokens).values(**values))
            except IntegrityError:
                raise ConfigError(
                    f"there is a token '{name}' already", "choose another name"
                ) from None

    def token_remove(self, name: str) -> bool:
        """Remove a token; False where there is none of that name."""
        with self._write() as db:
            return db.execute(delete(tokens).where(tokens.c.name == name)).rowcount == 1

    def token(self, digest: str) -> TokenRow | None:
        """Return a token that has not ended, and note its use."""
        now_s = self._clock.now_s()
        with self._read() as db:
            row = db.execute(select(tokens).where(tokens.c.digest == digest)).one_or_none()
        if row is None or (row.ends_at is not None and row.ends_at <= now_s):
            return None
        if row.used_at is None or now_s - row.used_at > SEEN_EVERY_S:
            with self._write() as db:
                db.execute(update(tokens).where(tokens.c.id == row.id).values(used_at=now_s))
        return _token(row)


def _found(db: Connection, name: str) -> Row[Any]:
    query = select(accounts).where(accounts.c.name == name).with_for_update()
    row = db.execute(query).one_or_none()
    if row is None:
        raise ConfigError(f"there is no account '{name}'", "see dicom-node users list")
    return row


def _change(db: Connection, row: Row[Any], now_s: float, values: dict[str, Any]) -> None:
    """Change an account; who is logged in with it logs in again."""
    changed = update(accounts).where(accounts.c.id == row.id)
    db.execute(changed.values(changed_at=now_s, **values))
    db.execute(delete(sessions).where(sessions.c.account_id == row.id))


def _keep_an_admin(db: Connection, row: Row[Any]) -> None:
    others = select(accounts.c.id).where(
        accounts.c.role == Role.ADMIN, accounts.c.id != row.id,
        accounts.c.password_hash.is_not(None),
    )  # fmt: skip
    # every administrator is locked: two who demote each other at once must wait for one another
    if row.role == Role.ADMIN and db.execute(others.with_for_update()).first() is None:
        raise ConfigError(
            f"'{row.name}' is the last administrator with a password",
            "make another one first: dicom-node users add NAME --role admin",
        )


def _account(row: Row[Any]) -> AccountRow:
    return AccountRow(
        row.name, Role(row.role), row.password_hash, row.code_until, row.created_at,
        row.last_login_at,
    )  # fmt: skip


def _token(row: Row[Any]) -> TokenRow:
    return TokenRow(row.name, Role(row.role), row.made_by, row.created_at, row.ends_at, row.used_at)
