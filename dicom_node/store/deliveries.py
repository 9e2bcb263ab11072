"""Deliveries: claiming what is due for a destination, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, update

from dicom_node.domain.canary import is_canary
from dicom_node.domain.confirmation import FIRST_CHECK_S
from dicom_node.domain.policy import LEASE_S
from dicom_node.domain.states import DeliveryEvent, DeliveryState
from dicom_node.store.base import UNJUDGED, Database, change_delivery, find_study, lock_study
from dicom_node.store.counters import DELIVERIES, count
from dicom_node.store.outbox import settle_revision
from dicom_node.store.rows import DeliveryClaim, ResultRow, StaleClaim
from dicom_node.store.schema import deliveries, results, revisions, studies

_TEXT = 500
_COUNTED = {DeliveryEvent.ACCEPTED: "sent", DeliveryEvent.REJECTED: "failed"}


class DeliveryStore(Database):
    """Transactions of the delivery loop."""

    def peers_with_deliveries(self, now_s: float | None = None) -> list[str]:
        """Destinations that have something due."""
        now_s = self._clock.now_s() if now_s is None else now_s
        due = (deliveries.c.state == DeliveryState.PENDING) & (deliveries.c.next_at <= now_s)
        query = select(deliveries.c.peer).where(due).distinct().order_by(deliveries.c.peer)
        with self._read() as db:
            return list(db.execute(query).scalars())

    def claim_deliveries(
        self, peer: str, owner: str, now_s: float | None = None
    ) -> list[DeliveryClaim]:
        """Take what is due of the oldest waiting revision for one destination, in sending order.

        A report is taken only with, or after, everything it refers to. Send in the order given;
        when an object meets a transient failure, give the rest back with ``delivery_retry_later``.
        Nothing of a study is taken while a second copy of an image of it waits for its judgement.
        """
        now_s = self._clock.now_s() if now_s is None else now_s
        due = and_(
            deliveries.c.peer == peer,
            deliveries.c.state == DeliveryState.PENDING,
            deliveries.c.next_at <= now_s,
        )
        oldest = (
            select(revisions)
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(revisions.c.id.in_(select(deliveries.c.revision_id).where(due)), ~UNJUDGED)
            .order_by(revisions.c.id)
            .limit(1)
            .with_for_update(of=studies, skip_locked=True)
        )
        if peer not in self.peers_with_deliveries(now_s):
            return []
        with self._write() as db:
            revision = db.execute(oldest).one_or_none()
            if revision is None:
                return []
            waiting = select(deliveries).where(deliveries.c.revision_id == revision.id, due)
            rows = db.execute(waiting.order_by(deliveries.c.rank, deliveries.c.id)).all()
            held_up = _lowest_rank_elsewhere(db, revision.id, peer, [row.id for row in rows])
            taken = [row for row in rows if held_up is None or row.rank <= held_up]
            return [self._take(db, row, owner, now_s) for row in taken]

    def _take(self, db: Connection, row: Row[Any], owner: str, now_s: float) -> DeliveryClaim:
        change_delivery(
            db, row, DeliveryEvent.CLAIM, now_s, claim_no=row.claim_no + 1, owner=owner,
            host=self._host, heartbeat_at=now_s, attempts=row.attempts + 1,
        )  # fmt: skip
        query = (
            select(results, studies.c.study_uid)
            .join(revisions, revisions.c.id == results.c.revision_id)
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(results.c.id == row.result_id)
        )
        found = db.execute(query).one()
        return DeliveryClaim(
            id=row.id, claim_no=row.claim_no + 1, owner=owner, peer=row.peer,
            revision_id=row.revision_id, study_uid=found.study_uid, result=result_row(found),
            attempts=row.attempts + 1, created_at_s=row.created_at,
        )  # fmt: skip

    def delivery_heartbeat(self, claims: Sequence[DeliveryClaim]) -> None:
        """Say that sending goes on."""
        now_s = self._clock.now_s()
        with self._write() as db:
            for claim in claims:
                db.execute(update(deliveries).where(*mine(claim)).values(heartbeat_at=now_s))

    def delivery_sent(self, claim: DeliveryClaim, status: int = 0, message: str = "") -> None:
        """Note that the destination took the object (``status`` as answered; warnings are kept).

        Raises:
            StaleClaim: the delivery was taken back.
        """
        self._settle(
            claim, DeliveryEvent.ACCEPTED, status=status, message=message[:_TEXT] or None,
            sent_at=self._clock.now_s(), check_at=self._clock.now_s() + FIRST_CHECK_S, checks=0,
            confirmation=None,
        )  # fmt: skip

    def delivery_failed(
        self, claim: DeliveryClaim, message: str, status: int | None = None
    ) -> None:
        """Note that the destination will never take the object.

        Raises:
            StaleClaim: the delivery was taken back.
        """
        self._settle(claim, DeliveryEvent.REJECTED, status=status, message=message[:_TEXT])

    def delivery_retry_later(
        self, claim: DeliveryClaim, next_at_s: float, message: str, status: int | None = None,
        *, counts: bool = True,
    ) -> None:  # fmt: skip
        """Try again at a time. ``counts`` False: the object was never offered.

        Raises:
            StaleClaim: the delivery was taken back.
        """
        attempts = claim.attempts if counts else claim.attempts - 1
        self._settle(
            claim, DeliveryEvent.TRANSIENT, next_at=next_at_s, message=message[:_TEXT],
            status=status, attempts=attempts,
        )  # fmt: skip

    def _settle(self, claim: DeliveryClaim, event: DeliveryEvent, **values: Any) -> None:
        now_s = self._clock.now_s()
        with self._write() as db:
            find_study(db, claim.study_uid)
            row = db.execute(select(deliveries).where(*mine(claim))).one_or_none()
            if row is None:
                raise StaleClaim
            change_delivery(db, row, event, now_s, **values)
            if event in _COUNTED and not is_canary(claim.study_uid):
                count(db, DELIVERIES, f"{claim.peer} {_COUNTED[event]}")
            settle_revision(db, claim.revision_id, now_s)

    def postpone_peer(self, peer: str, until_s: float, message: str) -> None:
        """Let a destination that does not answer rest: nothing of its queue is due before."""
        waiting = (deliveries.c.peer == peer) & (deliveries.c.state == DeliveryState.PENDING)
        with self._write() as db:
            db.execute(
                update(deliveries)
                .where(waiting, deliveries.c.next_at < until_s)
                .values(next_at=until_s, message=message[:_TEXT])
            )

    def expire_deliveries(self, give_up_s: float, now_s: float | None = None) -> int:
        """Fail what waited longer than ``give_up_s``; returns how many."""
        now_s = self._clock.now_s() if now_s is None else now_s
        old = and_(
            deliveries.c.state == DeliveryState.PENDING,
            deliveries.c.created_at <= now_s - give_up_s,
        )
        return self._end(old, DeliveryEvent.GAVE_UP, now_s, "gave up: no success in time")

    def drop_peer_deliveries(self, peer: str) -> int:
        """Fail what waits for a destination that no longer exists; returns how many."""
        gone = (deliveries.c.peer == peer) & (deliveries.c.state == DeliveryState.PENDING)
        message = "the destination was removed"
        return self._end(gone, DeliveryEvent.WITHDRAWN, self._clock.now_s(), message)

    def recover_deliveries(self) -> int:
        """At start: what this host was sending is pending again; returns how many."""
        mine = and_(deliveries.c.state == DeliveryState.SENDING, deliveries.c.host == self._host)
        return self._end(mine, DeliveryEvent.NODE_DIED, self._clock.now_s(), None)

    def reap_stale_deliveries(self, now_s: float | None = None, lease_s: float = LEASE_S) -> int:
        """Take back what is being sent without a heartbeat; returns how many."""
        now_s = self._clock.now_s() if now_s is None else now_s
        stale = and_(
            deliveries.c.state == DeliveryState.SENDING,
            deliveries.c.heartbeat_at < now_s - lease_s,
        )
        return self._end(stale, DeliveryEvent.NODE_DIED, now_s, None)

    def _end(self, condition: Any, event: DeliveryEvent, now_s: float, message: str | None) -> int:
        with self._read() as db:
            found = db.execute(
                select(deliveries.c.id, revisions.c.study_id)
                .join(revisions, revisions.c.id == deliveries.c.revision_id)
                .where(condition)
            ).all()
        done = 0
        for delivery_id, study_id in found:
            with self._write() as db:
                lock_study(db, study_id)
                again = select(deliveries).where(deliveries.c.id == delivery_id, condition)
                row = db.execute(again).one_or_none()
                if row is None:
                    continue
                values: dict[str, Any] = {"message": message} if message else {}
                if event is DeliveryEvent.NODE_DIED:
                    values["next_at"] = now_s
                change_delivery(db, row, event, now_s, **values)
                settle_revision(db, row.revision_id, now_s)
                done += 1
        return done


def result_row(row: Row[Any]) -> ResultRow:
    """Return a result as a value."""
    return ResultRow(
        row.kind, row.sop_class_uid, row.sop_instance_uid, row.series_uid, row.path, row.sha256,
        row.size, row.variant,
    )  # fmt: skip


def mine(claim: DeliveryClaim) -> tuple[Any, ...]:
    """Conditions under which a claim still holds."""
    return (
        deliveries.c.id == claim.id,
        deliveries.c.state == DeliveryState.SENDING,
        deliveries.c.claim_no == claim.claim_no,
    )


def _lowest_rank_elsewhere(
    db: Connection, revision_id: int, peer: str, taken: Sequence[int]
) -> int | None:
    """Return the lowest rank still on its way apart from ``taken``; None where nothing is."""
    query = select(func.min(deliveries.c.rank)).where(
        deliveries.c.revision_id == revision_id, deliveries.c.peer == peer,
        deliveries.c.state.in_((DeliveryState.PENDING, DeliveryState.SENDING)),
        deliveries.c.id.not_in(taken),
    )  # fmt: skip
    lowest: int | None = db.execute(query).scalar_one()
    return lowest
