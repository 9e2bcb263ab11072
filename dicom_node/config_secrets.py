"""A configuration as others may read it: passwords taken out."""

from __future__ import annotations

import re

REMOVED = "REMOVED"
_SECRET = re.compile(
    r"^(?P<key>\s*[\w-]*(?:password|secret|token)(?![\w-]*_file\b)[\w-]*\s*=\s*).*$",
    re.IGNORECASE | re.MULTILINE,
)
"""A setting that names the file of a secret is none."""
_IN_QUERY = re.compile(r"([?&]\w*password=)[^&\s\"']+", re.IGNORECASE)
# the path of a webhook is often the secret itself
_WEBHOOK = re.compile(r"^(\s*webhook_url\s*=\s*[\"']https?://[^/\"']+/)[^\"']+", re.MULTILINE)
_IN_ADDRESS = re.compile(r"(?P<before>[a-z][\w+.-]*://[^:/@\s\"']*:)[^@\s\"']+@")


def without_secrets(text: str) -> str:
    """Return TOML or any text without passwords, those inside addresses included."""
    text = _SECRET.sub(rf'\g<key>"{REMOVED}"', text)
    text = _WEBHOOK.sub(rf"\g<1>{REMOVED}", _IN_QUERY.sub(rf"\g<1>{REMOVED}", text))
    return _IN_ADDRESS.sub(rf"\g<before>{REMOVED}@", text)
