"""The outbox: result objects, their deliveries, and what follows for the revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from dicom_node.domain.profile import Encoded, Omission, plan_delivery
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import (
    FINAL_DELIVERY_STATES,
    DeliveryEvent,
    DeliveryState,
    RevisionEvent,
    RevisionState,
)
from dicom_node.store.base import change_delivery, change_revision, reason_text
from dicom_node.store.rows import Destination, ResultRow
from dicom_node.store.schema import deliveries, omissions, results, revisions
from dicom_node.store.tallies import RESULTS, of_deliveries, tally


def add_results(
    db: Connection, revision: Row[Any], found: Sequence[ResultRow],
    destinations: Sequence[Destination], now_s: float,
) -> int:  # fmt: skip
    """Write results and their deliveries; returns how many deliveries the results have.

    Each destination gets what its profile allows; what it does not get is written down. An object
    of the same UID that an earlier attempt wrote keeps its row and what was sent.
    """
    ids = {result: result_id(db, revision.id, result, now_s) for result in found}
    encoded = {encoded_of(result) for result in found}
    queued = 0
    for destination in destinations:
        plan = plan_delivery(destination.kinds, encoded, destination.refused)
        record_omissions(db, revision.id, destination.peer, plan.omissions, now_s)
        for result, id_ in ids.items():
            if (result.kind, result.variant) in plan.send:
                queued += 1
                queue_delivery(db, revision.id, id_, result.rank, destination.peer, now_s)
    return queued


def encoded_of(result: ResultRow) -> Encoded:
    """Return what a profile needs to know of a result."""
    return Encoded(result.kind, result.variant, result.sop_class_uid)


def record_omissions(
    db: Connection, revision_id: int, peer: str, found: Sequence[Omission], now_s: float
) -> None:
    """Write down what a destination does not get of a revision, in place of what stood there."""
    mine = (omissions.c.revision_id == revision_id) & (omissions.c.peer == peer)
    db.execute(delete(omissions).where(mine))
    for omission in found:
        db.execute(
            insert(omissions).values(
                revision_id=revision_id, peer=peer, kind=omission.kind,
                replaced_by=omission.replaced_by, reason=omission.reason[:255], at=now_s,
            )
        )  # fmt: skip


def result_id(db: Connection, revision_id: int, result: ResultRow, now_s: float) -> int:
    """Return the row of a result, written where it is new."""
    same = select(results.c.id).where(
        results.c.revision_id == revision_id,
        results.c.sop_instance_uid == result.sop_instance_uid,
    )
    known = db.execute(same).scalar_one_or_none()
    if known is not None:
        return int(known)
    made = db.execute(
        insert(results).values(
            revision_id=revision_id, kind=result.kind, variant=result.variant, rank=result.rank,
            sop_class_uid=result.sop_class_uid, sop_instance_uid=result.sop_instance_uid,
            series_uid=result.series_uid, path=result.path, sha256=result.sha256,
            size=result.size, created_at=now_s,
        )
    ).inserted_primary_key  # fmt: skip
    if made is None:
        raise RuntimeError("the database gave no key")
    tally(db, RESULTS)
    return int(made[0])


def queue_delivery(
    db: Connection, revision_id: int, result_id: int, rank: int, peer: str, now_s: float
) -> None:
    """Queue an object for a destination; what failed on its way before is tried again."""
    same = (deliveries.c.result_id == result_id) & (deliveries.c.peer == peer)
    known = db.execute(select(deliveries).where(same)).one_or_none()
    if known is None:
        db.execute(
            insert(deliveries).values(
                result_id=result_id, revision_id=revision_id, peer=peer, rank=rank,
                state=DeliveryState.PENDING, next_at=now_s, created_at=now_s, since=now_s,
            )
        )  # fmt: skip
        tally(db, of_deliveries(DeliveryState.PENDING))
    elif known.state == DeliveryState.FAILED:
        change_delivery(
            db, known, DeliveryEvent.RETRY, now_s, attempts=0, next_at=now_s, created_at=now_s
        )


def settle_revision(
    db: Connection, revision_id: int, now_s: float, *, nothing_queued: bool = False
) -> RevisionState:
    """Move an analysed revision on when nothing of it is on its way any more.

    A revision that ended as not_analysable or failed keeps its state whatever its report meets.
    """
    row = db.execute(select(revisions).where(revisions.c.id == revision_id).with_for_update()).one()
    state = RevisionState(row.state)
    db.execute(update(revisions).where(revisions.c.id == revision_id).values(manifest_due=True))
    if state is not RevisionState.ANALYSED:
        return state
    if nothing_queued:
        return _fail(db, row, RevisionEvent.NO_DESTINATION, Reason.NO_DESTINATION, "", now_s)
    found = db.execute(select(deliveries).where(deliveries.c.revision_id == revision_id)).all()
    if any(DeliveryState(delivery.state) not in FINAL_DELIVERY_STATES for delivery in found):
        return state
    failed = [delivery for delivery in found if delivery.state == DeliveryState.FAILED]
    if not failed:
        return change_revision(db, row, RevisionEvent.ALL_DELIVERED, now_s)
    detail = "; ".join(sorted({f"{one.peer}: {one.message or 'refused'}" for one in failed}))
    return _fail(
        db, row, RevisionEvent.DELIVERY_FAILED, Reason.DELIVERY_FAILED, f"({detail})", now_s
    )


def _fail(
    db: Connection, row: Row[Any], event: RevisionEvent, reason: Reason, detail: str, now_s: float
) -> RevisionState:
    message = reason_text(reason, detail)[:4000]
    return change_revision(db, row, event, now_s, message, reason=reason, message=message)
