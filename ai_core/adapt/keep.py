"""What an adaptation has finished, kept in its folder so that it goes on after a stop."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.torch import save
from torch import Tensor

from ai_core.adapt.plan import AdaptPlan
from ai_core.adapt.roles import Role
from ai_core.adapt.score import rate
from ai_core.errors import InputError
from ai_core.release import Release
from ai_core.resume import claim_folder, write_json
from ai_core.train.fit import HeldOut, Row
from ai_core.train.source import Cases

RUN_FILE, ROLES_FILE, KEY_FILE, REPORT_FILE = "run.json", "roles.json", "site.key", "report.json"


def claim(out: Path, parent_sha256: str, data: Path, plan: AdaptPlan) -> None:
    """Note what the folder belongs to.

    Raises:
        InputError: it holds the adaptation of another release, of other data, or by another plan.
    """
    this = {
        "parent": parent_sha256,
        "plan": plan.model_dump(mode="json"),
        "data": _listing(data),
    }
    advice = (
        f"Choose another folder for --out, and give --roles {out / ROLES_FILE}: the hold-out "
        "must stay one."
    )
    claim_folder(out / RUN_FILE, this, "an adaptation", advice)


def _listing(data: Path) -> str:
    """Digest of names and sizes of all files: what would be read."""
    files = sorted(path for path in data.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(data)} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def site_key(out: Path) -> bytes:
    """Return the key under which cases are named in releases; made once, it stays here."""
    path = out / KEY_FILE
    if not path.exists():
        part = out / ".part-key"
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(32))
        part.replace(path)
    return bytes.fromhex(path.read_text(encoding="ascii"))


def read_roles(path: Path) -> dict[str, Role]:
    """Read roles that were dealt before.

    Raises:
        InputError: the file is not one of roles.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): Role(role) for name, role in stored.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a file of roles", "Give roles.json of an earlier adaptation."
        ) from error


def rated(path: Path, release: Release, source: Cases, count: int) -> HeldOut:
    """Score cases, or read what was scored before; ``path`` names the stage and the cases."""
    if path.exists():
        return _read(path)
    held_out = rate(release, source, count, path.stem)
    write_json(
        path,
        {
            "rows": [asdict(row) for row in held_out.rows],
            "significant": {str(k): v for k, v in held_out.significant.items()},
            "embeddings": [e.tolist() for e in held_out.embeddings],
            "prevalence": held_out.prevalence,
            "real": held_out.real,
        },
    )
    return _read(path)


def _read(path: Path) -> HeldOut:
    stored = json.loads(path.read_text(encoding="utf-8"))
    return HeldOut(
        rows=[Row(**row) for row in stored["rows"]],
        significant={int(k): int(v) for k, v in stored["significant"].items()},
        embeddings=[np.array(e) for e in stored["embeddings"]],
        prevalence=stored["prevalence"],
        real=stored["real"],
    )


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights (safetensors); the file appears whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(save({name: one.cpu().contiguous() for name, one in weights.items()}))
    part.replace(path)


def once(path: Path, make: Callable[[], None]) -> None:
    """Do what leaves ``path`` behind, unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make()
