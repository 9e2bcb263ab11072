"""A configuration as others may read it: passwords taken out."""

from __future__ import annotations

import re

REMOVED = "REMOVED"
_SECRET = re.compile(
    r"^(?P<key>\s*[\w-]*(?:password|secret|token)(?![\w-]*_file\b)[\w-]*\s*=\s*).*$",
    re.IGNORECASE | re.MULTILINE,
)
"""A setting that names the file of a secret is none."""
_IN_ADDRESS = re.compile(r"(?P<before>[a-z][\w+.-]*://[^:/@\s\"']*:)[^@\s\"']+@")


def without_secrets(text: str) -> str:
    """Return TOML or any text without passwords, those inside addresses included."""
    text = _SECRET.sub(rf'\g<key>"{REMOVED}"', text)
    return _IN_ADDRESS.sub(rf"\g<before>{REMOVED}@", text)
