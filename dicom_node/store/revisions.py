"""Study revisions: evaluating, planning, holding, and the operator's retry."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, or_, select, update

from dicom_node.domain.policy import PlanKind
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import (
    OPEN_REVISION_STATES,
    DeliveryEvent,
    RevisionEvent,
    RevisionState,
)
from dicom_node.errors import NodeError
from dicom_node.store.base import (
    SENT,
    Database,
    change_delivery,
    change_revision,
    find_study,
    hold,
    latest_revision,
    open_revision,
    reason_text,
    withdraw_deliveries,
)
from dicom_node.store.retention import refuse_removed, refuse_results_removed
from dicom_node.store.rows import Plan, StudyToEvaluate
from dicom_node.store.schema import deliveries, revisions, studies

_NOT_BEGUN: dict[str, Any] = {"plan": None, "plan_state": None, "run_after": None}


class RevisionStore(Database):
    """Transactions of evaluation and of the operator."""

    # evaluation

    def studies_to_evaluate(
        self, now_s: float, quiet_s: float, limit: int = 50
    ) -> list[StudyToEvaluate]:
        """Studies that changed and have been quiet since, or whose time to look again has come."""
        changed = studies.c.change_no > studies.c.evaluated_no
        due = or_(
            changed & (studies.c.last_image_at <= now_s - quiet_s),
            studies.c.evaluate_at <= now_s,
        )
        query = select(studies).where(due).order_by(studies.c.last_image_at).limit(limit)
        with self._read() as db:
            rows = db.execute(query).all()
            return [found for row in rows if (found := _to_evaluate(db, row)) is not None]

    def set_plan(self, study: StudyToEvaluate, plan: Plan) -> bool:
        """Make the latest revision (or a new one) ready to run. False: the study changed since."""
        event = (
            RevisionEvent.COMPLETE if plan.kind is PlanKind.ANALYSE else RevisionEvent.REPORT_DUE
        )
        now_s = self._clock.now_s()
        with self._write() as db:
            row = self._revision_to_plan(db, study, now_s)
            if row is None:
                return False
            _outdate_earlier(db, row, now_s)
            change_revision(
                db, row, event, now_s, plan.message,
                plan=plan.kind, plan_state=plan.state, input_key=plan.input_key,
                selection_json=plan.selection_json, through=plan.through, attempts=0,
                node_deaths=0, run_after=now_s, content_time=None,
                reason=plan.reason, message=plan.message or None,
            )  # fmt: skip
            return _evaluated(db, study, None)

    def close_silently(
        self, study: StudyToEvaluate, reason: Reason, input_key: str, detail: str = ""
    ) -> bool:
        """End a study that is no business of this node; nothing is sent."""
        now_s = self._clock.now_s()
        message = reason_text(reason, detail)
        with self._write() as db:
            row = self._revision_to_plan(db, study, now_s)
            if row is None:
                return False
            change_revision(
                db, row, RevisionEvent.NOT_OURS, now_s, message,
                reason=reason, message=message, input_key=input_key, manifest_due=True,
            )  # fmt: skip
            return _evaluated(db, study, None)

    def wait_until(
        self, study: StudyToEvaluate, at_s: float, note: str, *, new_revision: bool, outdates: bool
    ) -> bool:
        """Look at the study again at a time; ``note`` tells people what it waits for.

        ``new_revision`` opens one for the changed inputs; with ``outdates`` what runs now on the
        former inputs will not be delivered.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            row = _guarded_study(db, study)
            if row is None:
                return False
            last = latest_revision(db, row.id)
            if new_revision and last is not None and last.state not in OPEN_REVISION_STATES:
                if outdates:
                    _outdate_running(db, row.id)
                last = open_revision(db, row.id, now_s)
            elif last is not None and last.state == RevisionState.READY:
                change_revision(db, last, RevisionEvent.INPUTS_CHANGED, now_s, **_NOT_BEGUN)
            if last is not None:
                db.execute(
                    update(revisions).where(revisions.c.id == last.id).values(message=note or None)
                )
            return _evaluated(db, study, at_s)

    def nothing_new(self, study: StudyToEvaluate) -> bool:
        """Note that what came changes nothing; a revision opened for it goes on unchanged."""
        with self._write() as db:
            return _guarded_study(db, study) is not None and _evaluated(db, study, None)

    def hold_study(self, study_uid: str, reason: Reason, detail: str = "") -> None:
        """Hold a study until the operator releases it."""
        with self._write() as db:
            row = find_study(db, study_uid)
            if row is not None:
                hold(db, row.id, reason, detail, self._clock.now_s())

    def _revision_to_plan(
        self, db: Connection, study: StudyToEvaluate, now_s: float
    ) -> Row[Any] | None:
        row = _guarded_study(db, study)
        if row is None:
            return None
        last = latest_revision(db, row.id)
        if last is None or last.state == RevisionState.HELD:
            return None
        if (last.number, last.state) != (study.latest_number, study.latest_state):
            return None  # another worker has planned it, or it went on; it is looked at again
        if last.state == RevisionState.RECEIVING:
            return last
        if last.state == RevisionState.READY:
            change_revision(db, last, RevisionEvent.INPUTS_CHANGED, now_s, **_NOT_BEGUN)
            return latest_revision(db, row.id)
        return open_revision(db, row.id, now_s)

    # the operator

    def retry(self, study_uid: str) -> str:
        """Try the latest revision of a study again; returns what was done, in plain words.

        Raises:
            NodeError: the study is unknown, or there is nothing to retry.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            study = find_study(db, study_uid)
            last = None if study is None else latest_revision(db, study.id)
            if study is None or last is None:
                raise NodeError(f"no study {study_uid} here", "see dicom-node studies list")
            again = _deliver_again(db, last, now_s)
            if last.state == RevisionState.FAILED and last.reason == Reason.DELIVERY_FAILED:
                return f"{again} objects are sent again"
            if last.state not in ("failed", "held", "not_analysable"):
                if again:
                    return f"{again} objects are sent again"
                raise NodeError(f"the study is {last.state}", "there is nothing to retry")
            refuse_removed(db, study)
            change_revision(
                db, last, RevisionEvent.RETRY, now_s, "by the operator", attempts=0,
                node_deaths=0, reason=None, message=None, input_key=None, **_NOT_BEGUN,
            )  # fmt: skip
            db.execute(
                update(studies)
                .where(studies.c.id == study.id)
                .values(change_no=studies.c.change_no + 1, evaluate_at=now_s)
            )
            return "the study is looked at anew"


def _guarded_study(db: Connection, study: StudyToEvaluate) -> Row[Any] | None:
    row = find_study(db, study.study_uid)
    return row if row is not None and row.change_no == study.change_no else None


def _evaluated(db: Connection, study: StudyToEvaluate, again_at_s: float | None) -> bool:
    db.execute(
        update(studies)
        .where(studies.c.study_uid == study.study_uid)
        .values(evaluated_no=study.change_no, evaluate_at=again_at_s)
    )
    return True


def _to_evaluate(db: Connection, study: Row[Any]) -> StudyToEvaluate | None:
    last = latest_revision(db, study.id)
    if last is None:
        return None
    # a revision that only waits says nothing of its own yet: compare with the one before
    sent = (
        select(deliveries.c.id)
        .join(revisions, revisions.c.id == deliveries.c.revision_id)
        .where(
            revisions.c.study_id == study.id, revisions.c.plan == PlanKind.ANALYSE,
            deliveries.c.state.in_(SENT),
        )
        .limit(1)
    )  # fmt: skip
    return StudyToEvaluate(
        study_uid=study.study_uid, change_no=study.change_no,
        last_image_at_s=study.last_image_at, latest_number=last.number,
        latest_state=RevisionState(last.state), latest_reason=last.reason,
        latest_input_key=last.input_key, result_was_sent=db.execute(sent).first() is not None,
    )  # fmt: skip


def _outdate_running(db: Connection, study_id: int) -> None:
    running = (revisions.c.study_id == study_id) & (revisions.c.state == "running")
    db.execute(update(revisions).where(running).values(outdated=True))


def _outdate_earlier(db: Connection, row: Row[Any], now_s: float) -> None:
    """Earlier revisions must not deliver once a newer one is due; begun deliveries go on."""
    _outdate_running(db, row.study_id)
    earlier = select(revisions).where(
        revisions.c.study_id == row.study_id, revisions.c.number < row.number,
        revisions.c.state == RevisionState.ANALYSED,
    )  # fmt: skip
    for old in db.execute(earlier).all():
        begun = select(deliveries.c.id).where(
            deliveries.c.revision_id == old.id,
            deliveries.c.state.in_(("sending", *SENT)),
        )
        if db.execute(begun.limit(1)).first() is None:
            withdraw_deliveries(db, old.id, f"superseded by revision {row.number}", now_s)
            change_revision(db, old, RevisionEvent.NEWER_INPUTS, now_s, manifest_due=True)


def _deliver_again(db: Connection, row: Row[Any], now_s: float) -> int:
    """Send again what failed on its way; a revision that failed for it is analysed again."""
    failed = db.execute(
        select(deliveries).where(deliveries.c.revision_id == row.id, deliveries.c.state == "failed")
    ).all()
    if row.state in ("superseded", "held"):
        return 0
    if failed:
        refuse_results_removed(db, row.id)
    for delivery in failed:
        change_delivery(
            db, delivery, DeliveryEvent.RETRY, now_s, attempts=0, next_at=now_s, created_at=now_s,
            message=None,
        )  # fmt: skip
    if failed and row.state == RevisionState.FAILED and row.reason == Reason.DELIVERY_FAILED:
        change_revision(
            db, row, RevisionEvent.DELIVER_AGAIN, now_s, "by the operator", reason=None,
            message=None,
        )  # fmt: skip
    return len(failed)
