"""The folders of releases: copied in whole, read-only, checked before anything runs.

``data_dir/releases/DIGEST`` holds a release; nothing else writes there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ai_core import packaged_release, read_manifest, verify_files
from ai_core.errors import CoreError
from dicom_node.config import NodeConfig
from dicom_node.durable import ensure_dir, place_folder, set_aside, write_file
from dicom_node.errors import RegistryError
from dicom_node.registry.keys import SIGNATURE, check_signature, sign, trusted_keys
from dicom_node.store.rows import ReleaseRow

RELEASES = "releases"


@dataclass(frozen=True)
class RunnableRelease:
    """A release that may run, and the digest that whoever loads it must find."""

    folder: Path
    sha256: str


@dataclass(frozen=True)
class CheckedRelease:
    """What a full check of a release found: every file read, the signature checked."""

    folder: Path
    name: str
    version: str
    sha256: str
    signed_by: str
    parent: str | None


def folder_of(config: NodeConfig, row: ReleaseRow) -> tuple[Path, str]:
    """Return where a release lies, and its digest."""
    if row.sha256 is None:
        return packaged_release()
    return config.node.data_dir / RELEASES / row.sha256, row.sha256


def runnable(config: NodeConfig, row: ReleaseRow) -> RunnableRelease:
    """Check that a release may run now: its manifest and signature; quick enough for every study.

    Its files are checked against the manifest by whoever loads them, under the digest given here.

    Raises:
        RegistryError: it may not run.
    """
    folder, sha256 = folder_of(config, row)
    if row.sha256 is not None:
        _check_trust(config, folder, sha256)
    return RunnableRelease(folder, sha256)


def runnable_folder(config: NodeConfig, folder: Path) -> RunnableRelease:
    """Check that the release of a folder that the configuration names may run; see `runnable`."""
    return RunnableRelease(folder, _check_trust(config, folder, None))


def check_whole(config: NodeConfig, row: ReleaseRow) -> CheckedRelease:
    """Check every file and the signature of a registered release.

    Raises:
        RegistryError: it may not run.
    """
    folder, sha256 = folder_of(config, row)
    return check_folder(config, folder, sha256, packaged=row.sha256 is None)


def check_folder(
    config: NodeConfig, folder: Path, sha256: str | None = None, *, packaged: bool = False
) -> CheckedRelease:
    """Check every file and the signature of the release in a folder.

    Raises:
        RegistryError: it may not run.
    """
    try:
        files = verify_files(folder, sha256)
    except CoreError as error:
        raise RegistryError(str(error.args[0]), error.advice) from None
    # the packaged one is trusted for its digest, which stands in the code
    signer = "packaged" if packaged else check_signature(
        files.manifest, folder, trusted_keys(config)
    )  # fmt: skip
    parent = files.origin.parent if files.origin else None
    return CheckedRelease(folder, files.name, files.version, files.sha256, signer, parent)


def shelve(config: NodeConfig, folder: Path) -> CheckedRelease:
    """Check a release and copy it in; what lay broken in its place is set aside.

    Raises:
        RegistryError: it may not run; nothing was copied.
        StoreError: the disk refused.
    """
    checked = check_folder(config, folder)
    target = config.node.data_dir / RELEASES / checked.sha256
    try:
        return check_folder(config, target, checked.sha256)
    except RegistryError:
        set_aside(target)
    files = verify_files(folder, checked.sha256)
    contents = {
        **files.contents,
        "manifest.json": files.manifest,
        SIGNATURE: (folder / SIGNATURE).read_bytes(),
    }
    ensure_dir(target.parent)
    place_folder(target, contents)
    return check_folder(config, target, checked.sha256)


def sign_folder(folder: Path, private_key: Path) -> str:
    """Sign the release of a folder, every file checked first; returns its digest.

    Raises:
        RegistryError: the release is not whole.
        ConfigError: the key cannot be used.
    """
    try:
        files = verify_files(folder)
    except CoreError as error:
        raise RegistryError(str(error.args[0]), error.advice) from None
    write_file(folder / SIGNATURE, [sign(files.manifest, private_key)])
    return files.sha256


def _check_trust(config: NodeConfig, folder: Path, sha256: str | None) -> str:
    try:
        manifest = read_manifest(folder, sha256)
    except CoreError as error:
        raise RegistryError(str(error.args[0]), error.advice) from None
    check_signature(manifest.content, folder, trusted_keys(config))
    return manifest.sha256
