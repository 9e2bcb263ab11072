"""Canaries of the path: test studies, and where they stand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from dicom_node.domain.canary import CanaryRun, CanarySeen, Judgement, RunState
from dicom_node.domain.states import DeliveryState, RevisionState
from dicom_node.errors import NodeError
from dicom_node.store.base import Database, latest_revision
from dicom_node.store.monitor_schema import canaries
from dicom_node.store.schema import deliveries, results, studies

KEPT_RUNS = 1000
"""So many runs are kept (G5)."""


class CanaryStore(Database):
    """Transactions about canaries."""

    def canary_begin(self, study_uid: str, *, scheduled: bool) -> CanaryRun:
        """Begin a run.

        Raises:
            NodeError: another one goes on.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            going_on = select(canaries.c.id).where(canaries.c.state == RunState.RUNNING)
            if db.execute(going_on.limit(1)).first() is not None:
                raise NodeError("a canary is on its way already", "see dicom-node canary list")
            db.execute(
                insert(canaries).values(
                    study_uid=study_uid, scheduled=scheduled, state=RunState.RUNNING, message="",
                    started_at=now_s,
                )
            )  # fmt: skip
            newest = select(canaries.c.id).order_by(canaries.c.id.desc())
            last = db.execute(newest.offset(KEPT_RUNS).limit(1)).scalar()
            if last is not None:
                db.execute(delete(canaries).where(canaries.c.id <= last))
            made = select(canaries).where(canaries.c.study_uid == study_uid)
            return _run(db.execute(made).one())

    def canary_end(self, run: CanaryRun, judgement: Judgement) -> None:
        """Write down what became of a run, once."""
        mine = (canaries.c.id == run.id) & (canaries.c.state == RunState.RUNNING)
        values = {"state": judgement.state, "message": judgement.message[:255]}
        with self._write() as db:
            db.execute(update(canaries).where(mine).values(**values, ended_at=self._clock.now_s()))

    def canary_runs(self, limit: int = 100) -> list[CanaryRun]:
        """Return runs, the latest first."""
        query = select(canaries).order_by(canaries.c.id.desc()).limit(limit)
        with self._read() as db:
            return [_run(row) for row in db.execute(query)]

    def canary_going_on(self) -> CanaryRun | None:
        """Return the run that goes on."""
        query = select(canaries).where(canaries.c.state == RunState.RUNNING).limit(1)
        with self._read() as db:
            row = db.execute(query).first()
            return None if row is None else _run(row)

    def canary_last(self, state: RunState | None = None) -> CanaryRun | None:
        """Return the run that ended last; of a state."""
        ended = select(canaries).where(canaries.c.ended_at.is_not(None))
        if state is not None:
            ended = ended.where(canaries.c.state == state)
        with self._read() as db:
            row = db.execute(ended.order_by(canaries.c.id.desc()).limit(1)).first()
            return None if row is None else _run(row)

    def canary_seen(self, study_uid: str) -> CanarySeen:
        """Return where the study of a run stands."""
        with self._read() as db:
            found = select(studies.c.id).where(studies.c.study_uid == study_uid)
            study_id = db.execute(found).scalar_one_or_none()
            row = None if study_id is None else latest_revision(db, study_id)
            if row is None:
                return CanarySeen(None)
            made = select(func.count()).select_from(results)
            number = db.execute(made.where(results.c.revision_id == row.id)).scalar_one()
            sent = select(deliveries).where(deliveries.c.revision_id == row.id)
            told = tuple(
                (DeliveryState(one.state), one.check_at is not None) for one in db.execute(sent)
            )
        return CanarySeen(RevisionState(row.state), row.reason or "", int(number), told)


def _run(row: Row[Any]) -> CanaryRun:
    return CanaryRun(
        row.id, row.study_uid, row.scheduled, row.started_at, row.ended_at, RunState(row.state),
        row.message,
    )  # fmt: skip
