"""Whether the disk and the database take what is received: what the receiver meets, all can see.

A full or read-only disk is over when the disk says so. After a failed sync nobody knows what the
disk kept of what it had taken: the receiver acknowledges nothing more until it is started again.

The state stands in a note beside the logs of the journal, one page that is written in place when
the receiver starts: a disk that is full or fails still lets other processes read it. A note counts
as long as its receiver lives, which holds the lock on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.durable import LogFile, ensure_dir, remove
from dicom_node.errors import StoreError, SyncFailed
from dicom_node.flow.spool import JOURNAL
from dicom_node.store.times import iso

log = logging.getLogger(__name__)

MIN_FREE_BYTES = 256 * 2**20
MIN_FREE_SHARE = 0.05
"""The disk counts as full below the smaller of the two: the database needs room to go on (G5)."""
RESULT_BYTES = 16 * 2**20
"""Kept free for the results of each study in work, up to ``MIN_FREE_SHARE`` of the disk: what was
acknowledged must come to its end however full the disk gets."""
_NOTE_BYTES = 4096
_SUFFIX = ".health"


class Trouble(StrEnum):
    """What keeps the node from storing; the worst first."""

    SYNC_FAILED = "sync_failed"
    READ_ONLY = "read_only"
    DISK_FULL = "disk_full"
    WRITE_FAILED = "write_failed"
    ROWS_WAIT = "rows_wait"


@dataclass(frozen=True)
class Words:
    """A trouble in plain words, at most 64 ASCII characters (they go to the sender), and advice."""

    message: str
    advice: str


TROUBLES: Mapping[Trouble, Words] = {
    Trouble.SYNC_FAILED: Words(
        "the disk did not make durable what was written",
        "check the disk (kernel log, SMART), then restart the node: it stores nothing before",
    ),
    Trouble.READ_ONLY: Words(
        "the disk is read-only",
        "see the kernel log for why, check the disk and mount it writable; the node then goes on",
    ),
    Trouble.DISK_FULL: Words(
        "the disk is nearly full",
        "free some space, enlarge the disk, or let retention delete more "
        "(dicom-node retention plan); the node then goes on",
    ),
    Trouble.WRITE_FAILED: Words(
        "the disk refused a write",
        "check rights, quota and health of the disk; the node goes on when it can write",
    ),
    Trouble.ROWS_WAIT: Words(
        "the database does not take what was received",
        "see that the database answers and its disk is not full; the node then goes on",
    ),
}


class StorageTrouble(StoreError):
    """Nothing can be stored now, and why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(TROUBLES[trouble].message, TROUBLES[trouble].advice)
        self.trouble = trouble


@dataclass(frozen=True)
class Disk:
    """What the file system says of itself."""

    free_bytes: int
    total_bytes: int
    read_only: bool

    def trouble(self, more_bytes: int = 0, studies: int = 0) -> Trouble | None:
        """Whether so many bytes more can be stored, beside the results of ``studies`` in work."""
        if self.read_only:
            return Trouble.READ_ONLY
        share = MIN_FREE_SHARE * self.total_bytes
        floor = min(MIN_FREE_BYTES, share) + min(studies * RESULT_BYTES, share)
        return Trouble.DISK_FULL if self.free_bytes - more_bytes < floor else None


def disk_of(folder: Path) -> Disk:
    """Look at the disk that holds ``folder``.

    Raises:
        OSError: there is no such folder, or the disk does not answer.
    """
    disk = os.statvfs(folder)
    unit = disk.f_frsize
    read_only = bool(disk.f_flag & os.ST_RDONLY)
    return Disk(disk.f_bavail * unit, disk.f_blocks * unit, read_only)


def trouble_of(error: Exception) -> Trouble | None:
    """Return what an error says of the storage; None where it says nothing of the disk."""
    if isinstance(error, StorageTrouble):
        return error.trouble
    if isinstance(error, SyncFailed):
        return Trouble.SYNC_FAILED
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError):
        return None
    return _BY_ERRNO.get(cause.errno or 0, Trouble.WRITE_FAILED)


_BY_ERRNO = {
    errno.ENOSPC: Trouble.DISK_FULL, errno.EDQUOT: Trouble.DISK_FULL,
    errno.EROFS: Trouble.READ_ONLY,
}  # fmt: skip


