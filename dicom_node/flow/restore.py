"""Filling an empty data folder from a backup (`dicom_node.flow.backup`): checked, whole or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.durable import SyncBatch, ensure_dir, write_file
from dicom_node.durable_trees import copy_file, remove_folder, rename_folder
from dicom_node.errors import NodeError, StoreError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.backup import (
    CONFIG,
    DATA,
    KEY_FILES,
    LIST,
    BackedUp,
    BackupList,
    Progress,
    digest_of,
)
from dicom_node.store.engine import HEAD, open_engine, schema_version
from dicom_node.store.snapshot import SQLITE_COPY, copy_name, load_database
from dicom_node.store.store import Store


def restore_backup(
    source: Path, config: NodeConfig, clock: Clock, progress: Progress | None = None
) -> dict[str, object]:
    """Fill the empty data folder of a configuration from a backup, every digest checked.

    The folder gets its name last: a restore that is cut short leaves nothing behind in it. A
    database of an older version is brought up to date.

    Raises:
        NodeError: the data folder is not empty, the backup is damaged, newer than this program,
            or of another kind of database.
    """
    told = BackupList.read(source)
    data_dir = config.node.data_dir
    _check(told, config, source)
    staging = data_dir.with_name(f".{data_dir.name}.restoring")
    remove_folder(staging)
    ensure_dir(staging)
    try:
        there = set(_bring(told, source, staging, progress))
        url = _fill_database(told, config, source, staging)
        store = Store(url, clock=clock, create=True)
        try:
            absent = store.forget_files(there)
            trail = AuditTrail(store, config, clock)
            trail.backup("restored", str(source), [("made at", told.made_at)])
            trail.flush()
        finally:
            store.close()
        rename_folder(staging, data_dir)
    finally:
        remove_folder(staging)
    placed = _place_key_files(told, config, source)
    return {
        "made_at": told.made_at, "files": len(told.files), "images_absent": absent,
        "keys_placed": placed, "data_dir": str(data_dir),
    }  # fmt: skip


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest above it that is there."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def _check(told: BackupList, config: NodeConfig, source: Path) -> None:
    data_dir = config.node.data_dir
    if data_dir.exists() and any(data_dir.iterdir()):
        raise NodeError(f"{data_dir} is not empty", "restore into a new or empty data_dir")
    if data_dir.is_mount() or not os.access(_nearest(data_dir.parent), os.W_OK):
        raise NodeError(
            f"{data_dir} cannot be made as a whole: a disk is mounted there, or this user "
            f"may not write to {data_dir.parent}",
            "set node.data_dir to a folder below, and restore as the user of the node",
        )
    if int(told.schema) > int(HEAD):
        raise NodeError(
            f"the backup was made by version {told.version}, later than this program",
            "install that version or a later one",
        )
    wanted = copy_name(config.database_url)
    if Path(told.database).name != wanted:
        raise NodeError(
            f"the backup holds {Path(told.database).name}, the configuration wants {wanted}",
            "set node.database as it was when the backup was made",
        )
    if wanted == SQLITE_COPY and config.node.database:
        raise NodeError("node.database names a file of its own", "leave node.database empty")
    for one in told.files:
        path = Path(one.path)
        if path.is_absolute() or ".." in path.parts:
            raise NodeError(f"{source / LIST} names {one.path}", "do not use this backup")


def _bring(
    told: BackupList, source: Path, staging: Path, progress: Progress | None
) -> Iterator[str]:
    """Copy the files of the data folder, checked; yields their names there."""
    sync = SyncBatch(staging)
    try:
        brought = []
        for number, one in enumerate(told.files, start=1):
            part, _, name = one.path.partition("/")
            if part != DATA:
                _compare(one, digest_of(source / one.path), source)
                continue
            target = staging / name
            target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            _compare(one, copy_file(source / one.path, target), source)
            brought.append(target)
            yield name
            if progress is not None:
                progress(number, len(told.files))
        sync.sync(brought)
    finally:
        sync.close()


def _compare(one: BackedUp, found: str, source: Path) -> None:
    if found != one.sha256:
        raise StoreError(
            f"{source / one.path} is not what was backed up", "take another backup, or the disk "
            "that holds this one is failing",
        )  # fmt: skip


def _fill_database(told: BackupList, config: NodeConfig, source: Path, staging: Path) -> str:
    copy = source / told.database
    if copy.name == SQLITE_COPY:
        copy_file(copy, staging / SQLITE_COPY)
        return f"sqlite:///{staging / SQLITE_COPY}"
    engine = open_engine(config.database_url)
    try:
        if schema_version(engine) is not None:
            raise NodeError("the database is not empty", "restore into a new, empty database")
    finally:
        engine.dispose()
    load_database(copy, config.database_url)
    return config.database_url


def _place_key_files(told: BackupList, config: NodeConfig, source: Path) -> list[str]:
    """Put certificates and keys where the configuration names them and nothing is."""
    placed = []
    named = {f"{CONFIG}/{section}.{name}": (section, name) for section, name in KEY_FILES}
    for one in told.files:
        if one.path not in named:
            continue
        section, name = named[one.path]
        value = getattr(getattr(config, section), name)
        if value and not Path(value).exists():
            ensure_dir(Path(value).parent)
            write_file(Path(value), [(source / one.path).read_bytes()], mode=0o600)
            placed.append(value)
    return placed
