"""The files of a release and their digests. Free of torch: whoever only checks loads nothing.

The manifest lists the SHA-256 of every other file of the folder; the SHA-256 of the manifest names
the release in results. ``signature.json`` stands beside it and is not listed: it signs it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_core.errors import ReleaseError
from ai_core.origin import Origin

#: The branch that a release may have: its weights and the spread of normal differences.
SYNTHESIS = "synthesis"
SYNTHESIS_FILES = (f"{SYNTHESIS}.safetensors", f"{SYNTHESIS}.json")
NETWORKS = ("gland", "localizer", "classifier")
MANIFEST = "manifest.json"
FAMILIARITY = "familiarity.json"
ORIGIN = "origin.json"
PROFILE = "site_profile.json"
CARD = "MODEL_CARD.md"
FILES = (
    *(f"{name}.safetensors" for name in NETWORKS),
    "config.json",
    "calibration.json",
    "significance.json",
    "presence.json",
    CARD,
)
#: Files that a release may have; those of earlier versions do not.
OPTIONAL = (FAMILIARITY, ORIGIN, PROFILE, *SYNTHESIS_FILES)
REINSTALL = "Install the release again, or choose another one."

PACKAGED = Path(__file__).parent / "releases"
PACKAGED_NAME = "third"
#: Digest of the packaged release: it is trusted for standing here. Goes with `PACKAGED_NAME`.
PACKAGED_SHA256 = "9e73974f432d4550fc985db79d2267f712d9417d9400ba605033d16485c78646"

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ReleaseFiles:
    """A release whose files agree with its manifest. ``contents``: bytes by file name."""

    name: str
    version: str
    sha256: str
    manifest: bytes
    contents: Mapping[str, bytes]
    origin: Origin | None

    @property
    def model_card(self) -> str:
        """The model card, in Markdown."""
        return self.contents[CARD].decode(errors="replace")


@dataclass(frozen=True)
class Manifest:
    """What a release says it consists of. ``files``: SHA-256 by file name."""

    name: str
    version: str
    sha256: str
    content: bytes
    files: Mapping[str, str]


def packaged_release() -> tuple[Path, str]:
    """Return the folder of the release that the package carries, and the digest it must have."""
    return PACKAGED / PACKAGED_NAME, PACKAGED_SHA256


def read_manifest(folder: Path, sha256: str | None = None) -> Manifest:
    """Read the manifest of a release; ``sha256``: the digest that it must have.

    Raises:
        ReleaseError: it is missing, not a manifest, or that of another release.
    """
    content = _read(folder / MANIFEST)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ReleaseError(
            f"{folder} holds release {digest[:12]}, not {sha256[:12]} as it should", REINSTALL
        )
    try:
        values = json.loads(content)
        listed = {str(name): str(value) for name, value in values["files"].items()}
        name, version = str(values.get("name", "")), str(values.get("version", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"{folder / MANIFEST} is not a manifest", REINSTALL) from error
    strange = [file for file in listed if not _FILE_NAME.fullmatch(file)]
    if strange:
        raise ReleaseError(f"{folder / MANIFEST} lists the file name {strange[0]!r}", REINSTALL)
    return Manifest(name, version, digest, content, listed)


def verify_files(folder: Path, sha256: str | None = None) -> ReleaseFiles:
    """Read a release, every file checked against its manifest.

    ``sha256``: the digest that the release must have; None: any.

    Raises:
        ReleaseError: the manifest or a file is missing, a checksum differs, or it is another
            release.
    """
    manifest = read_manifest(folder, sha256)
    absent = sorted(set(FILES) - set(manifest.files))
    if absent:
        raise ReleaseError(f"the manifest of {folder} does not list {absent[0]}", REINSTALL)
    contents = {}
    for name in manifest.files:
        contents[name] = _read(folder / name)
        if hashlib.sha256(contents[name]).hexdigest() != manifest.files[name]:
            raise ReleaseError(
                f"{folder / name} is not the file of this release (its SHA-256 differs)", REINSTALL
            )
    origin = _origin(contents[ORIGIN]) if ORIGIN in contents else None
    return ReleaseFiles(
        manifest.name, manifest.version, manifest.sha256, manifest.content, contents, origin
    )


def _origin(content: bytes) -> Origin:
    try:
        return Origin.model_validate_json(content)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise ReleaseError(f"{ORIGIN} of the release is not valid: {first}", REINSTALL) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ReleaseError(f"cannot read {path}: {error.strerror}", REINSTALL) from error
