"""The receive path, all of it. Success is answered only for what survives a power cut (G1).

Order: parse the header (bounded, no pixels), check it against the command, write the bytes as
received (temporary file, fsync, rename, fsync of the folder), commit the row, answer.

A second copy of an instance with other bytes is kept aside, durable like the first, and answered
with success: whether it differs in content is judged afterwards, away from the network
(`dicom_node.flow.judge`), and a copy that contradicts holds the study.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.dicom.header import HeaderError, InstanceHeader, read_header
from dicom_node.domain.identity import Identity, is_uid
from dicom_node.domain.status import (
    CANNOT_UNDERSTAND,
    CLASS_MISMATCH,
    INVALID_INSTANCE,
    OUT_OF_RESOURCES,
    SUCCESS,
)
from dicom_node.durable import ensure_dir, fault, free_bytes, write_file
from dicom_node.errors import StoreError
from dicom_node.flow.spool import SPOOL, Source, file_header, spool_path
from dicom_node.results.recognise import is_own_object
from dicom_node.store.rows import IngestOutcome, InstanceRow
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

IMAGE_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image
    }
)
"""What opens a revision; everything else is stored beside it."""

MIN_FREE_BYTES = 256 * 2**20
MIN_FREE_SHARE = 0.05
"""The disk counts as full below the smaller of the two: the database needs room to go on (G5)."""


@dataclass(frozen=True)
class IngestAnswer:
    """DIMSE status and comment of a C-STORE."""

    status: int
    comment: str = ""


class _Refused(Exception):
    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.answer = IngestAnswer(status, comment[:64])  # Error Comment (0000,0902) is LO


class Ingest:
    """Takes instances in. Safe for many threads, and for many receivers on one database."""

    def __init__(self, store: Store, data_dir: Path, clock: Clock) -> None:
        self._store = store
        self._data_dir = data_dir
        self._clock = clock
        ensure_dir(data_dir / SPOOL)

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
            return self._take(header, dataset_bytes, transfer_syntax_uid, source)
        except _Refused as refused:
            return refused.answer
        except (StoreError, OSError) as error:
            log.error("instance not stored", extra={"problem": str(error)})
            return IngestAnswer(OUT_OF_RESOURCES, "cannot store now")

    def _take(
        self, header: InstanceHeader, data: bytes, transfer_syntax_uid: str, source: Source
    ) -> IngestAnswer:
        if self._is_own(header):
            self._store.record_own_object(
                header.study_uid, header.sop_instance_uid, source.calling_ae
            )
            return IngestAnswer(SUCCESS)
        digest = hashlib.sha256(data).hexdigest()
        kept = self._store.find_instance(header.study_uid, header.sop_instance_uid)
        if kept is not None and (kept.dataset_digest, kept.transfer_syntax_uid) == (
            digest, transfer_syntax_uid,
        ):  # fmt: skip
            return IngestAnswer(SUCCESS)
        row = instance_row(header, transfer_syntax_uid, digest, len(data), source)
        self._write(row, data, source)
        fault("instance-stored")
        outcome = self._store.add_instance(row)
        fault("row-committed")
        if outcome is IngestOutcome.CONFLICT:
            log.warning("second copy with other bytes kept aside")
        return IngestAnswer(SUCCESS)

    def _is_own(self, header: InstanceHeader) -> bool:
        if header.sop_class_uid in IMAGE_CLASSES:
            return False
        return is_own_object(header.manufacturer, header.model) or self._store.known_result(
            header.sop_instance_uid
        )

    def _write(self, row: InstanceRow, data: bytes, source: Source) -> None:
        """Make the file durable. Its name holds its digest: two writers cannot mix copies."""
        free, total = free_bytes(self._data_dir)
        if free - len(data) < min(MIN_FREE_BYTES, MIN_FREE_SHARE * total):
            raise _Refused(OUT_OF_RESOURCES, "the disk is nearly full")
        path = self._data_dir / row.path
        ensure_dir(path.parent)
        head = file_header(row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, source)
        write_file(path, [head, data])


def instance_row(
    header: InstanceHeader, transfer_syntax_uid: str, digest: str, size: int, source: Source
) -> InstanceRow:
    """Build the row of an instance from its header and its source."""
    return InstanceRow(
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        role="image" if header.sop_class_uid in IMAGE_CLASSES else "other",
        identity=Identity.of(header.patient_id, header.issuer, header.birth_date),
        header_json=header.to_json(),
        dataset_digest=digest,
        path=spool_path(header.study_uid, header.sop_instance_uid, transfer_syntax_uid, digest),
        size=size,
        received_at_s=source.received_at_s,
        calling_ae=source.calling_ae,
        called_ae=source.called_ae,
        address=source.address,
    )


def _header(data: bytes, transfer_syntax_uid: str) -> InstanceHeader:
    try:
        return read_header(data, transfer_syntax_uid)
    except HeaderError as error:
        raise _Refused(CANNOT_UNDERSTAND, str(error.message)) from None


def _check(header: InstanceHeader, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Compare the data set with the command (PS3.4 B.2.3, Table B.2-1)."""
    if (header.sop_class_uid, header.sop_instance_uid) != (sop_class_uid, sop_instance_uid):
        raise _Refused(CLASS_MISMATCH, "command and data set name other SOP UIDs")
    for name, value in (("Study", header.study_uid), ("Series", header.series_uid)):
        if not is_uid(value):
            raise _Refused(CANNOT_UNDERSTAND, f"the {name} Instance UID is not a UID")
