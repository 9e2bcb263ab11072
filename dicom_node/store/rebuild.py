"""Writing back what a manifest says, after the database was lost."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from dicom_node.domain.policy import PlanKind
from dicom_node.domain.profile import Omission
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import DeliveryState, RevisionState
from dicom_node.store.base import Database, add_event, make_study
from dicom_node.store.outbox import queue_delivery, record_omissions, result_id
from dicom_node.store.rows import ManifestDelivery, ManifestRow
from dicom_node.store.schema import deliveries, results, revisions, studies
from dicom_node.store.tallies import of_deliveries, of_revisions, tally

_KEPT = (
    RevisionState.ANALYSED,
    RevisionState.DELIVERED,
    RevisionState.NOT_ANALYSABLE,
    RevisionState.FAILED,
    RevisionState.HELD,
    RevisionState.SUPERSEDED,
)


class RebuildStore(Database):
    """Transactions of `dicom-node recover`."""

    def restore_revision(self, row: ManifestRow) -> bool:
        """Restore a finished revision, its results and deliveries, before its images are added.

        What was on its way is pending again. False: it was not finished, or is there already.
        """
        if row.state not in _KEPT or (row.state in _KEPT[2:5] and not row.reason):
            return False
        now_s = self._clock.now_s()
        with self._write() as db:
            study = make_study(db, row.study_uid, now_s)
            same = (revisions.c.study_id == study.id) & (revisions.c.number == row.number)
            if db.execute(select(revisions.c.id).where(same)).first() is not None:
                return False
            unanalysed = (RevisionState.NOT_ANALYSABLE, RevisionState.FAILED)
            silent = row.state in unanalysed and row.reason != Reason.DELIVERY_FAILED
            db.execute(
                insert(revisions).values(
                    study_id=study.id, number=row.number, state=row.state, reason=row.reason,
                    message=row.message, input_key=row.input_key,
                    plan=PlanKind.REPORT if silent else PlanKind.ANALYSE,
                    content_time=row.content_time_s, result_folder=row.folder,
                    created_at=now_s, changed_at=now_s,
                )
            )  # fmt: skip
            tally(db, of_revisions(row.state))
            made = db.execute(select(revisions).where(same)).one()
            for result, sent in row.results:
                id_ = result_id(db, made.id, result, now_s)
                for one in sent:
                    queue_delivery(db, made.id, id_, result.rank, one.peer, now_s)
                    _restore_delivery(db, made.id, result.sop_instance_uid, one, now_s)
            _restore_removed(db, study.id, made.id, row)
            for peer in {one.peer for one in row.left_out}:
                told = (one for one in row.left_out if one.peer == peer)
                mine = [Omission(one.kind, one.replaced_by, one.reason) for one in told]
                record_omissions(db, made.id, peer, mine, now_s)
            add_event(db, study.id, row.number, now_s, "rebuilt", f"as {row.state}")
            return True


def _restore_removed(db: Connection, study_id: int, revision_id: int, row: ManifestRow) -> None:
    """Say of a study that retention removed its images, and its results, before."""
    if row.results_removed_at_s is not None:
        gone = update(results).where(results.c.revision_id == revision_id)
        db.execute(gone.values(removed_at=row.results_removed_at_s))
        asked = update(deliveries).where(deliveries.c.revision_id == revision_id)
        db.execute(asked.values(check_at=None))  # what is not kept is not asked about
    if row.images_removed_at_s is not None:
        db.execute(
            update(studies)
            .where(studies.c.id == study_id)
            .values(
                images_removed_at=row.images_removed_at_s,
                results_removed_at=row.results_removed_at_s,
            )
        )


def _restore_delivery(
    db: Connection, revision_id: int, sop_instance_uid: str, sent: ManifestDelivery, now_s: float
) -> None:
    """Give a delivery that was just queued the state it had; what was begun is pending again."""
    state = DeliveryState.PENDING if sent.state is DeliveryState.SENDING else sent.state
    arrived = state in (DeliveryState.SENT, DeliveryState.VERIFIED)
    result = select(results.c.id).where(
        results.c.revision_id == revision_id, results.c.sop_instance_uid == sop_instance_uid
    )
    changed = db.execute(
        update(deliveries)
        .where(deliveries.c.result_id.in_(result), deliveries.c.peer == sent.peer)
        .values(
            state=state, attempts=sent.attempts, sent_at=now_s if arrived else None,
            check_at=now_s if state is DeliveryState.SENT else None,
        )
    )  # fmt: skip
    tally(db, of_deliveries(DeliveryState.PENDING), -changed.rowcount)
    tally(db, of_deliveries(state), changed.rowcount)
