"""The journal of the receive path: what is acknowledged stands here first.

One record is one instance as a Part 10 file, with its digest, at a page boundary of a log file
that was written before (`dicom_node.durable.LogFile`): making it durable is one ``fdatasync``,
shared by all associations that wait for one. Records become spool files and rows in batches
(`dicom_node.flow.filing`); a log whose records all are is emptied and used again. What a crash
leaves in a log is filed at the next start, before the port opens.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node.clock import SystemClock
from dicom_node.crash_points import fault
from dicom_node.durable import LogFile, ensure_dir, remove
from dicom_node.errors import StoreError
from dicom_node.flow.health import StorageTrouble, Trouble
from dicom_node.flow.journal_log import (
    CRC,
    MARK,
    PAGE,
    RECORD,
    RECORD_HEAD,
    Log,
    Record,
    blank,
    log_header,
    pages,
    read_log,
)

__all__ = ["PAGE", "RECORD_HEAD", "Journal", "JournalLimits", "Log", "Record", "read_log"]

log = logging.getLogger(__name__)
_CLOCK = SystemClock()

_SUFFIX = ".log"
_MAKING = "new-"
_LEAST_LOG_BYTES = 2**20
_LEFT_AT_A_TIME = 1000
_READY_LOGS = 3
"""One is written, one is filed, one is next: with so many a steady stream makes no more."""


@dataclass(frozen=True)
class JournalLimits:
    """Bounds of the journal (G5)."""

    log_bytes: int = 16 * 2**20
    """size of a log file; a larger instance gets a log of its own"""
    total_bytes: int = 256 * 2**20
    """records not yet filed; beyond it an instance waits, then is refused"""
    kept_logs: int = 4
    """emptied logs kept for the next use"""
    wait_s: float = 10.0
    """for room"""
    writers: int = 1
    """receivers of this node that write journals beside each other; the other bounds are of each"""

    @property
    def others_bytes(self) -> int:
        """What may wait in the journals of the others."""
        return (self.writers - 1) * self.total_bytes

    def shared(self, writers: int) -> JournalLimits:
        """Return the bounds of each of several receivers that keep these together."""
        return replace(
            self, writers=writers, total_bytes=self.total_bytes // writers,
            log_bytes=max(_LEAST_LOG_BYTES, self.log_bytes // writers // PAGE * PAGE),
        )  # fmt: skip


class Journal:
    """The logs of one receiver. Safe for many threads.

    Args:
        folder: where the logs are; several receivers can share it, each locks its own.
        limits: bounds.
        tell: hears of errors that nobody else does.

    Raises:
        StoreError: the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        limits: JournalLimits | None = None,
        tell: Callable[[Exception], None] | None = None,
    ) -> None:
        self._folder = folder
        self._tell = tell or (lambda _: None)
        self._limits = limits or JournalLimits()
        self._lock = threading.Condition()
        self._active: Log | None = None
        self._empty: list[LogFile] = []
        self._open: set[LogFile] = set()
        self._sequence = 0
        self._waiting_bytes = 0
        ensure_dir(folder)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the instances not yet filed."""
        return self._waiting_bytes

    def make_ready(self) -> None:
        """Make logs for the first instances, so that none of them waits for one.

        Raises:
            StoreError: the disk refused.
        """
        with self._lock:
            while len(self._empty) < min(_READY_LOGS, self._limits.kept_logs):
                self._empty.append(self._make(self._limits.log_bytes))

    def probe(self) -> None:
        """Write to a log that is not in use, and sync it.

        Raises:
            StoreError: the disk refused.
        """
        with self._lock:
            if not self._empty:
                self._empty.append(self._make(self._limits.log_bytes))
                return  # written and synced
            file = self._empty.pop()
            try:
                blank(file)
            except StoreError:
                self._drop(file)
                raise
            self._empty.append(file)

    def append(self, head: bytes, data: bytes, digest: bytes) -> Record:
        """Write one instance; it is durable when this returns.

        Args:
            head: Part 10 preamble and meta information.
            data: the data set as received.
            digest: SHA-256 of ``data``.

        Raises:
            StoreError: the journal stays full, or the disk refused.
        """
        size = RECORD_HEAD + len(head) + len(data)
        with self._lock:
            self._wait_for_room(size)
            record = self._write(head, data, digest, pages(size))
            number = record.log.written
        try:
            fault("record-written")
            self._sync(record.log, number)
        except StoreError:
            self.give_up(record)
            raise
        fault("record-synced")
        return record

    def _wait_for_room(self, size: int) -> None:
        def room() -> bool:
            waiting = self._waiting_bytes
            return waiting == 0 or waiting + size <= self._limits.total_bytes

        if not self._lock.wait_for(room, self._limits.wait_s):
            raise StorageTrouble(Trouble.ROWS_WAIT)

    def _write(self, head: bytes, data: bytes, digest: bytes, size: int) -> Record:
        target = self._active
        if target is None or target.file.broken or target.end + size > target.file.size:
            target = self._next(size)
        # the time: what several receivers left is filed in order of arrival
        self._sequence = max(self._sequence + 1, int(_CLOCK.now_s() * 1e6))
        fixed = RECORD.pack(
            MARK, target.generation, self._sequence, len(head), len(data), digest
        )  # fmt: skip
        crc = CRC.pack(zlib.crc32(head, zlib.crc32(fixed)))
        rest = size - RECORD_HEAD - len(head) - len(data)
        try:
            target.file.write_at(target.end, [fixed, crc, head, data, bytes(rest)])
        except StoreError:
            self._active = None
            target.closed = True
            self._empty_if_done(target)
            raise
        offset = target.end + RECORD_HEAD
        target.end += size
        target.written += 1
        self._waiting_bytes += len(head) + len(data)
        return Record(target, self._sequence, offset, len(head), len(data), digest.hex())

    def _next(self, size: int) -> Log:
        """Close the log in use and begin another with room for ``size`` bytes."""
        if self._active is not None:
            self._active.closed = True
            self._empty_if_done(self._active)
        self._active = None
        file = next((one for one in self._empty if one.size >= PAGE + size), None)
        if file is None:
            file = self._make(max(self._limits.log_bytes, PAGE + size))
        else:
            self._empty.remove(file)
        generation = os.urandom(16)
        try:
            file.write_at(0, [log_header(generation)])
        except StoreError:
            self._drop(file)
            raise
        self._active = Log(file, generation)
        return self._active

    def _make(self, size: int) -> LogFile:
        """Make a log. It has its name when it is ours and whole: others look for leftovers."""
        name = os.urandom(8).hex()
        file = LogFile(self._folder / f"{_MAKING}{name}{_SUFFIX}", size)
        try:
            file.rename(self._folder / f"{name}{_SUFFIX}", durable=True)
        except StoreError:
            file.close()
            raise
        self._open.add(file)
        return file

    def _sync(self, target: Log, number: int) -> None:
        """Wait until record ``number`` of a log is durable: one sync serves all that wait."""
        with target.sync_lock:
            if target.synced >= number:
                return
            written = target.written
            target.file.sync()
            target.synced = written

    def filed(self, records: list[Record]) -> None:
        """Note that instances have their files and rows, both durable."""
        with self._lock:
            for record in records:
                record.log.filed += 1
                self._waiting_bytes -= record.size
            for used in {id(record.log): record.log for record in records}.values():
                self._empty_if_done(used)
            self._lock.notify_all()

    def give_up(self, record: Record) -> None:
        """Take back a record that could not be made durable. Its log is used no more."""
        with self._lock:
            record.log.closed = True
            if self._active is record.log:
                self._active = None
        self.filed([record])

    def _empty_if_done(self, used: Log) -> None:
        """Take back a log whose records all are filed."""
        if used.filed < used.written or (not used.closed and used is not self._active):
            return
        if self._active is used:
            self._active = None
        used.closed = True
        self._take_back(used.file)

    def _take_back(self, file: LogFile) -> None:
        """Mark a log as empty and keep it, or delete it."""
        keep = not file.broken and file.size == self._limits.log_bytes
        if keep and len(self._empty) < self._limits.kept_logs:
            try:
                blank(file)  # or a crash would bring back what was deleted since
                self._empty.append(file)
                fault("log-emptied")
                return
            except StoreError as error:
                self._tell(error)
                log.error("journal log fails", extra={"problem": str(error)})
        self._drop(file)

    def _drop(self, file: LogFile) -> None:
        self._open.discard(file)
        try:
            remove(file.path)  # before it is let go, or another receiver finds it
        except StoreError as error:
            log.error("journal log cannot be deleted", extra={"problem": str(error)})
        file.close()

    def leftovers(self) -> Iterator[list[Record]]:
        """Yield what a crash left, in order of arrival; a log is emptied when all of it is filed.

        The logs of receivers that live are theirs.
        """
        taken: list[LogFile] = []
        found = []
        try:
            for file in self._logs_of_nobody():
                taken.append(file)
                found.append(read_log(file))
        except BaseException:
            for file in taken:
                file.close()  # or nobody could take them while this process lives
            raise
        with self._lock:
            self._open.update(used.file for used, _ in found)
            for used, records in found:
                used.closed = True
                used.written = len(records)
                self._waiting_bytes += sum(record.size for record in records)
                if not records:
                    self._take_back(used.file)
        for file in self._logs_of_nobody(unmade=True):
            try:
                remove(file.path)
            except StoreError as error:
                log.error("journal log cannot be deleted", extra={"problem": str(error)})
            file.close()
        whole = sorted((r for _, records in found for r in records), key=lambda r: r.sequence)
        for start in range(0, len(whole), _LEFT_AT_A_TIME):
            yield whole[start : start + _LEFT_AT_A_TIME]

    def _logs_of_nobody(self, *, unmade: bool = False) -> Iterator[LogFile]:
        """Take the logs whose receiver is gone; or those that were never whole."""
        with self._lock:
            ours = {file.path for file in self._open}
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path in ours or path.name.startswith(_MAKING) is not unmade:
                continue
            file = _opened(path)
            if file is None:
                continue
            # without a size: made just now; to try its lock would take it from its maker
            if file.size and file.lock() and path.exists():
                yield file
            else:
                file.close()

    def close(self) -> None:
        """Close the logs. What is not filed stays in them for the next start."""
        with self._lock:
            for file in self._open:
                file.close()
            self._open.clear()
            self._empty = []
            self._active = None


def _opened(path: Path) -> LogFile | None:
    try:
        return LogFile(path)
    except StoreError:
        if path.exists():
            raise
        return None  # its receiver has just deleted it
