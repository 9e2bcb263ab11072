"""A backup of the whole node while it runs: database, results, releases, what else it needs.

Each run makes a folder of its own beside the earlier ones, named by its time. Files that are as
they were in the last one get a second name there instead of a second copy. The list of everything
with digests is written last, then the folder gets its name: what has a name is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_node import __version__
from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.config_secrets import without_secrets
from dicom_node.durable import SyncBatch, ensure_dir, write_file
from dicom_node.durable_trees import copy_file, link_file, remove_folder, rename_folder
from dicom_node.errors import StoreError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.outbox import MANIFEST
from dicom_node.flow.retention import LEASE_S, TURN
from dicom_node.store.engine import HEAD
from dicom_node.store.retention import RESULT_JSON
from dicom_node.store.snapshot import SQLITE_COPY, copy_database, copy_name
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

LIST = "backup.json"
FORMAT = 1
DATA, DATABASE, CONFIG = "data", "database", "config"
CONFIG_NAME = "node.toml"
KEY_FILES = (
    ("tls", "certificate"), ("tls", "key"), ("tls", "ca"), ("tls", "crl"), ("web", "certificate"),
    ("web", "key"), ("audit", "syslog_ca"), ("audit", "syslog_certificate"),
    ("audit", "syslog_key"), ("alarms", "ca"), ("alarms", "webhook_secret_file"),
    ("alarms", "mail_password_file"),
)  # fmt: skip
"""Files that the configuration names; they stand in a backup with keys, by section and name."""
_PARTIAL = ".backup.part"
_TURN_WAIT_S = 60.0
_WHOLE_FOLDERS = ("releases", "keys/trusted")
_PRIVATE_FOLDERS = ("keys",)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BackedUp:
    """A file of a backup: its place there, what is in it, and when it was written."""

    path: str
    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class BackupList:
    """What a backup holds. ``missing``: files that rows count on and that were not there."""

    made_at: str
    version: str
    schema: str
    host: str
    installation_id: str
    database: str
    all_images: bool
    keys: bool
    files: tuple[BackedUp, ...]
    missing: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Encode the list."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    @classmethod
    def read(cls, folder: Path) -> BackupList:
        """Read the list of a backup.

        Raises:
            StoreError: it cannot be read, or is of a later version.
        """
        try:
            told = json.loads((folder / LIST).read_bytes())
            if told.pop("format") != FORMAT:
                raise StoreError(
                    f"{folder} was made by a later version", "restore it with that version"
                )
            files = tuple(BackedUp(**one) for one in told.pop("files"))
            return cls(files=files, missing=tuple(told.pop("missing")), **told)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"{folder} is no backup: {LIST} cannot be read ({type(error).__name__})",
                "name the folder that dicom-node backup wrote",
            ) from None


@dataclass(frozen=True)
class Wanted:
    """What to take: the configuration; all images, or those alone that are needed; private keys."""

    config_file: Path
    images: bool = False
    keys: bool = False


def newest(folder: Path) -> Path | None:
    """Return the latest whole backup in a folder; None where there is none."""
    if (folder / LIST).is_file():
        return folder
    return max((path.parent for path in folder.glob(f"*/{LIST}")), default=None)


def make_backup(
    store: Store, config: NodeConfig, out: Path, clock: Clock, wanted: Wanted,
    progress: Progress | None = None,
) -> tuple[Path, BackupList]:  # fmt: skip
    """Write a backup into a new folder of ``out``; returns the folder and what is in it.

    Nothing is deleted by retention meanwhile.

    Raises:
        StoreError: the database cannot be copied, the disk refused, or retention does not pause.
    """
    ensure_dir(out)
    owner = f"backup:{platform.node()}:{os.getpid()}"
    _take_lease(store, clock, owner)
    partial = out / _PARTIAL
    remove_folder(partial)
    try:
        work = _Backup(store, config, clock, partial, newest(out), owner)
        told = work.run(wanted, progress)
        name = _free_name(out, clock.now_s())
        rename_folder(partial, name)
    finally:
        remove_folder(partial)
        store.end_lease(TURN, owner)
    trail = AuditTrail(store, config, clock)
    held = "all images" if wanted.images else "images in work or annotated"
    trail.backup("backup made", str(name), [("images", held), ("keys", str(wanted.keys))])
    trail.flush()
    return name, told


def _free_name(out: Path, now_s: float) -> Path:
    """Name a backup by its second; later ones of one second sort behind the first."""
    stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (stamp, *(f"{stamp}-{number}" for number in range(2, 10)))
    return out / next((name for name in names if not (out / name).exists()), f"{stamp}-x")


def _take_lease(store: Store, clock: Clock, owner: str) -> None:
    deadline_s = clock.monotonic_s() + _TURN_WAIT_S
    while not store.lease(TURN, owner, LEASE_S):
        if clock.monotonic_s() > deadline_s:
            raise StoreError("retention does not pause", "try again in ten minutes")
        time.sleep(1.0)


@dataclass(eq=False)
class _Backup:
    """A backup that is being made in ``target``; ``before``: the one before it."""

    store: Store
    config: NodeConfig
    clock: Clock
    target: Path
    before: Path | None
    owner: str

    def __post_init__(self) -> None:
        self._known: dict[str, BackedUp] = {}
        if self.before is not None:
            self._known = {one.path: one for one in BackupList.read(self.before).files}
        self._missing: list[str] = []
        self._renewed_s = self.clock.monotonic_s()

    def run(self, wanted: Wanted, progress: Progress | None) -> BackupList:
        """Copy everything, and write the list last."""
        for part in (DATA, DATABASE, CONFIG):
            ensure_dir(self.target / part)
        installation_id = self.store.installation_id()  # made where it is not: before the copy
        sync = SyncBatch(self.target)
        try:
            database = f"{DATABASE}/{copy_name(self.config.database_url)}"
            copy_database(self.config.database_url, self.target / database)
            self._renew()
            sources = {f"{DATA}/{name}": self.config.node.data_dir / name
                       for name in self._names(self.target / database, wanted)}  # fmt: skip
            if wanted.keys:
                sources |= self._key_files()
            files = [self._described(database)]
            self._write_config(wanted)
            files.append(self._described(f"{CONFIG}/{CONFIG_NAME}"))
            for number, (name, source) in enumerate(sources.items(), start=1):
                if (one := self._take(name, source)) is not None:
                    files.append(one)
                if progress is not None:
                    progress(number, len(sources))
            sync.sync(self.target / one.path for one in files)
        finally:
            sync.close()
        told = BackupList(
            made_at=self.clock.now().isoformat(), version=__version__, schema=HEAD,
            host=platform.node(), installation_id=installation_id,
            database=database, all_images=wanted.images, keys=wanted.keys, files=tuple(files),
            missing=tuple(self._missing),
        )  # fmt: skip
        write_file(self.target / LIST, [told.to_json()])
        return told

    def _names(self, copy: Path, wanted: Wanted) -> list[str]:
        """Name the files of the data folder that belong to the copy of the database."""
        if copy.name == SQLITE_COPY:
            snapshot = Store(f"sqlite:///{copy}", clock=self.clock)
            try:
                names = _counted_on(snapshot, wanted)
            finally:
                snapshot.close()
        else:  # rows that came since count on more files; a start takes these in
            names = _counted_on(self.store, wanted)
        data_dir = self.config.node.data_dir
        folders = [*_WHOLE_FOLDERS, *(_PRIVATE_FOLDERS if wanted.keys else ())]
        for folder in folders:
            names += (
                str(path.relative_to(data_dir))
                for path in sorted((data_dir / folder).rglob("*"))
                if path.is_file() and not path.name.startswith(".")
            )
        return list(dict.fromkeys(names))

    def _key_files(self) -> dict[str, Path]:
        return {
            f"{CONFIG}/{section}.{name}": Path(value)
            for section, name in KEY_FILES
            if (value := getattr(getattr(self.config, section), name))
        }

    def _write_config(self, wanted: Wanted) -> None:
        text = wanted.config_file.read_text(encoding="utf-8")
        told = text if wanted.keys else without_secrets(text)
        write_file(self.target / CONFIG / CONFIG_NAME, [told.encode()], mode=0o600)

    def _renew(self) -> None:
        """Keep retention away.

        Raises:
            StoreError: the copy of the database took so long that it has begun.
        """
        self._renewed_s = self.clock.monotonic_s()
        if not self.store.lease(TURN, self.owner, LEASE_S):
            raise StoreError(
                "retention began while the database was copied", "try again; to a faster disk"
            )

    def _take(self, name: str, source: Path) -> BackedUp | None:
        """Copy a file, or link it to the backup before where it is as it was there."""
        now_s = self.clock.monotonic_s()
        if now_s - self._renewed_s > LEASE_S / 4:
            self._renew()
        target = self.target / name
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            now = source.stat()
            known = self._known.get(name)
            if (
                known is not None and self.before is not None
                and (known.size, known.mtime_ns) == (now.st_size, now.st_mtime_ns)
                and link_file(self.before / name, target)
            ):  # fmt: skip
                return known
            digest = copy_file(source, target)
        except FileNotFoundError:
            if name.endswith(".dcm"):  # what stands beside a result may not be there yet
                self._missing.append(name)
            return None
        return BackedUp(name, target.stat().st_size, digest, now.st_mtime_ns)

    def _described(self, name: str) -> BackedUp:
        path = self.target / name
        told = path.stat()
        return BackedUp(name, told.st_size, digest_of(path), told.st_mtime_ns)


def _counted_on(store: Store, wanted: Wanted) -> list[str]:
    names = (MANIFEST, RESULT_JSON)
    beside = [f"{folder}/{name}" for folder in store.result_folders() for name in names]
    return [*store.image_paths(everything=wanted.images), *store.result_paths(), *beside]


def digest_of(path: Path) -> str:
    """Return SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
