"""Corrected copies of images: a PACS that mends patient data sends them again."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from dicom_node.domain.identity import Identity, agree
from dicom_node.store.schema import conflicts, instances
from dicom_node.store.tallies import BYTES, tally


def identity_of(row: Row[Any]) -> Identity:
    """Return the patient of a study, an instance or a copy."""
    return Identity(row.patient_id or "", row.issuer or "", row.birth_date or "")


def corrected_copies(db: Connection, study_id: int) -> dict[int, Row[Any]]:
    """Return the last corrected copy of each instance, by instance id.

    By the time of arrival: rows that waited in the journals of two receivers can follow in another
    order than the images came in, and then the copy kept aside is the one that was corrected.
    """
    rows = db.execute(
        select(conflicts)
        .join(instances, instances.c.id == conflicts.c.instance_id)
        .where(
            conflicts.c.study_id == study_id,
            conflicts.c.verdict == "demographics",
            conflicts.c.received_at >= instances.c.received_at,
        )
        .order_by(conflicts.c.received_at, conflicts.c.id)
    )
    return {row.instance_id: row for row in rows}


def covers(db: Connection, study_id: int, newer: dict[int, Row[Any]]) -> bool:
    """Whether all images are corrected, or are right as they came.

    Right are images that came after the first correction, and those whose patient elements are
    those of the corrections; all must show one patient.
    """
    first_s = min(row.received_at for row in newer.values())
    seen = {identity_of(row) for row in newer.values()}
    if not agree(seen):
        return False
    images = db.execute(
        select(instances).where(instances.c.study_id == study_id, instances.c.role == "image")
    )
    rest = [row for row in images if row.id not in newer]
    corrected = _demographics(next(reversed(newer.values())))
    right = all(row.received_at > first_s or _demographics(row) == corrected for row in rest)
    return right and agree(seen | {identity_of(row) for row in rest})


def _demographics(row: Row[Any]) -> str:
    """Digest of the patient elements of an instance, as its header has it."""
    return str(json.loads(row.header_json)["demographics_digest"])


def swap(db: Connection, instance_id: int, copy: Row[Any]) -> None:
    """Make a corrected copy the kept one, and the kept one the copy aside."""
    kept = db.execute(select(instances).where(instances.c.id == instance_id)).one()
    names = (
        "header_json", "transfer_syntax_uid", "dataset_digest", "path", "size", "patient_id",
        "issuer", "birth_date",
    )  # fmt: skip
    db.execute(delete(conflicts).where(conflicts.c.id == copy.id))
    tally(db, BYTES, copy.size - kept.size)
    db.execute(
        update(instances)
        .where(instances.c.id == instance_id)
        .values(**{name: getattr(copy, name) for name in names})
    )
    db.execute(
        insert(conflicts).values(
            study_id=copy.study_id, instance_id=instance_id, verdict="settled",
            received_at=kept.received_at, **{name: getattr(kept, name) for name in names},
        )
    )  # fmt: skip
