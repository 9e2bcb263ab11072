"""Accounts and tokens of the console: make, change, remove, log in. Each stands in the audit trail.

A person's password is chosen by that person: an account is made with a one-time code, and the code
lets its holder choose.
"""

from __future__ import annotations

from dicom_node.clock import Clock, SystemClock
from dicom_node.config import NodeConfig
from dicom_node.domain.account import Role, name_problem, password_problem
from dicom_node.errors import ConfigError, WrongUseError
from dicom_node.flow.audit import AuditTrail
from dicom_node.passwords import digest, hash_password, is_outdated, new_secret, password_fits
from dicom_node.store.console_rows import AccountRow
from dicom_node.store.store import Store

CODE_S = 24 * 3600.0
"""A one-time code is valid so long."""
_DAY_S = 86_400.0
MAX_TOKEN_DAYS = 3660


class Accounts:
    """Changes of accounts and tokens over a store."""

    def __init__(self, store: Store, config: NodeConfig, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._trail = AuditTrail(store, config, self._clock)

    def add(self, name: str, role: Role) -> str:
        """Add an account; returns the one-time code that lets the person choose a password.

        Raises:
            ConfigError: the name is taken or cannot be one.
        """
        _check_name(name)
        code = new_secret()
        self._store.account_add(name, role, digest(code), self._clock.now_s() + CODE_S)
        self._record("account added", name, str(role))
        return code

    def new_code(self, name: str) -> str:
        """Let a person choose a new password; the old one and all sessions end now.

        Raises:
            ConfigError: there is no such account.
        """
        code = new_secret()
        self._store.account_code(name, digest(code), self._clock.now_s() + CODE_S)
        self._record("password reset", name, "one-time code made")
        return code

    def redeem(self, code: str, password: str) -> AccountRow:
        """Set the password that the holder of a one-time code chose.

        Raises:
            WrongUseError: the code is not valid, or the password is too weak.
        """
        found = self._store.account_of_code(digest(code))
        if found is None:
            raise WrongUseError("this code is not valid, or no longer", _ASK)
        _check_password(password, found.name)
        if not self._store.account_password(found.name, hash_password(password), digest(code)):
            raise WrongUseError("this code was used already", _ASK)
        self._record("password chosen", found.name, "by one-time code")
        return found

    def set_password(self, name: str, password: str) -> None:
        """Set a password; all sessions of the account end.

        Raises:
            ConfigError: there is no such account.
            WrongUseError: the password is too weak.
        """
        _check_password(password, name)
        self._store.account_password(name, hash_password(password), None)
        self._record("password changed", name, "")

    def change_own(self, name: str, old: str, new: str) -> None:
        """Change the password of who knows it.

        Raises:
            WrongUseError: the old one is not right, or the new one is too weak.
        """
        known = self._store.account(name)
        if not password_fits(known.password_hash if known else None, old):
            raise WrongUseError("the present password is not right", "type it again")
        self.set_password(name, new)

    def set_role(self, name: str, role: Role) -> None:
        """Change the role of an account; its sessions end.

        Raises:
            ConfigError: there is no such account, or it is the last administrator.
        """
        self._store.account_role(name, role)
        self._record("role changed", name, str(role))

    def remove(self, name: str) -> None:
        """Remove an account; its sessions end.

        Raises:
            ConfigError: there is no such account, or it is the last administrator.
        """
        self._store.account_remove(name)
        self._record("account removed", name, "")

    def log_in(self, name: str, password: str, address: str) -> AccountRow | None:
        """Return the account that a name and password open; None: they do not."""
        known = None if name_problem(name) else self._store.account(name)
        if not password_fits(known.password_hash if known else None, password) or known is None:
            self._trail.login(name[:64], address, "name or password is wrong")
            self._trail.flush()
            return None
        if known.password_hash is not None and is_outdated(known.password_hash):
            self._store.account_password(name, hash_password(password), None)
        self._trail.login(name, address)
        self._trail.flush()
        return known

    def logged_out(self) -> None:
        """Record that whoever acts logged out."""
        self._trail.logout()
        self._trail.flush()

    # tokens

    def add_token(self, name: str, role: Role, made_by: str, days: int | None) -> str:
        """Add a token of the API; returns it, for this once. ``days`` None: it has no end.

        Raises:
            ConfigError: the name is taken or cannot be one.
            WrongUseError: it would end in the past, or in more than ten years.
        """
        _check_name(name)
        if days is not None and not 1 <= days <= MAX_TOKEN_DAYS:
            raise WrongUseError(
                f"a token is valid for 1 to {MAX_TOKEN_DAYS} days", "choose a number between"
            )
        secret = new_secret()
        ends_at_s = None if days is None else self._clock.now_s() + days * _DAY_S
        self._store.token_add(name, role, digest(secret), made_by, ends_at_s)
        self._record("token added", name, f"{role}, {days or 'no'} days")
        return secret

    def remove_token(self, name: str) -> None:
        """Remove a token of the API.

        Raises:
            ConfigError: there is none of that name.
        """
        if not self._store.token_remove(name):
            raise ConfigError(f"there is no token '{name}'", "see dicom-node tokens list")
        self._record("token removed", name, "")

    def _record(self, what: str, subject: str, detail: str) -> None:
        self._trail.account_changed(what, subject, detail)
        self._trail.flush()


_ASK = "ask an administrator for a new one: dicom-node users reset NAME"


def _check_name(name: str) -> None:
    if problem := name_problem(name):
        raise WrongUseError(f"'{name[:80]}' cannot be a name", problem)


def _check_password(password: str, name: str) -> None:
    if problem := password_problem(password, name):
        raise WrongUseError("this password is not taken", problem)
