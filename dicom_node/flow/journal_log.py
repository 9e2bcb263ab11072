"""The log files of the journal: how records lie in them, and how they are found again.

Record: head (see ``RECORD``), Part 10 preamble and meta information, data set; zeros to the page.
A record of an earlier use of the log carries another generation and is not one of this use.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import threading
import zlib
from dataclasses import dataclass, field

from dicom_node.durable import LogFile

log = logging.getLogger(__name__)

PAGE = 4096
_MAGIC = b"PDNLOG1\n"
MARK = b"PDNREC1\n"
_HEADER = struct.Struct("<8s16sI")  # magic, generation, CRC-32 of both
# mark, generation, sequence number, bytes of the Part 10 head, bytes and SHA-256 of the data set
RECORD = struct.Struct("<8s16sQIQ32s")
CRC = struct.Struct("<I")  # of the record head and the Part 10 head
RECORD_HEAD = RECORD.size + CRC.size
_MAX_FILE_HEAD = 64 * 1024


@dataclass
class Log:
    """A log in use. ``written`` and ``filed`` count records; guarded by the journal's lock."""

    file: LogFile
    generation: bytes
    end: int = PAGE
    written: int = 0
    filed: int = 0
    closed: bool = False
    synced: int = 0
    sync_lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Record:
    """Where an instance stands: a Part 10 file of ``size`` bytes at ``offset`` of a log."""

    log: Log
    sequence: int
    offset: int
    head_size: int
    data_size: int
    digest: str

    @property
    def size(self) -> int:
        """Bytes of the Part 10 file."""
        return self.head_size + self.data_size

    def read_head(self) -> bytes:
        """Read preamble and file meta information."""
        return self.log.file.read_at(self.offset, self.head_size)

    def read_data(self) -> bytes:
        """Read the data set."""
        return self.log.file.read_at(self.offset + self.head_size, self.data_size)


def read_log(file: LogFile) -> tuple[Log, list[Record]]:
    """Find the whole records of a log, in order.

    A damaged place is stepped over page by page: a record that was never acknowledged may be
    torn, and one that was must not be lost with its neighbour.
    """
    magic, generation, crc = _HEADER.unpack(
        file.read_at(0, PAGE)[: _HEADER.size].ljust(_HEADER.size)
    )
    used = Log(file, generation)
    if magic != _MAGIC or crc != zlib.crc32(magic + generation):
        return used, []
    records: list[Record] = []
    torn = 0
    at = PAGE
    while at + RECORD_HEAD <= file.size:
        record = _record_at(used, at)
        if record is None:
            torn += file.read_at(at, len(MARK) + 16) == MARK + generation
            at += PAGE
        else:
            records.append(record)
            at += pages(RECORD_HEAD + record.size)
    if torn:
        log.error("journal records that are not whole", extra={"records": torn})
    return used, records


def _record_at(used: Log, at: int) -> Record | None:
    fixed = used.file.read_at(at, RECORD_HEAD)
    mark, generation, sequence, head_size, data_size, digest = RECORD.unpack_from(fixed)
    size = head_size + data_size
    if (mark, generation) != (MARK, used.generation) or head_size > _MAX_FILE_HEAD:
        return None
    if at + RECORD_HEAD + size > used.file.size:
        return None
    record = Record(used, sequence, at + RECORD_HEAD, head_size, data_size, digest.hex())
    (crc,) = CRC.unpack_from(fixed, RECORD.size)
    if crc != zlib.crc32(record.read_head(), zlib.crc32(fixed[: RECORD.size])):
        return None
    if hashlib.sha256(record.read_data()).digest() != digest:
        return None
    return record


def blank(file: LogFile) -> None:
    """Make a log one that holds nothing, durably."""
    file.write_at(0, [bytes(_HEADER.size)])
    file.sync()


def log_header(generation: bytes) -> bytes:
    """Return what a log begins with."""
    return _HEADER.pack(_MAGIC, generation, zlib.crc32(_MAGIC + generation))


def pages(size: int) -> int:
    """Return a size rounded up to whole pages."""
    return -(-size // PAGE) * PAGE
