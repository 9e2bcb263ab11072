"""The audit trail: append-only records, each chained to the one before by SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from dicom_node.domain.audit import AuditMessage, printable, to_xml
from dicom_node.store.base import Database
from dicom_node.store.rows import AuditCheck, AuditRow
from dicom_node.store.schema import audit, audit_state, studies

GENESIS = "0" * 64
"""Stands for the record before the first."""
_BATCH = 1000


def record_hash(previous: str, number: int, at_s: float, event: str, subject: str, xml: str) -> str:
    """Return the hash that chains a record: over the one before and everything the record says."""
    parts = [previous, str(number), repr(at_s), event, subject, xml]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class AuditStore(Database):
    """Transactions of the audit trail."""

    def audit_append(self, messages: Sequence[AuditMessage], source_id: str) -> None:
        """Add records at the end of the chain, all of them or none."""
        written = [(one, to_xml(one, source_id)) for one in messages]
        with self._write() as db:
            # one writer at a time: the row of the head is the lock (SQLite locks everything)
            state = db.execute(select(audit_state).with_for_update()).one()
            number, head = state.head_id, state.head_hash
            for message, xml in written:
                number += 1
                subject = printable(message.subject)[:255]
                values = (number, message.at_s, str(message.event), subject, xml)
                fresh = record_hash(head, *values)
                db.execute(
                    insert(audit).values(
                        id=number, at=message.at_s, event=str(message.event), subject=subject,
                        message=xml, previous_hash=head, hash=fresh,
                    )
                )  # fmt: skip
                head = fresh
            db.execute(update(audit_state).values(head_id=number, head_hash=head))

    def audit_list(self, after: int = 0, limit: int = 100) -> list[AuditRow]:
        """Return records in order, from behind a number on."""
        query = select(audit).where(audit.c.id > after).order_by(audit.c.id).limit(limit)
        with self._read() as db:
            return [_row(row) for row in db.execute(query)]

    def audit_head(self) -> tuple[int, str]:
        """Return number and hash of the last record; (0, zeros) where there is none."""
        with self._read() as db:
            state = db.execute(select(audit_state)).one()
        return int(state.head_id), str(state.head_hash)

    def audit_verify(self) -> AuditCheck:
        """Compute the chain anew from the first record to the head."""
        with self._read() as db:
            state = db.execute(select(audit_state)).one()
            number, head, at_s = 0, GENESIS, None
            while rows := _after(db, number):
                for row in rows:
                    problem = _broken(row, number, head)
                    if problem:
                        return AuditCheck(number, head, problem, row.id, at_s)
                    number, head, at_s = row.id, row.hash, row.at
        problem = ""
        if (number, head) != (state.head_id, state.head_hash):
            problem = f"the trail ends at {number}, but {state.head_id} records were written"
        return AuditCheck(number, head, problem, number + 1 if problem else None, at_s)

    def audit_last(self, event: str) -> str | None:
        """Return the subject of the last record of an event."""
        query = select(audit.c.subject).where(audit.c.event == event).order_by(audit.c.id.desc())
        with self._read() as db:
            found = db.execute(query.limit(1)).scalar_one_or_none()
        return None if found is None else str(found)

    def audit_position(self) -> int:
        """Return the number of the last record that was forwarded; 0: none."""
        with self._read() as db:
            return int(db.execute(select(audit_state.c.forwarded_id)).scalar_one())

    def audit_forwarded(self, through: int) -> None:
        """Note that the records up to a number were forwarded."""
        done = update(audit_state).where(audit_state.c.forwarded_id < through)
        with self._write() as db:
            db.execute(done.values(forwarded_id=through, forwarded_at=self._clock.now_s()))

    def audit_backlog(self) -> int:
        """How many records were not forwarded."""
        with self._read() as db:
            state = db.execute(select(audit_state)).one()
        return int(state.head_id - state.forwarded_id)

    def patient_of(self, study_uid: str) -> str:
        """Return the Patient ID of a study; empty where it is not known."""
        query = select(studies.c.patient_id).where(studies.c.study_uid == study_uid)
        with self._read() as db:
            return str(db.execute(query).scalar_one_or_none() or "")


def _after(db: Connection, number: int) -> Sequence[Row[Any]]:
    query = select(audit).where(audit.c.id > number).order_by(audit.c.id).limit(_BATCH)
    return db.execute(query).all()


def _broken(row: Row[Any], number: int, head: str) -> str:
    """Say what is wrong with a record that should follow number and head; empty: nothing."""
    if row.id != number + 1:
        return f"record {number + 1} is missing"
    if row.previous_hash != head:
        return f"record {row.id} does not follow record {number}"
    if row.hash != record_hash(head, row.id, row.at, row.event, row.subject, row.message):
        return f"record {row.id} was changed"
    return ""


def _row(row: Row[Any]) -> AuditRow:
    return AuditRow(row.id, row.at, row.event, row.subject, row.message, row.hash)
