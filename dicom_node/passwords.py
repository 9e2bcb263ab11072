"""Passwords, codes and tokens: Argon2id for what people choose, SHA-256 for what is random."""

from __future__ import annotations

import hashlib
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

_AT_ONCE = 2
"""So many passwords are hashed at the same time: each takes 64 MiB (G5)."""
_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_BUSY = threading.BoundedSemaphore(_AT_ONCE)
_NOBODY: list[str] = []


def hash_password(password: str) -> str:
    """Return a salted hash that says how it was made."""
    with _BUSY:
        return _HASHER.hash(password)


def password_fits(password_hash: str | None, password: str) -> bool:
    """Whether a password is the one of a hash; no hash costs as much as a wrong password."""
    if password_hash is None:
        password_fits(_nobody(), password)
        return False
    try:
        with _BUSY:
            return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(password_hash: str) -> bool:
    """Whether a hash was made with other costs than those of today."""
    return _HASHER.check_needs_rehash(password_hash)


def new_secret() -> str:
    """Return 256 random bits as text for a URL or a header."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what the database keeps of a random secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _nobody() -> str:
    """Return the hash of a password that nobody knows, made once."""
    if not _NOBODY:
        _NOBODY.append(hash_password(new_secret()))
    return _NOBODY[0]
