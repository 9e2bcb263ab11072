"""What destinations keep of what was sent: what to ask about, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, func, insert, select, update

from dicom_node.domain.confirmation import MAX_LOSSES, Verdict, judge_failure, next_check_s
from dicom_node.domain.states import DeliveryEvent, DeliveryState, RevisionEvent, RevisionState
from dicom_node.store.base import Database, change_delivery, change_revision, lock_study
from dicom_node.store.outbox import settle_revision
from dicom_node.store.rows import SentRow
from dicom_node.store.schema import (
    commitment_items,
    commitments,
    deliveries,
    results,
    revisions,
    studies,
)

_TEXT = 500
_WITHOUT_RESEND = (RevisionState.SUPERSEDED, RevisionState.HELD)
_CONFIRMED = "kept: confirmed by storage commitment"


class ConfirmationStore(Database):
    """Transactions about deliveries in state ``sent``."""

    def peers_with_checks(self) -> list[str]:
        """Destinations that have something to be asked about now."""
        due = deliveries.c.check_at <= self._clock.now_s()
        query = select(deliveries.c.peer).where(due).distinct().order_by(deliveries.c.peer)
        with self._read() as db:
            return list(db.execute(query).scalars())

    def claim_checks(self, peer: str, lease_s: float, limit: int = 100) -> list[SentRow]:
        """Take what a destination is to be asked about; it is due again after ``lease_s``."""
        now_s = self._clock.now_s()
        query = (
            select(
                deliveries, results.c.sop_class_uid, results.c.sop_instance_uid,
                results.c.series_uid, studies.c.study_uid,
            )
            .join(results, results.c.id == deliveries.c.result_id)
            .join(revisions, revisions.c.id == deliveries.c.revision_id)
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(
                deliveries.c.peer == peer, deliveries.c.check_at <= now_s,
                deliveries.c.state == DeliveryState.SENT,
            )
            .order_by(deliveries.c.check_at, deliveries.c.id)
            .limit(limit)
            .with_for_update(of=deliveries, skip_locked=True)
        )  # fmt: skip
        with self._write() as db:
            found = [
                SentRow(
                    row.id, row.claim_no, row.study_uid, row.series_uid, row.sop_class_uid,
                    row.sop_instance_uid, row.checks, row.sent_at,
                )
                for row in db.execute(query)
            ]  # fmt: skip
            mine = deliveries.c.id.in_([row.delivery_id for row in found])
            db.execute(update(deliveries).where(mine).values(check_at=now_s + lease_s))
        return found

    def open_commitment(
        self, transaction_uid: str, peer: str, rows: Sequence[SentRow], wait_s: float
    ) -> None:
        """Write down what a destination is about to be asked to commit to.

        Before the request goes out: its answer may come at once, and to another process. What is
        not answered within ``wait_s`` is asked about again.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            made = db.execute(
                insert(commitments).values(
                    transaction_uid=transaction_uid, peer=peer, requested_at=now_s
                )
            ).inserted_primary_key
            if made is None:
                raise RuntimeError("the database gave no key")
            for row in rows:
                db.execute(
                    insert(commitment_items).values(
                        commitment_id=made[0], delivery_id=row.delivery_id, claim_no=row.claim_no
                    )
                )
            if rows:
                # one by one: asked for a list of ids and a state, SQLite reads all that was sent
                db.execute(
                    update(deliveries)
                    .where(deliveries.c.id == bindparam("asked"))
                    .where(deliveries.c.state == DeliveryState.SENT)
                    .values(check_at=now_s + wait_s),
                    [{"asked": row.delivery_id} for row in rows],
                )

    def drop_commitment(self, transaction_uid: str) -> None:
        """Forget a request that the destination refused or never got."""
        mine = select(commitments.c.id).where(commitments.c.transaction_uid == transaction_uid)
        with self._write() as db:
            items = commitment_items.c.commitment_id.in_(mine)
            db.execute(delete(commitment_items).where(items))
            db.execute(delete(commitments).where(commitments.c.transaction_uid == transaction_uid))

    def commitment_answered(
        self, transaction_uid: str, peers: Collection[str], kept: Collection[str],
        failed: Mapping[str, int | None],
    ) -> bool:  # fmt: skip
        """Take the report of a destination; False where this node asked it for no such thing.

        A report that comes again, or late, changes nothing that is settled.
        """
        asked = select(commitments).where(
            commitments.c.transaction_uid == transaction_uid, commitments.c.peer.in_(peers)
        )
        now_s = self._clock.now_s()
        with self._read() as db:
            commitment = db.execute(asked).one_or_none()
            if commitment is None:
                return False
            items = db.execute(_items(commitment.id)).all()
        for item in items:
            uid = item.sop_instance_uid
            if uid in kept:
                verdict, words = Verdict.KEPT, _CONFIRMED
            elif uid in failed:
                verdict, why = judge_failure(failed[uid])
                words = f"storage commitment refused: {why}"
            else:
                continue  # not named: it is asked about again in time
            with self._write() as db:
                _apply(db, item.delivery_id, item.claim_no, verdict, words, now_s)
        with self._write() as db:
            mine = commitments.c.id == commitment.id
            told = {"answered_at": now_s, "lost": len(failed)}
            db.execute(update(commitments).where(mine).values(**told))
        return True

    def judge_sent(self, row: SentRow, verdict: Verdict, words: str) -> None:
        """Write down what an answer says of a sent object, in plain words."""
        with self._write() as db:
            _apply(db, row.delivery_id, row.claim_no, verdict, words, self._clock.now_s())

    def count_checks(self, rows: Sequence[SentRow], words: str) -> None:
        """Note that a destination took a question about sent objects."""
        with self._write() as db:
            db.execute(
                update(deliveries)
                .where(deliveries.c.id.in_([row.delivery_id for row in rows]))
                .values(
                    checks=deliveries.c.checks + 1,
                    confirmation=func.coalesce(deliveries.c.confirmation, words),
                )
            )

    def ask_at(self, row: SentRow, at_s: float, words: str) -> None:
        """Ask about a sent object at a time; it could not be asked now."""
        with self._write() as db:
            db.execute(
                update(deliveries)
                .where(deliveries.c.id == row.delivery_id)
                .where(deliveries.c.state == DeliveryState.SENT)
                .values(check_at=at_s, confirmation=words[:_TEXT])
            )

    def end_checks(self, peer: str, words: str) -> int:
        """Ask a destination nothing any more; what was sent stays sent. Returns how many."""
        waiting = (deliveries.c.peer == peer) & deliveries.c.check_at.is_not(None)
        with self._write() as db:
            done = db.execute(
                update(deliveries).where(waiting).values(check_at=None, confirmation=words[:_TEXT])
            )
            return int(done.rowcount)


