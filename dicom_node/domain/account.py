"""Accounts of the console and tokens of its API: roles, names, passwords."""

from __future__ import annotations

import re
from enum import StrEnum

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_NAME = re.compile(NAME_PATTERN)
PASSWORD_MIN, PASSWORD_MAX = 12, 128
_DIFFERENT = 5


class Role(StrEnum):
    """What an account may do; each role may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, needed: Role) -> bool:
        """Whether this role may do what ``needed`` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


def name_problem(name: str) -> str:
    """Say what is wrong with the name of an account or token; empty: nothing."""
    if _NAME.match(name):
        return ""
    return "a name has 1 to 64 lower-case letters, digits, dots, dashes or underscores"


def password_problem(password: str, name: str) -> str:
    """Say why a password is not taken; empty: it is. Length decides (NIST SP 800-63B 3.1.1)."""
    if len(password) < PASSWORD_MIN:
        return f"a password has at least {PASSWORD_MIN} characters; a short sentence is good"
    if len(password) > PASSWORD_MAX:
        return f"a password has at most {PASSWORD_MAX} characters"
    if len(set(password)) < _DIFFERENT:
        return f"a password has at least {_DIFFERENT} different characters"
    if name and name.lower() in password.lower():
        return "the password holds the name of the account"
    return ""
