"""Releases for tests: the packaged weights under another name, or tiny untrained networks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ai_core.manifest import packaged_release, verify_files


def write_files(folder: Path, name: str, contents: Mapping[str, bytes]) -> str:
    """Write files and a manifest that agrees with them; returns the digest."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    listed = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    manifest = json.dumps({"name": name, "version": "1.0", "files": listed}).encode()
    (folder / "manifest.json").write_bytes(manifest)
    return hashlib.sha256(manifest).hexdigest()


def repackage(folder: Path, name: str, **changes: bytes) -> str:
    """Write the packaged release under another name; ``changes``: other files by stem of name."""
    contents = dict(verify_files(packaged_release()[0]).contents)
    settings = json.loads(contents["config.json"])
    contents["config.json"] = json.dumps({**settings, "name": name, "version": "1.0"}).encode()
    contents |= {f"{stem}.json": content for stem, content in changes.items()}
    return write_files(folder, name, contents)


def light(folder: Path, name: str, origin: bytes = b"") -> str:
    """Write a release that is whole by its manifest and holds no weights: for what loads none."""
    contents = {file: f"{file} of {name}".encode() for file in verify_files(
        packaged_release()[0]).contents}  # fmt: skip
    contents.pop("origin.json", None)
    if origin:
        contents["origin.json"] = origin
    return write_files(folder, name, contents)
