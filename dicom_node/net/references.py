"""Data sets of the Storage Commitment Push Model (PS3.4 Tables J.3-1 and J.3-2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_node.domain.identity import is_uid

COMMIT_ACTION = 1
"""Action Type ID of a request (PS3.4 J.3.2)."""
ALL_KEPT = 1
SOME_FAILED = 2
"""Event Type IDs of a report (PS3.4 J.3.3)."""
MAX_REFERENCES = 10_000
"""Longest list taken from a peer (G5)."""


class MalformedReference(Exception):
    """A commitment data set that cannot be understood; the message quotes nothing of it."""


@dataclass(frozen=True)
class Report:
    """What a storage commitment SCP keeps: SOP Instance UIDs, and Failure Reasons of the rest."""

    transaction_uid: str
    kept: Mapping[str, str] = field(default_factory=dict)
    """SOP Instance UID to SOP Class UID"""
    failed: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)
    """SOP Instance UID to SOP Class UID and Failure Reason (0008,1197)"""

    @property
    def event_type(self) -> int:
        """Event Type ID."""
        return SOME_FAILED if self.failed else ALL_KEPT


def request_dataset(transaction_uid: str, references: Iterable[tuple[str, str]]) -> Dataset:
    """Return the action information of an N-ACTION; references: (SOP class, SOP instance)."""
    asked = Dataset()
    asked.TransactionUID = UID(transaction_uid)
    asked.ReferencedSOPSequence = [_item(sop_class, uid) for sop_class, uid in references]
    return asked


def read_request(asked: Dataset) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return Transaction UID and references of an N-ACTION.

    Raises:
        MalformedReference: something is missing, is no UID, or the list is too long.
    """
    found = tuple((sop_class, uid) for sop_class, uid, _ in _items(asked, "ReferencedSOPSequence"))
    if not found:
        raise MalformedReference("Referenced SOP Sequence is empty")
    return _transaction(asked), found


def report_dataset(report: Report) -> Dataset:
    """Return the event information of an N-EVENT-REPORT."""
    told = Dataset()
    told.TransactionUID = UID(report.transaction_uid)
    if report.kept:
        told.ReferencedSOPSequence = [_item(name, uid) for uid, name in report.kept.items()]
    if report.failed:
        told.FailedSOPSequence = []
        for uid, (sop_class, reason) in report.failed.items():
            item = _item(sop_class, uid)
            item.FailureReason = reason
            told.FailedSOPSequence.append(item)
    return told


def read_report(told: Dataset) -> Report:
    """Return what an N-EVENT-REPORT says.

    Raises:
        MalformedReference: something is missing, is no UID, or a list is too long.
    """
    kept = {uid: sop_class for sop_class, uid, _ in _items(told, "ReferencedSOPSequence")}
    failed = {uid: (sop, reason) for sop, uid, reason in _items(told, "FailedSOPSequence")}
    return Report(_transaction(told), kept, failed)


def _item(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = UID(sop_class)
    item.ReferencedSOPInstanceUID = UID(sop_instance)
    return item


def _transaction(data: Dataset) -> str:
    uid = str(data.get("TransactionUID", "") or "")
    if not is_uid(uid):
        raise MalformedReference("Transaction UID is missing or no UID")
    return uid


def _items(data: Dataset, name: str) -> list[tuple[str, str, int | None]]:
    found = data.get(name) or []
    if len(found) > MAX_REFERENCES:
        raise MalformedReference(f"more than {MAX_REFERENCES} references")
    read = []
    for item in found:
        uids = [
            str(item.get(f"ReferencedSOP{what}UID", "") or "") for what in ("Class", "Instance")
        ]
        if not all(map(is_uid, uids)):
            raise MalformedReference("a reference is missing or no UID")
        reason = item.get("FailureReason")
        read.append((uids[0], uids[1], None if reason is None else int(reason)))
    return read
