"""The receive path, all of it. Success is answered only for what survives a power cut (G1).

Order: parse the header (bounded, no pixels), check it against the command, write the bytes as
received to the journal, sync the journal, answer. The file in the spool and the row follow in
batches, within a fraction of a second; a crash between is made good at the next start, before the
port opens (docs/decisions/0012).

A second copy of an instance with other bytes is kept aside, durable like the first, and answered
with success: whether it differs in content is judged afterwards, away from the network
(`dicom_node.flow.judge`), and a copy that contradicts holds the study.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.crash_points import fault
from dicom_node.dicom.header import HeaderError, InstanceHeader, read_header
from dicom_node.domain.identity import is_uid
from dicom_node.domain.status import (
    CANNOT_UNDERSTAND,
    CLASS_MISMATCH,
    INVALID_INSTANCE,
    OUT_OF_RESOURCES,
    SUCCESS,
)
from dicom_node.durable import ensure_dir
from dicom_node.errors import StoreError
from dicom_node.flow.filing import Entry, Filing
from dicom_node.flow.health import TROUBLES, Health, trouble_of
from dicom_node.flow.journal import Journal, JournalLimits
from dicom_node.flow.spool import JOURNAL, SPOOL, Source, file_header
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

STOP_S = 20.0
WATCH_S = 2.0
"""How often the storage is looked at, whether or not something comes."""


@dataclass(frozen=True)
class IngestAnswer:
    """DIMSE status and comment of a C-STORE."""

    status: int
    comment: str = ""
    study_uid: str = ""
    patient_id: str = ""


class _Refused(Exception):
    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.answer = IngestAnswer(status, comment[:64])  # Error Comment (0000,0902) is LO


class Ingest:
    """Takes instances in. Safe for many threads, and for many receivers on one database.

    Files and rows follow in a thread between ``start`` and ``stop``; without it where
    ``file_pending`` is called.
    """

    def __init__(
        self, store: Store, data_dir: Path, clock: Clock, limits: JournalLimits | None = None
    ) -> None:
        self._data_dir = data_dir
        self._clock = clock
        ensure_dir(data_dir / SPOOL)
        self.health = Health(data_dir, clock)
        self._limits = limits or JournalLimits()
        self._journal = Journal(data_dir / JOURNAL, self._limits, self.health.failed)
        self._filing = Filing(store, data_dir, clock, self._journal, self.health.failed)
        self._store = store
        self._in_flight_bytes = 0
        self._in_flight = threading.Lock()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._look_often, name="storage-watch", daemon=True)

    def start(self) -> None:
        """File what a crash left, then file what comes in a thread. Before the port opens.

        Raises:
            StoreError: disk or database refused.
        """
        if restored := self._filing.file_leftovers():
            log.warning("instances filed from the journal", extra={"instances": restored})
        self._journal.make_ready()
        self.health.open()
        self._filing.start()
        self._watch.start()

    def stop(self) -> None:
        """File what is left and end; what cannot be filed in time stays in the journal."""
        self._stop.set()
        if self._watch.is_alive():
            self._watch.join(STOP_S)
        self._filing.stop(STOP_S)
        self._journal.close()
        self.health.close()

    def file_pending(self) -> None:
        """File everything now.

        Raises:
            StoreError: disk or database refused.
        """
        self._filing.file_all()

    def accept(
        self,
        *,
        dataset_bytes: bytes,
        transfer_syntax_uid: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        calling_ae: str = "",
        called_ae: str = "",
        address: str = "",
    ) -> IngestAnswer:
        """Take one instance of a C-STORE; never raises for what came over the wire."""
        source = Source(calling_ae, called_ae, address, self._clock.now_s())
        try:
            if not is_uid(sop_instance_uid):
                raise _Refused(INVALID_INSTANCE, "the SOP Instance UID is not a UID")
            header = _header(dataset_bytes, transfer_syntax_uid)
            _check(header, sop_class_uid, sop_instance_uid)
            fault("instance-parsed")
            self._take(header, dataset_bytes, transfer_syntax_uid, source)
        except _Refused as refused:
            return refused.answer
        except (StoreError, OSError) as error:
            self.health.failed(error)  # which logs it once, however many instances meet it
            trouble = trouble_of(error)
            words = "cannot store now" if trouble is None else TROUBLES[trouble].message
            return IngestAnswer(OUT_OF_RESOURCES, words)
        return IngestAnswer(SUCCESS, study_uid=header.study_uid, patient_id=header.patient_id)

    def _take(
        self, header: InstanceHeader, data: bytes, transfer_syntax_uid: str, source: Source
    ) -> None:
        self._filing.check()
        digest = hashlib.sha256(data).digest()
        head = file_header(
            header.sop_class_uid, header.sop_instance_uid, transfer_syntax_uid, source
        )
        self._count(len(data))
        try:
            self.health.check(self._waiting_bytes + self._in_flight_bytes)
            record = self._journal.append(head, data, digest)
        finally:
            self._count(-len(data))
        self._filing.add(Entry(record, header, transfer_syntax_uid, source))

    def _count(self, more_bytes: int) -> None:
        """Count what is being taken in: each of many needs its room."""
        with self._in_flight:
            self._in_flight_bytes += more_bytes

    @property
    def _waiting_bytes(self) -> int:
        """What waits in the journals and needs its room in the spool too."""
        return self._journal.waiting_bytes + self._limits.others_bytes

    def look(self) -> None:
        """See whether an instance could be stored now; what keeps it from that is shown to all."""
        try:
            if self._limits.writers > 1:
                self._look_at_others()
            self._filing.check()
            self.health.check(self._waiting_bytes)
            if self.health.trouble is not None:
                self._journal.probe()
        except (StoreError, OSError) as error:
            self.health.failed(error)
        else:
            if not self._filing.failing:
                self.health.well()
        with contextlib.suppress(StoreError):  # the database does not answer: as before
            self.health.studies_in_work = self._store.studies_in_work()

    def _look_at_others(self) -> None:
        """File what a receiver left that is gone; a sync that failed is the trouble of all."""
        self.health.share_failed_sync()
        if restored := self._filing.file_leftovers():
            log.warning("instances filed from the journal", extra={"instances": restored})

    def _look_often(self) -> None:
        while not self._stop.wait(WATCH_S):
            try:
                self.look()
            except Exception:  # nobody would start this thread again
                log.exception("storage was not looked at")


def _header(data: bytes, transfer_syntax_uid: str) -> InstanceHeader:
    try:
        return read_header(data, transfer_syntax_uid)
    except HeaderError as error:
        raise _Refused(CANNOT_UNDERSTAND, str(error.message)) from None


def _check(header: InstanceHeader, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Compare the data set with the command (PS3.4 B.2.3, Table B.2-1)."""
    if (header.sop_class_uid, header.sop_instance_uid) != (sop_class_uid, sop_instance_uid):
        raise _Refused(CLASS_MISMATCH, "command and data set name other SOP UIDs")
    uids = (
        ("SOP Class", header.sop_class_uid), ("Study Instance", header.study_uid),
        ("Series Instance", header.series_uid),
    )  # fmt: skip
    for name, value in uids:
        if not is_uid(value):
            raise _Refused(CANNOT_UNDERSTAND, f"the {name} UID is not a UID")
