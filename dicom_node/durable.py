"""Writing and deleting files, here and in `durable_trees` alone: it survives a power cut.

Order of a write: temporary file in the same folder, ``fsync``, ``rename``, ``fsync`` of the folder.
A failed ``fsync`` is never tried again: the kernel may have dropped the pages and would then report
a success that means nothing. The file is removed and the caller refuses the work.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dicom_node.crash_points import fault
from dicom_node.errors import StoreError, SyncFailed

_FILL_BYTES = 2**20
TEMP_SUFFIX = ".part"


def write_file(path: Path, chunks: Iterable[bytes | memoryview], *, mode: int = 0o640) -> None:
    """Write a file so that it is there, whole, or not at all; an older one is replaced.

    Raises:
        StoreError: the disk refused; nothing of the new file is left.
    """
    temporary = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}{TEMP_SUFFIX}")
    try:
        _write_synced(temporary, chunks, mode)
        temporary.rename(path)
        fault("file-renamed")
        fsync_folder(path.parent)
        fault("folder-synced")
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise refused("write", path, error) from error


def _write_synced(path: Path, chunks: Iterable[bytes | memoryview], mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(handle, rest) :]
        fault("file-written")
        _flush(os.fsync, handle)
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
        _flush(os.fsync, handle)
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
        raise refused("make the folder", folder, error) from error


def place_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder with these files, read-only, that is there whole or not at all.

    Raises:
        StoreError: the disk refused, or there is such a folder; nothing of the new one is left.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{TEMP_SUFFIX}")
    try:
        temporary.mkdir(mode=0o750)
        for name, content in files.items():
            _write_synced(temporary / name, [content], 0o440)
        fsync_folder(temporary)
        temporary.chmod(0o550)
        temporary.rename(folder)
        fsync_folder(folder.parent)
    except OSError as error:
        if temporary.is_dir():
            temporary.chmod(0o750)
            shutil.rmtree(temporary, ignore_errors=True)
        raise refused("make the folder", folder, error) from error


def set_aside(folder: Path) -> Path | None:
    """Give a folder another name beside it; None where there is no such folder.

    Raises:
        StoreError: the disk refused.
    """
    if not folder.exists():
        return None
    aside = folder.with_name(f"{folder.name}.broken-{uuid.uuid4().hex[:8]}")
    try:
        folder.rename(aside)
        fsync_folder(folder.parent)
    except OSError as error:
        raise refused("rename", folder, error) from error
    return aside


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
        raise refused("delete", path, error) from error


def remove_temporary_files(folders: Iterable[Path], before_s: float | None = None) -> int:
    """Delete what writes that were cut short left in ``folders``; returns how many.

    Without ``before_s`` only for the start, while nothing else writes there; with it, only what was
    last written before that time (of the file system, epoch seconds).
    """
    leftovers = [
        path
        for folder in folders
        for path in folder.glob(f".*{TEMP_SUFFIX}")
        if before_s is None or _written_before(path, before_s)
    ]
    for leftover in leftovers:
        remove(leftover)
    return len(leftovers)


def _written_before(path: Path, time_s: float) -> bool:
    try:
        return path.stat().st_mtime < time_s
    except FileNotFoundError:
        return False


class LogFile:
    """A file of fixed size that is written in place: to sync it costs one flush of the disk.

    Its blocks are written with zeros and synced when it is made, so that later writes change no
    metadata of the file system and cannot run out of space.

    Raises:
        StoreError: it cannot be made or opened.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open a file, or make it where ``size`` is given."""
        self.path = path
        self.broken = False
        flags = os.O_RDWR | os.O_CLOEXEC
        made = size is not None
        try:
            self._handle = os.open(path, flags | (os.O_CREAT | os.O_EXCL if made else 0), 0o640)
        except OSError as error:
            raise refused("open", path, error) from error
        try:
            if size is not None:
                if not self.lock():  # nobody takes it for one that was left behind
                    raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process")
                self._fill(size)
            self.size = os.fstat(self._handle).st_size
        except OSError as error:
            self.close()
            if made:
                path.unlink(missing_ok=True)
            raise refused("make", path, error) from error

    def _fill(self, size: int) -> None:
        zeros = memoryview(bytes(min(size, _FILL_BYTES)))
        done = 0
        while done < size:
            done += os.write(self._handle, zeros[: size - done])
        _flush(os.fsync, self._handle)
        fsync_folder(self.path.parent)

    def write_at(self, offset: int, chunks: Sequence[bytes | memoryview]) -> None:
        """Write chunks one after the other; not durable before ``sync``.

        Raises:
            StoreError: the disk refused.
        """
        rest = [memoryview(chunk) for chunk in chunks if len(chunk)]
        try:
            while rest:
                count = os.pwritev(self._handle, rest, offset)
                offset += count
                while rest and count >= len(rest[0]):
                    count -= len(rest.pop(0))
                if count:
                    rest[0] = rest[0][count:]
        except OSError as error:
            self.broken = True
            raise refused("write", self.path, error) from error

    def sync(self) -> None:
        """Make everything written durable. After a failure the file is never synced again.

        Raises:
            StoreError: the disk refused, now or earlier.
        """
        if self.broken:
            raise StoreError(f"{self.path} failed earlier", "check the health of the disk")
        try:
            _flush(os.fdatasync, self._handle)
        except OSError as error:
            self.broken = True
            raise refused("sync", self.path, error) from error

    def read_at(self, offset: int, size: int) -> bytes:
        """Read bytes; fewer at the end of the file.

        Raises:
            StoreError: the disk refused.
        """
        try:
            return os.pread(self._handle, size, offset)
        except OSError as error:
            raise refused("read", self.path, error) from error

    def copy_to(self, path: Path, offset: int, size: int) -> None:
        """Copy a part into a file of its own, whole or not at all; durable after ``sync_files``.

        Raises:
            StoreError: the disk refused; nothing of the new file is left.
        """
        temporary = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}{TEMP_SUFFIX}")
        try:
            self._copy(temporary, offset, size)
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise refused("write", path, error) from error
        fault("file-copied")

    def _copy(self, path: Path, offset: int, size: int) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            end = offset + size
            while offset < end:
                count = os.sendfile(handle, self._handle, offset, end - offset)
                if count == 0:
                    raise OSError(0, "the log is shorter than its record says")
                offset += count
        finally:
            os.close(handle)

    def lock(self) -> bool:
        """Take the file for this process, until it is closed; False where another has it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def rename(self, path: Path, *, durable: bool = False) -> None:
        """Give the file another name in its folder.

        A power cut may bring the old one back, unless it is made ``durable``.

        Raises:
            StoreError: the disk refused.
        """
        try:
            self.path.rename(path)
            if durable:
                fsync_folder(path.parent)
        except OSError as error:
            raise refused("rename", self.path, error) from error
        self.path = path

    def close(self) -> None:
        """Close the file."""
        handle, self._handle = self._handle, -1  # its number may soon be that of another file
        if handle >= 0:
            os.close(handle)


