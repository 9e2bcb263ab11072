"""The only module that writes or deletes files. What it has returned from survives a power cut.

Order of a write: temporary file in the same folder, ``fsync``, ``rename``, ``fsync`` of the folder.
A failed ``fsync`` is never tried again: the kernel may have dropped the pages and would then report
a success that means nothing. The file is removed and the caller refuses the work.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path

from dicom_node.errors import StoreError

TEMP_SUFFIX = ".part"
FAULT_ENV = "DICOM_NODE_FAULT"
FAULT_EXIT_STATUS = 9

FILE_POINTS = ("file-written", "file-synced", "file-renamed", "folder-synced")
RECEIVE_POINTS = ("instance-parsed", "instance-stored", "row-committed")
WORK_POINTS = ("claim-committed", "case-analysed", "results-written", "finish-committed")
DELIVERY_POINTS = ("delivery-claimed", "object-sent", "delivery-committed")
FAULT_POINTS = frozenset((*FILE_POINTS, *RECEIVE_POINTS, *WORK_POINTS, *DELIVERY_POINTS))
"""Every place where a test can end the process."""


class _Faults:
    """Counts the hits of the one crash point that the environment names."""

    def __init__(self, setting: str) -> None:
        name, _, count = setting.partition(":")
        if name and name not in FAULT_POINTS:
            raise ValueError(f"unknown crash point '{name}' in {FAULT_ENV}")
        self._name = name
        self._left = int(count or 1)
        self._lock = threading.Lock()

    def hit(self, name: str) -> None:
        if name not in FAULT_POINTS:
            raise ValueError(f"unknown crash point '{name}'")
        if name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os._exit(FAULT_EXIT_STATUS)


_faults = _Faults(os.environ.get(FAULT_ENV, ""))


def fault(name: str) -> None:
    """Mark a crash point. With ``DICOM_NODE_FAULT=name:n`` the n-th hit ends the process.

    Raises:
        ValueError: the name is not in ``FAULT_POINTS``.
    """
    _faults.hit(name)


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file so that it is there, whole, or not at all; an older one is replaced.

    Raises:
        StoreError: the disk refused; nothing of the new file is left.
    """
    temporary = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}{TEMP_SUFFIX}")
    try:
        _write_synced(temporary, chunks)
        temporary.rename(path)
        fault("file-renamed")
        fsync_folder(path.parent)
        fault("folder-synced")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _refused("write", path, error) from error


def _write_synced(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(handle, rest) :]
        fault("file-written")
        os.fsync(handle)
        fault("file-synced")
    finally:
        os.close(handle)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: the disk refused.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def ensure_dir(folder: Path) -> None:
    """Make a folder and its parents, each entry durable in its own parent.

    Raises:
        StoreError: it cannot be made.
    """
    missing = []
    place = folder
    while not place.is_dir():
        missing.append(place)
        place = place.parent
    try:
        for new in reversed(missing):
            new.mkdir(mode=0o750, exist_ok=True)
            fsync_folder(new.parent)
    except OSError as error:
        raise _refused("make the folder", folder, error) from error


def remove(path: Path) -> None:
    """Delete a file for good; no error where it is not there.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
        fsync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused("delete", path, error) from error


def remove_temporary_files(folders: Iterable[Path]) -> int:
    """Delete what writes that were cut short left in ``folders``; returns how many.

    Only for the start, while nothing else writes there.
    """
    leftovers = [path for folder in folders for path in folder.glob(f".*{TEMP_SUFFIX}")]
    for leftover in leftovers:
        remove(leftover)
    return len(leftovers)


def free_bytes(folder: Path) -> tuple[int, int]:
    """Free and total bytes of the disk that holds ``folder``."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


def _refused(what: str, path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot {what} {path}: {error.strerror or error}",
        "check free space, rights and health of the disk",
    )