def _items(commitment_id: int) -> Select[Any]:
    return (
        select(commitment_items, results.c.sop_instance_uid)
        .join(deliveries, deliveries.c.id == commitment_items.c.delivery_id)
        .join(results, results.c.id == deliveries.c.result_id)
        .where(commitment_items.c.commitment_id == commitment_id)
        .order_by(deliveries.c.id)
    )


def _apply(
    db: Connection, delivery_id: int, claim_no: int, verdict: Verdict, words: str, now_s: float
) -> None:
    """Move a delivery by an answer about it, if it still is the sending that was asked about."""
    study_id = db.execute(
        select(revisions.c.study_id)
        .join(deliveries, deliveries.c.revision_id == revisions.c.id)
        .where(deliveries.c.id == delivery_id)
    ).scalar_one_or_none()
    if study_id is None:
        return
    lock_study(db, study_id)
    row = db.execute(
        select(deliveries).where(
            deliveries.c.id == delivery_id, deliveries.c.claim_no == claim_no,
            deliveries.c.state == DeliveryState.SENT,
        )
    ).one_or_none()  # fmt: skip
    if row is None:
        return
    if verdict is Verdict.KEPT:
        change_delivery(
            db, row, DeliveryEvent.CONFIRMED, now_s, check_at=None, confirmation=words[:_TEXT]
        )
        settle_revision(db, row.revision_id, now_s)
    elif verdict is Verdict.LOST:
        _lose(db, row, words, now_s)
    else:
        _remain(db, row, verdict, words, now_s)


def _lose(db: Connection, row: Row[Any], words: str, now_s: float) -> None:
    """Send an object again that the destination does not keep; after some times it has failed."""
    mine = revisions.c.id == row.revision_id
    revision = db.execute(select(revisions).where(mine).with_for_update()).one()
    told: dict[str, Any] = {"check_at": None, "confirmation": words[:_TEXT]}
    again = row.losses < MAX_LOSSES and revision.state not in _WITHOUT_RESEND
    if revision.state == RevisionState.DELIVERED:
        change_revision(db, revision, RevisionEvent.DELIVERY_LOST, now_s, f"{row.peer}: {words}")
    if again:
        change_delivery(
            db, row, DeliveryEvent.LOST, now_s, losses=row.losses + 1, next_at=now_s,
            created_at=now_s, **told,
        )  # fmt: skip
    else:
        message = f"taken, but not kept: {words}"[:_TEXT]
        change_delivery(db, row, DeliveryEvent.GAVE_UP, now_s, message=message, **told)
    settle_revision(db, row.revision_id, now_s)


def _remain(db: Connection, row: Row[Any], verdict: Verdict, words: str, now_s: float) -> None:
    """Leave an object sent: to be asked about again, or for good."""
    wait_s = next_check_s(row.checks) if verdict is Verdict.ASK_AGAIN else None
    check_at = None if wait_s is None else now_s + wait_s
    words = words if check_at is not None else f"not confirmed: {words}"
    db.execute(
        update(deliveries)
        .where(deliveries.c.id == row.id)
        .values(check_at=check_at, confirmation=words[:_TEXT])
    )
    mine = revisions.c.id == row.revision_id
    db.execute(update(revisions).where(mine).values(manifest_due=True))