class SyncBatch:
    """Makes many new files durable at once: those made between its start and ``sync``.

    Linux syncs the file system in one call (errors since 5.8); elsewhere each file and folder.
    """

    def __init__(self, folder: Path) -> None:
        # opened before the files are written: errors of writing count from here on
        self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync(self, files: Iterable[Path]) -> None:
        """Sync ``files`` and their names, then close. A failed sync is not tried again.

        Raises:
            StoreError: the disk refused.
        """
        files = list(files)
        try:
            if _SYNCFS is not None:
                _flush(_syncfs, self._handle)
            else:
                for file in files:
                    _fsync_file(file)
                for folder in {file.parent for file in files}:
                    fsync_folder(folder)
        except OSError as error:
            raise refused("sync", files[0].parent if files else Path(), error) from error
        finally:
            self.close()
        fault("files-synced")

    def close(self) -> None:
        """Give up; nothing is synced."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _fsync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _flush(os.fsync, handle)
    finally:
        os.close(handle)


def _syncfs(handle: int) -> None:
    if _SYNCFS(handle) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _find_syncfs() -> Any:
    """syncfs(2) of the C library, where its result can be trusted; else None."""
    release = platform.release().split(".")
    try:
        if platform.system() != "Linux" or (int(release[0]), int(release[1])) < (5, 8):
            return None
        return ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, IndexError, OSError, ValueError):
        return None


_SYNCFS = _find_syncfs()


class _SyncError(OSError):
    """A flush that failed for another reason than a lack of room or of the right to write."""


_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def _flush(how: Callable[[int], None], handle: int) -> None:
    try:
        how(handle)
    except OSError as error:
        if error.errno in _NOT_WRITTEN:
            raise
        raise _SyncError(error.errno, error.strerror) from error


def refused(what: str, path: Path, error: OSError) -> StoreError:
    """Turn an error of the system into one for people; it stays its cause."""
    kind = SyncFailed if isinstance(error, _SyncError) else StoreError
    return kind(
        f"cannot {what} {path}: {error.strerror or error}",
        "check free space, rights and health of the disk",
    )
