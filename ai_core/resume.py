"""Folders of long work that goes on after a stop: what they belong to is written in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ai_core.errors import InputError


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(path)


def claim_folder(path: Path, this: dict[str, Any], work: str, advice: str) -> None:
    """Write down in a file what a folder belongs to, or compare with what is written there.

    ``work``: what the folder holds, for the message ("an evaluation"); ``advice``: what to do then.

    Raises:
        InputError: it belongs to something else.
    """
    if not path.exists():
        write_json(path, this)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    differing = [key for key in this if before.get(key) != this[key]]
    if differing:
        raise InputError(f"{path.parent} holds {work} with another {differing[0]}", advice)
