"""From the journal to the spool and the database: files and rows follow in batches.

Order of a batch: files copied out of the journal (temporary name, rename), one sync for all of
them, one commit for all rows, then the journal may forget the records. Whatever ends the process
between two steps, the records are still there, and to file a record again changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.crash_points import fault
from dicom_node.dicom.header import HeaderError, InstanceHeader, read_header
from dicom_node.domain.annotation import ANNOTATION_CLASSES
from dicom_node.durable import SyncBatch, ensure_dir
from dicom_node.errors import StoreError
from dicom_node.flow.health import StorageTrouble, Trouble
from dicom_node.flow.journal import Journal, Record
from dicom_node.flow.spool import (
    IMAGE_CLASSES,
    SPOOL,
    Source,
    instance_row,
    parse_stored,
    read_stored,
)
from dicom_node.results.recognise import is_own_object
from dicom_node.store.rows import IngestOutcome, InstanceRow
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

BATCH = 256
"""Instances in one transaction at most."""
LINGER_S = 0.2
"""How long the first instance of a batch waits for others."""
PATIENCE_S = 60.0
"""Rows that do not follow for so long: nothing more is acknowledged."""
_RETRY_S = (0.2, 1.0, 5.0)


@dataclass(frozen=True)
class Entry:
    """An instance in the journal, and what its row is made of."""

    record: Record
    header: InstanceHeader
    transfer_syntax_uid: str
    source: Source
    left_over: bool = False
    """found in the journal of a receiver that is gone"""

    def row(self) -> InstanceRow:
        """Build its row."""
        record = self.record
        return instance_row(
            self.header, self.transfer_syntax_uid, record.digest, record.data_size, self.source
        )


class Filing:
    """Files instances in their order of arrival, in one thread or where ``file_all`` is called."""

    def __init__(
        self,
        store: Store,
        data_dir: Path,
        clock: Clock,
        journal: Journal,
        tell: Callable[[Exception], None] | None = None,
    ) -> None:
        self._store = store
        self._data_dir = data_dir
        self._clock = clock
        self._journal = journal
        self._tell = tell or (lambda _: None)
        self._queue: deque[Entry] = deque()
        self._some = threading.Event()
        self._many = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing_since_s: float | None = None
        self._filing = threading.Lock()

    # from the receive path

    def add(self, entry: Entry) -> None:
        """Queue an instance that is durable in the journal."""
        self._queue.append(entry)
        if not self._some.is_set():
            self._some.set()
        if len(self._queue) >= BATCH:
            self._many.set()

    def check(self) -> None:
        """See that rows follow.

        Raises:
            StorageTrouble: they have not for ``PATIENCE_S``.
        """
        since_s = self._failing_since_s
        if since_s is not None and self._clock.monotonic_s() - since_s > PATIENCE_S:
            raise StorageTrouble(Trouble.ROWS_WAIT)

    @property
    def failing(self) -> bool:
        """Whether the last batch could not be filed."""
        return self._failing_since_s is not None

    # the thread

    def start(self) -> None:
        """File in a thread of its own until ``stop``."""
        self._thread = threading.Thread(target=self._run, name="filing", daemon=True)
        self._thread.start()

    def stop(self, limit_s: float) -> None:
        """File what is queued, within a limit; the rest stays in the journal."""
        self._stop.set()
        for event in (self._some, self._many):
            event.set()
        if self._thread is not None:
            self._thread.join(limit_s)

    def _run(self) -> None:
        failures = 0
        while True:
            self._some.wait()
            self._many.wait(LINGER_S if failures == 0 else 0)
            self._many.clear()
            self._some.clear()
            try:
                self.file_all()
                failures = 0
                if self._queue:
                    self._some.set()
            except Exception as error:  # the thread must live: the next try may go well
                log.error("instances cannot be filed", extra={"problem": str(error)})
                self._stop.wait(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1
                self._some.set()
            if self._stop.is_set() and (failures or not self._queue):
                return

    # filing

    def file_all(self) -> None:
        """File what is queued now; what comes meanwhile makes the next batch.

        Raises:
            StoreError: disk or database refused; what is not filed stays queued.
        """
        with self._filing:
            left = len(self._queue)
            while left > 0:
                batch = [self._queue[n] for n in range(min(BATCH, left))]
                left -= len(batch)
                try:
                    self._file(batch)
                except Exception as error:
                    self._tell(error)
                    if self._failing_since_s is None:
                        self._failing_since_s = self._clock.monotonic_s()
                    raise
                self._failing_since_s = None
                for _ in batch:
                    self._queue.popleft()
                self._journal.filed([entry.record for entry in batch])

    def _file(self, batch: Sequence[Entry]) -> None:
        kept = [entry for entry in batch if not self._note_own(entry)]
        if not kept:
            return
        rows = [entry.row() for entry in kept]
        self._write_files(dict(zip((row.path for row in rows), kept, strict=True)))
        outcomes = self._store.add_instances(rows)
        fault("rows-committed")
        again = (IngestOutcome.RESTORED, IngestOutcome.CONFLICT)
        self._write_files(
            {
                row.path: entry
                for row, entry, outcome in zip(rows, kept, outcomes, strict=True)
                # retention may have deleted the file before the row came
                if outcome in again and not (self._data_dir / row.path).is_file()
            }
        )
        if aside := outcomes.count(IngestOutcome.CONFLICT):
            log.warning("second copies with other bytes kept aside", extra={"copies": aside})

    def _note_own(self, entry: Entry) -> bool:
        """Own objects that come back are noted and not kept.

        A report or segmentation with our equipment and a UID that is not known may be an edited
        copy: it is kept (docs/decisions/0016).
        """
        header = entry.header
        if header.sop_class_uid in IMAGE_CLASSES:
            return False
        own = header.sop_class_uid not in ANNOTATION_CLASSES and is_own_object(
            header.manufacturer, header.model
        )
        if not own and not self._store.known_result(header.sop_instance_uid):
            return False
        self._store.record_own_object(
            header.study_uid, header.sop_instance_uid, entry.source.calling_ae
        )
        return True

    def _write_files(self, entries: Mapping[str, Entry]) -> None:
        """Copy records to their paths and sync them; what a row counts on already is there.

        Where a crash left a record, it is looked at: a second copy that came by another receiver
        may have replaced the file, and a power cut may have kept that from the disk.
        """
        known = self._store.known_paths(list(entries)) if entries else set()
        new = {
            path: entry.record
            for path, entry in entries.items()
            if path not in known
            or not (self._data_dir / path).is_file()
            or (entry.left_over and not self._is_whole(path, entry.record))
        }
        if not new:
            return
        sync = SyncBatch(self._data_dir / SPOOL)
        try:
            for path, record in new.items():
                self._copy(record, self._data_dir / path)
            sync.sync(self._data_dir / path for path in new)
        finally:
            sync.close()

    @staticmethod
    def _copy(record: Record, place: Path) -> None:
        for last in (False, True):
            ensure_dir(place.parent)
            try:
                record.log.file.copy_to(place, record.offset, record.size)
            except StoreError as error:
                # retention deletes a folder that is empty: once more
                if last or not isinstance(error.__cause__, FileNotFoundError):
                    raise
            else:
                return

    def _is_whole(self, path: str, record: Record) -> bool:
        try:
            place = self._data_dir / path
            data = place.read_bytes()[read_stored(place).dataset_offset :]
        except (OSError, ValueError):
            return False
        return hashlib.sha256(data).hexdigest() == record.digest

    def file_leftovers(self) -> int:
        """File what a crash left in the journal; returns how many instances that were.

        Raises:
            StoreError: disk or database refused.
        """
        count, failed = 0, None
        for records in self._journal.leftovers():
            for record in records:
                entry = read_entry(record)
                if entry is None:
                    log.error("a journal record is no instance", extra={"log": str(record.log)})
                    self._journal.filed([record])
                    continue
                self._queue.append(entry)
                count += 1
            try:
                if failed is None:
                    self.file_all()
            except Exception as error:
                failed = error  # the rest is queued too: nobody would look for it again
        if failed is not None:
            self._some.set()  # the thread tries again: perhaps nothing new comes that would wake it
            raise failed
        return count


def read_entry(record: Record) -> Entry | None:
    """Read back an instance from its journal record alone; None where they are no instance."""
    try:
        stored = parse_stored(record.read_head())
        header = read_header(record.read_data(), stored.transfer_syntax_uid)
    except (ValueError, HeaderError):
        return None
    return Entry(record, header, stored.transfer_syntax_uid, stored.source, left_over=True)
