"""What destinations take, and the deliveries brought in line with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from dicom_node.domain.confirmation import SERVICES
from dicom_node.domain.profile import DeliveryPlan, Encoded, plan_delivery
from dicom_node.domain.states import DeliveryState
from dicom_node.store.base import Database, add_event, lock_study
from dicom_node.store.deliveries import mine
from dicom_node.store.outbox import queue_delivery, record_omissions, settle_revision
from dicom_node.store.rows import DeliveryClaim, Destination, StaleClaim
from dicom_node.store.schema import acceptances, deliveries, results, revisions
from dicom_node.store.tallies import of_deliveries, tally
from dicom_node.store.times import iso


class AcceptanceStore(Database):
    """Transactions about what a destination takes."""

    def learn(
        self, peer: str, address: str, accepted: Collection[str], refused: Collection[str]
    ) -> None:
        """Keep what an association said of SOP classes; what was known of another address goes."""
        now_s = self._clock.now_s()
        told = {**dict.fromkeys(refused, False), **dict.fromkeys(accepted, True)}
        if told == self._known(peer, address, told):
            return
        mine_ = acceptances.c.peer == peer
        with self._write() as db:
            db.execute(delete(acceptances).where(mine_, acceptances.c.address != address))
            db.execute(delete(acceptances).where(mine_, acceptances.c.sop_class_uid.in_(told)))
            for sop_class, taken in told.items():
                db.execute(
                    insert(acceptances).values(
                        peer=peer, sop_class_uid=sop_class, address=address, accepted=taken,
                        learned_at=now_s,
                    )
                )  # fmt: skip

    def _known(self, peer: str, address: str, wanted: Collection[str]) -> Mapping[str, bool]:
        rows = self.acceptances(peer, address)
        return {
            row["sop_class_uid"]: row["accepted"] for row in rows if row["sop_class_uid"] in wanted
        }

    def acceptances(self, peer: str, address: str) -> list[dict[str, Any]]:
        """Return what is known of a destination at an address, by SOP class."""
        query = select(acceptances).where(
            acceptances.c.peer == peer, acceptances.c.address == address
        )
        with self._read() as db:
            return [
                {
                    "sop_class_uid": row.sop_class_uid, "accepted": bool(row.accepted),
                    "learned_at": iso(row.learned_at),
                }
                for row in db.execute(query.order_by(acceptances.c.sop_class_uid))
            ]  # fmt: skip

    def refused_by(self, peer: str, address: str) -> frozenset[str]:
        """Return the storage classes that a destination is known not to take."""
        return frozenset(
            row["sop_class_uid"]
            for row in self.acceptances(peer, address)
            if not row["accepted"] and row["sop_class_uid"] not in SERVICES
        )

    def adapt_deliveries(self, destination: Destination) -> int:
        """Bring what waits for a destination in line with what it takes.

        Returns the number of revisions changed. What is being sent is left alone.
        """
        if not destination.refused:
            return 0
        waiting = (
            select(revisions.c.id, revisions.c.study_id)
            .join(deliveries, deliveries.c.revision_id == revisions.c.id)
            .join(results, results.c.id == deliveries.c.result_id)
            .where(
                deliveries.c.peer == destination.peer,
                deliveries.c.state == DeliveryState.PENDING,
                results.c.sop_class_uid.in_(destination.refused),
            )
            .distinct()
        )
        with self._read() as db:
            found = db.execute(waiting).all()
        changed = 0
        now_s = self._clock.now_s()
        for revision_id, study_id in found:
            with self._write() as db:
                lock_study(db, study_id)
                changed += _adapt(db, revision_id, destination, now_s)
        return changed

    def replace_refused(self, claim: DeliveryClaim, destination: Destination) -> bool:
        """Take a claimed object that is refused off the queue, and queue what stands in.

        False: nothing can stand in for it; it has to fail. Nothing was changed then.

        Raises:
            StaleClaim: the delivery was taken back.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            study_id = db.execute(
                select(revisions.c.study_id).where(revisions.c.id == claim.revision_id)
            ).scalar_one()
            lock_study(db, study_id)
            row = db.execute(select(deliveries.c.id).where(*mine(claim))).one_or_none()
            if row is None:
                raise StaleClaim
            form = (claim.result.kind, claim.result.variant)
            if form in _plan(db, claim.revision_id, destination).send:
                return False
            db.execute(delete(deliveries).where(deliveries.c.id == claim.id))
            tally(db, of_deliveries(DeliveryState.SENDING), -1)
            _adapt(db, claim.revision_id, destination, now_s)
            return True


def _plan(db: Connection, revision_id: int, destination: Destination) -> DeliveryPlan:
    encoded = {
        Encoded(row.kind, row.variant, row.sop_class_uid)
        for row in db.execute(select(results).where(results.c.revision_id == revision_id))
    }
    return plan_delivery(destination.kinds, encoded, destination.refused)


def _adapt(db: Connection, revision_id: int, destination: Destination, now_s: float) -> int:
    """Drop pending deliveries that are not in the plan, queue what is missing; 1: changed."""
    plan = _plan(db, revision_id, destination)
    query = (
        select(results, deliveries.c.id.label("delivery_id"), deliveries.c.state)
        .outerjoin(
            deliveries,
            (deliveries.c.result_id == results.c.id) & (deliveries.c.peer == destination.peer),
        )
        .where(results.c.revision_id == revision_id)
    )
    rows = db.execute(query.order_by(results.c.id)).all()
    surplus = [
        row.delivery_id
        for row in rows
        if row.state == DeliveryState.PENDING and (row.kind, row.variant) not in plan.send
    ]
    if surplus:
        db.execute(delete(deliveries).where(deliveries.c.id.in_(surplus)))
        tally(db, of_deliveries(DeliveryState.PENDING), -len(surplus))
    missing = [row for row in rows if row.state is None and (row.kind, row.variant) in plan.send]
    for row in missing:
        queue_delivery(db, revision_id, row.id, row.rank, destination.peer, now_s)
    # what was to go at the next try still goes then: nothing of the set overtakes the rest
    record_omissions(db, revision_id, destination.peer, plan.omissions, now_s)
    _write_event(db, revision_id, destination, plan, now_s)
    db.execute(update(revisions).where(revisions.c.id == revision_id).values(manifest_due=True))
    settle_revision(db, revision_id, now_s)
    return 1 if surplus or missing else 0


def _write_event(
    db: Connection, revision_id: int, destination: Destination, plan: DeliveryPlan, now_s: float
) -> None:
    row: Row[Any] = db.execute(select(revisions).where(revisions.c.id == revision_id)).one()
    told = [
        f"{one.kind} {'replaced by ' + one.replaced_by if one.replaced_by else 'left out'}"
        for one in plan.omissions
    ]
    if told:
        detail = f"{destination.peer}: {', '.join(told)}"
        add_event(db, row.study_id, row.number, now_s, "adapted to destination", detail)