class Health:
    """The state of the storage as a receiver meets it. Safe for many threads."""

    def __init__(self, data_dir: Path, clock: Clock) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / JOURNAL
        self._clock = clock
        self._lock = threading.Lock()
        self._note: LogFile | None = None
        self._since_s = 0.0
        self.trouble: Trouble | None = None
        self.studies_in_work = 0
        """Their results still need room."""

    def open(self) -> None:
        """Make the note that others read; those of receivers that are gone are deleted.

        Raises:
            StoreError: the disk refused.
        """
        ensure_dir(self._folder)
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another receiver was first
                if _read_note(path) is None:
                    remove(path)
        note = LogFile(self._folder / f"{os.urandom(8).hex()}.new", _NOTE_BYTES)
        note.lock()  # before it has its name: who reads it never finds it unlocked
        note.rename(self._folder / f"{os.urandom(8).hex()}{_SUFFIX}")
        self._note = note

    def close(self) -> None:
        """Take the note away."""
        note, self._note = self._note, None
        if note is not None:
            note.close()
            try:
                remove(note.path)
            except StoreError as error:
                log.warning("note cannot be deleted", extra={"problem": str(error)})

    def check(self, more_bytes: int) -> None:
        """See that the disk has room for so many bytes and takes them.

        Raises:
            StorageTrouble: it has not or does not.
            OSError: it does not answer.
        """
        if self.trouble is Trouble.SYNC_FAILED:
            raise StorageTrouble(Trouble.SYNC_FAILED)
        if trouble := disk_of(self._data_dir).trouble(more_bytes, self.studies_in_work):
            raise StorageTrouble(trouble)

    def failed(self, error: Exception) -> None:
        """Note an error of the storage; it is logged when it is a new one."""
        trouble = trouble_of(error)
        with self._lock:
            if trouble in (None, self.trouble) or self.trouble is Trouble.SYNC_FAILED:
                return
            self._turn(trouble)
        log.error("storage unhealthy", extra={"trouble": str(trouble), "problem": str(error)})

    def share_failed_sync(self) -> None:
        """Take over a failed sync from the receivers beside this one: it is one disk.

        Raises:
            OSError: the notes cannot be read.
        """
        if Trouble.SYNC_FAILED in _troubles_met(self._folder):
            self.failed(StorageTrouble(Trouble.SYNC_FAILED))

    def well(self) -> None:
        """Note that instances can be stored. A failed sync is not made good by it."""
        with self._lock:
            if self.trouble in (None, Trouble.SYNC_FAILED):
                return
            before, since_s = self.trouble, self._since_s
            self._turn(None)
        lasted_s = round(self._clock.now_s() - since_s)
        log.warning("storage healthy", extra={"trouble": str(before), "lasted_s": lasted_s})

    def _turn(self, trouble: Trouble | None) -> None:
        self.trouble, self._since_s = trouble, self._clock.now_s()
        if self._note is None:
            return
        told = {} if trouble is None else {"trouble": trouble, "since_s": self._since_s}
        try:
            self._note.write_at(0, [json.dumps(told).encode().ljust(_NOTE_BYTES)])
        except StoreError as error:
            log.warning("note cannot be written", extra={"problem": str(error)})


@dataclass(frozen=True)
class StorageState:
    """The storage as anybody sees it now. ``trouble`` None: it is well."""

    trouble: Trouble | None
    since_s: float | None
    free_bytes: int
    total_bytes: int

    def as_dict(self) -> dict[str, object]:
        """Return the state as plain values: what is wrong and what to do, in words."""
        words = None if self.trouble is None else TROUBLES[self.trouble]
        return {
            "state": "healthy" if words is None else "unhealthy", "problem": self.trouble,
            "message": words and words.message, "advice": words and words.advice,
            "since": iso(self.since_s), "free_bytes": self.free_bytes,
            "total_bytes": self.total_bytes,
        }  # fmt: skip


def storage_state(data_dir: Path) -> StorageState:
    """Look at the disk, and at what the receivers that live have met; the worst counts.

    Raises:
        OSError: there is no data folder, or its disk does not answer.
    """
    disk = disk_of(data_dir)
    met = _troubles_met(data_dir / JOURNAL)
    if (seen := disk.trouble()) is not None:
        met.setdefault(seen, None)
    worst = next((trouble for trouble in Trouble if trouble in met), None)
    since_s = None if worst is None else met[worst]
    return StorageState(worst, since_s, disk.free_bytes, disk.total_bytes)


def _read_note(path: Path) -> bytes | None:
    """Return a note; None where its receiver is gone."""
    with path.open("rb") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return note.read(_NOTE_BYTES)
    return None


def _troubles_met(folder: Path) -> dict[Trouble, float | None]:
    """Return the troubles of the receivers that live, and since when."""
    met: dict[Trouble, float | None] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with contextlib.suppress(FileNotFoundError):  # its receiver ends
            told = json.loads((_read_note(path) or b"").rstrip(b"\0 ") or b"{}")
            if told:
                met[Trouble(told["trouble"])] = told["since_s"]
    return met
