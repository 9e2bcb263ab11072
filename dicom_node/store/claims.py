"""Claims: the worker takes a revision, finishes it, or it is taken back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, case, exists, func, insert, select, update

from dicom_node.domain.canary import is_canary
from dicom_node.domain.policy import (
    LEASE_S,
    MAX_ATTEMPTS,
    NODE_DEATHS_BEFORE_LAST,
    PlanKind,
    after_failed_attempt,
)
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import OPEN_REVISION_STATES, RevisionEvent, RevisionState
from dicom_node.errors import StoreError
from dicom_node.store.annotations import reopen_annotations
from dicom_node.store.base import (
    SENT,
    UNJUDGED,
    Database,
    change_revision,
    find_study,
    lock_study,
    reason_text,
)
from dicom_node.store.observations import write_observation
from dicom_node.store.outbox import add_results, settle_revision
from dicom_node.store.rows import Claim, Destination, EarlierRow, ResultRow, StaleClaim
from dicom_node.store.schema import boots, deliveries, results, revisions, studies


class ClaimStore(Database):
    """Transactions of the worker."""

    # the worker

    def claim_ready(self, owner: str, now_s: float | None = None) -> Claim | None:
        """Take the next revision to work on, or None. The attempt is fenced by ``claim_no``.

        Oldest first; what was running when the node died three times in a row comes last. A study
        with a second copy of an image that waits for its judgement is not begun.
        """
        now_s = self._clock.now_s() if now_s is None else now_s
        other = revisions.alias()
        busy = exists().where(other.c.study_id == revisions.c.study_id, other.c.state == "running")
        last = case((revisions.c.node_deaths >= NODE_DEATHS_BEFORE_LAST, 1), else_=0)
        query = (
            select(revisions)
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(revisions.c.state == "ready", revisions.c.run_after <= now_s, ~busy, ~UNJUDGED)
            .order_by(last, revisions.c.run_after, revisions.c.id)
            .limit(1)
            .with_for_update(of=studies, skip_locked=True)
        )
        if not self.work_waits(now_s):
            return None
        with self._write() as db:
            row = db.execute(query).one_or_none()
            if row is None:
                return None
            try:
                change_revision(
                    db, row, RevisionEvent.CLAIM, now_s, f"by {owner}",
                    claim_no=row.claim_no + 1, owner=owner, host=self._host,
                    boot_id=_boot_of(db, self._host), heartbeat_at=now_s,
                    content_time=row.content_time or now_s,
                )  # fmt: skip
            except StaleClaim:
                return None  # PostgreSQL: read before another transaction committed
            return _claim(db, row.id, owner)

    def work_waits(self, now_s: float | None = None) -> bool:
        """Whether a study waits for a worker.

        It looks without a write lock: an idle worker must not hold up the receiver.
        """
        now_s = self._clock.now_s() if now_s is None else now_s
        query = select(revisions.c.id).where(
            revisions.c.state == "ready", revisions.c.run_after <= now_s, ~UNJUDGED
        )
        with self._read() as db:
            return db.execute(query.limit(1)).first() is not None

    def heartbeat(self, claim: Claim) -> None:
        """Say that the work goes on.

        Raises:
            StaleClaim: the work was taken back; stop it.
        """
        with self._write() as db:
            alive = db.execute(
                update(revisions).where(*_mine(claim)).values(heartbeat_at=self._clock.now_s())
            )
            if alive.rowcount != 1:
                raise StaleClaim

    def finish_analysed(
        self, claim: Claim, found: Sequence[ResultRow], destinations: Sequence[Destination]
    ) -> RevisionState:
        """Commit the results of an analysis and queue them for their destinations.

        Returns ``superseded`` where newer inputs came meanwhile (nothing is sent then) and
        ``failed`` where no peer receives results.

        Raises:
            StaleClaim: the work was taken back; nothing was written.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            row = _claimed(db, claim)
            if row.outdated:
                add_results(db, row, found, (), now_s)
                return change_revision(
                    db, row, RevisionEvent.NEWER_INPUTS, now_s, manifest_due=True,
                    result_folder=_folder(found),
                )  # fmt: skip
            change_revision(
                db, row, RevisionEvent.ANALYSED, now_s, node_deaths=0, reason=None, message=None,
                manifest_due=True, result_folder=_folder(found),
            )  # fmt: skip
            reopen_annotations(db, row.study_id, now_s)
            _observe(db, row, claim, now_s)
            return _publish(db, row, found, destinations, now_s)

    def finish_reported(
        self, claim: Claim, state: RevisionState, reason: Reason, message: str,
        found: Sequence[ResultRow], destinations: Sequence[Destination],
    ) -> RevisionState:  # fmt: skip
        """Commit a report "not analysed" (``state`` not_analysable or failed) and queue it.

        Raises:
            StaleClaim: the work was taken back; nothing was written.
        """
        events = {
            RevisionState.NOT_ANALYSABLE: RevisionEvent.NOT_ANALYSABLE,
            RevisionState.FAILED: RevisionEvent.GIVEN_UP,
        }
        now_s = self._clock.now_s()
        with self._write() as db:
            row = _claimed(db, claim)
            if row.outdated:
                return change_revision(db, row, RevisionEvent.NEWER_INPUTS, now_s)
            change_revision(
                db, row, events[state], now_s, message, node_deaths=0, reason=reason,
                message=message, manifest_due=True, result_folder=_folder(found),
            )  # fmt: skip
            _observe(db, row, claim, now_s)
            return _publish(db, row, found, destinations, now_s)

    def finish_silent(
        self, claim: Claim, state: RevisionState, reason: Reason, message: str
    ) -> RevisionState:
        """End a revision without sending anything: held, or not_analysable (no business of ours).

        Raises:
            StaleClaim: the work was taken back; nothing was written.
        """
        events = {
            RevisionState.NOT_ANALYSABLE: RevisionEvent.NOT_ANALYSABLE,
            RevisionState.FAILED: RevisionEvent.GIVEN_UP,
            RevisionState.HELD: RevisionEvent.CONFLICT,
        }
        now_s = self._clock.now_s()
        with self._write() as db:
            row = _claimed(db, claim)
            _observe(db, row, claim, now_s)
            return change_revision(
                db, row, events[state], now_s, message, node_deaths=0, reason=reason,
                message=message, manifest_due=True,
            )  # fmt: skip

    def fail_attempt(self, claim: Claim, reason: Reason, message: str) -> RevisionState:
        """Count a failed attempt. After the third the revision becomes ready for its report.

        Raises:
            StaleClaim: the work was taken back already.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            return _fail(db, _claimed(db, claim), reason, message, now_s)

    def release(self, claim: Claim) -> None:
        """Give work back at an orderly stop; no attempt is counted."""
        now_s = self._clock.now_s()
        with self._write() as db:
            row = _claimed(db, claim)
            change_revision(db, row, _back(db, row), now_s, "the node was stopped")

    # taking back

    def start_boot(self) -> str:
        """Write down that the node starts on this host; returns the id of this run."""
        boot_id = str(uuid.uuid4())
        with self._write() as db:
            db.execute(
                insert(boots).values(
                    boot_id=boot_id, host=self._host, started_at=self._clock.now_s()
                )
            )
        return boot_id

    def last_boot_s(self) -> float | None:
        """Return when a node last finished looking through the spool; None: never."""
        with self._read() as db:
            found: float | None = db.execute(select(func.max(boots.c.started_at))).scalar_one()
        return found

    def recover_after_node_death(self, boot_id: str) -> int:
        """Take back what ran on this host before ``boot_id``; returns how many revisions."""
        now_s = self._clock.now_s()
        mine = select(revisions.c.id, revisions.c.study_id).where(
            revisions.c.state == "running", revisions.c.host == self._host,
            revisions.c.boot_id.is_distinct_from(boot_id),
        )  # fmt: skip
        return self._take_back(mine, now_s, node_died=True)

    def recover_worker(self, owner: str) -> int:
        """Take back what a worker of this host ran before it died; each counts as an attempt."""
        mine = select(revisions.c.id, revisions.c.study_id).where(
            revisions.c.state == "running", revisions.c.host == self._host,
            revisions.c.owner == owner,
        )  # fmt: skip
        return self._take_back(mine, self._clock.now_s(), node_died=False)

    def reap_stale(self, now_s: float | None = None, lease_s: float = LEASE_S) -> int:
        """Take back claims without a heartbeat.

        On a host whose node still runs under the same boot the worker died: an attempt. On
        another host the node is taken to have died.
        """
        now_s = self._clock.now_s() if now_s is None else now_s
        stale = (revisions.c.state == "running") & (revisions.c.heartbeat_at < now_s - lease_s)
        columns = (revisions.c.id, revisions.c.study_id)
        here = revisions.c.host == self._host
        taken = self._take_back(select(*columns).where(stale, here), now_s, node_died=False)
        return taken + self._take_back(select(*columns).where(stale, ~here), now_s, node_died=True)

    def _take_back(self, query: Any, now_s: float, *, node_died: bool) -> int:
        with self._read() as db:
            found = db.execute(query).all()
        taken = 0
        for revision_id, study_id in found:
            with self._write() as db:
                lock_study(db, study_id)
                again = db.execute(query.where(revisions.c.id == revision_id)).one_or_none()
                if again is None:
                    continue
                row = db.execute(select(revisions).where(revisions.c.id == revision_id)).one()
                taken += 1
                if node_died:
                    change_revision(
                        db, row, _back(db, row), now_s, "the node died",
                        node_deaths=row.node_deaths + 1, run_after=now_s,
                    )  # fmt: skip
                else:
                    _fail(db, row, Reason.INTERNAL_ERROR, "the worker died", now_s)
        return taken


def _publish(
    db: Connection, row: Row[Any], found: Sequence[ResultRow],
    destinations: Sequence[Destination], now_s: float,
) -> RevisionState:  # fmt: skip
    """Queue the results, supersede earlier revisions, settle what needs no sending."""
    queued = add_results(db, row, found, destinations, now_s)
    finals = (RevisionState.DELIVERED, RevisionState.NOT_ANALYSABLE, RevisionState.FAILED)
    earlier = select(revisions).where(
        revisions.c.study_id == row.study_id, revisions.c.number < row.number,
        revisions.c.state.in_(finals),
    )  # fmt: skip
    for old in db.execute(earlier).all():
        detail = f"by revision {row.number}"
        change_revision(db, old, RevisionEvent.NEWER_INPUTS, now_s, detail, manifest_due=True)
    study_uid = db.execute(select(studies.c.study_uid).where(studies.c.id == row.study_id))
    needs_one = not is_canary(study_uid.scalar_one())  # a canary may be sent nowhere
    return settle_revision(db, row.id, now_s, nothing_queued=needs_one and queued == 0)


def _observe(db: Connection, row: Row[Any], claim: Claim, now_s: float) -> None:
    if claim.seen is not None:
        write_observation(db, (row.study_id, row.number), claim.seen, now_s)


def _overtaken(db: Connection, row: Row[Any]) -> bool:
    """Whether a later revision waits already: one that ran meanwhile must not wait beside it."""
    later = select(revisions.c.id).where(
        revisions.c.study_id == row.study_id, revisions.c.number > row.number,
        revisions.c.state.in_(OPEN_REVISION_STATES),
    )  # fmt: skip
    return bool(row.outdated) or db.execute(later.limit(1)).first() is not None


def _back(db: Connection, row: Row[Any]) -> RevisionEvent:
    """Return what happens to a revision whose work was cut short through no fault of its own."""
    return RevisionEvent.NEWER_INPUTS if _overtaken(db, row) else RevisionEvent.NODE_DIED


def _fail(
    db: Connection, row: Row[Any], reason: Reason, message: str, now_s: float
) -> RevisionState:
    attempts = min(row.attempts + 1, MAX_ATTEMPTS)
    after = after_failed_attempt(PlanKind(row.plan), attempts)
    detail = f"{reason}: {message}"
    if _overtaken(db, row):
        return change_revision(db, row, RevisionEvent.NEWER_INPUTS, now_s, detail)
    if after.again:
        return change_revision(
            db, row, RevisionEvent.ATTEMPT_FAILED, now_s, detail, attempts=attempts,
            node_deaths=0, run_after=now_s + after.delay_s,
        )  # fmt: skip
    if after.report:  # the analysis is given up; a report that says so is still due
        exhausted = reason if reason is Reason.TIMEOUT else Reason.ATTEMPTS_EXHAUSTED
        return change_revision(
            db, row, RevisionEvent.ATTEMPT_FAILED, now_s, detail, attempts=0, node_deaths=0,
            run_after=now_s, plan=PlanKind.REPORT, plan_state=RevisionState.FAILED,
            reason=exhausted, message=reason_text(exhausted),
        )  # fmt: skip
    state = RevisionState(row.plan_state or RevisionState.FAILED)
    event = (
        RevisionEvent.NOT_ANALYSABLE
        if state is RevisionState.NOT_ANALYSABLE
        else RevisionEvent.GIVEN_UP
    )
    text = f"{row.message or ''} The report could not be written: {message}".strip()
    return change_revision(
        db, row, event, now_s, detail, attempts=attempts, reason=row.reason or reason,
        message=text, manifest_due=True,
    )  # fmt: skip


def _boot_of(db: Connection, host: str) -> str | None:
    newest = select(boots.c.boot_id).where(boots.c.host == host).order_by(boots.c.id.desc())
    return db.execute(newest.limit(1)).scalar_one_or_none()


def _mine(claim: Claim) -> tuple[Any, ...]:
    return (
        revisions.c.id == claim.revision_id,
        revisions.c.state == "running",
        revisions.c.claim_no == claim.claim_no,
    )


def _claimed(db: Connection, claim: Claim) -> Row[Any]:
    """Return the revision of a claim that still holds, its study locked."""
    study = find_study(db, claim.study_uid)
    row = db.execute(select(revisions).where(*_mine(claim))).one_or_none()
    if study is None or row is None:
        raise StaleClaim
    return row


def _claim(db: Connection, revision_id: int, owner: str) -> Claim:
    row = db.execute(
        select(revisions, studies.c.study_uid)
        .join(studies, studies.c.id == revisions.c.study_id)
        .where(revisions.c.id == revision_id)
    ).one()
    if row.content_time is None or row.plan is None:
        raise StoreError("a claimed revision has no plan", "report this with the log")
    return Claim(
        revision_id=row.id, study_uid=row.study_uid, number=row.number, claim_no=row.claim_no,
        owner=owner, kind=PlanKind(row.plan),
        state=RevisionState(row.plan_state) if row.plan_state else None,
        reason=Reason(row.reason) if row.reason else None, message=row.message or "",
        input_key=row.input_key or "", selection_json=row.selection_json or "{}",
        through=row.through or 0, attempts=row.attempts, node_deaths=row.node_deaths,
        content_time=datetime.fromtimestamp(row.content_time, UTC),
        earlier=_earlier(db, row),
    )  # fmt: skip


def _earlier(db: Connection, row: Row[Any]) -> tuple[EarlierRow, ...]:
    """Return what was sent of earlier revisions of the study, each object once."""
    sent = exists().where(deliveries.c.result_id == results.c.id, deliveries.c.state.in_(SENT))
    query = (
        select(results, revisions.c.number)
        .join(revisions, revisions.c.id == results.c.revision_id)
        .where(revisions.c.study_id == row.study_id, revisions.c.number < row.number, sent)
        .order_by(revisions.c.number, results.c.id)
    )
    found = {
        one.sop_instance_uid: EarlierRow(
            one.kind, one.variant, one.number, one.sop_class_uid, one.sop_instance_uid,
            one.series_uid,
        )
        for one in db.execute(query)
    }  # fmt: skip
    return tuple(found.values())


def _folder(found: Sequence[ResultRow]) -> str | None:
    return found[0].path.rpartition("/")[0] if found else None
