"""Many files at once, as durable as `dicom_node.durable` makes one: deleting, copying, linking."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from dicom_node.crash_points import fault
from dicom_node.durable import fsync_folder, refused

_CHUNK_BYTES = 2**20


def remove_files(paths: Sequence[Path]) -> None:
    """Delete files for good, and the folders that are empty then; what is not there is no error.

    Raises:
        StoreError: one cannot be deleted; some may be gone.
    """
    folders = {path.parent for path in paths}
    try:
        for path in paths:
            path.unlink(missing_ok=True)
            fault("file-removed")
        for folder in filter(Path.is_dir, folders):
            fsync_folder(folder)
            with contextlib.suppress(OSError):  # not empty, or something comes in just now
                folder.rmdir()
    except OSError as error:
        raise refused("delete files of", next(iter(folders)), error) from error


def copy_file(source: Path, target: Path) -> str:
    """Copy a file with its time and rights; returns SHA-256 of what was written.

    Durable after `SyncBatch.sync`: for folders that get their name when all of them is there.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the disk refused.
    """
    digest = hashlib.sha256()
    told = source.stat()
    try:
        with source.open("rb") as file, _created(target, told.st_mode) as copy:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
        os.utime(target, ns=(told.st_atime_ns, told.st_mtime_ns))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise refused("write", target, error) from error
    return digest.hexdigest()


def _created(path: Path, mode: int) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, stat.S_IMODE(mode)), "wb")


def link_file(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def rename_folder(folder: Path, name: Path) -> None:
    """Give a folder another name, durably; an empty folder of that name is replaced.

    Raises:
        StoreError: the disk refused, or there is something in the other.
    """
    try:
        folder.rename(name)
        fsync_folder(name.parent)
    except OSError as error:
        raise refused("rename to", name, error) from error


def remove_folder(folder: Path) -> None:
    """Delete a folder with everything in it; no error where it is not there.

    Raises:
        StoreError: the disk refused.
    """
    try:
        if folder.is_dir():
            shutil.rmtree(folder)
            fsync_folder(folder.parent)
    except OSError as error:
        raise refused("delete", folder, error) from error
