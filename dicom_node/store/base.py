"""What the parts of the store share: transactions, locking a study, changing a state, events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dicom_node.clock import Clock
from dicom_node.domain.canary import is_canary
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.domain.states import (
    DeliveryEvent,
    DeliveryState,
    RevisionEvent,
    RevisionState,
    next_delivery_state,
    next_revision_state,
)
from dicom_node.instance import instance_name
from dicom_node.store.counters import STUDIES_RECEIVED, begin_counters, count, write_counters
from dicom_node.store.engine import READ_ONLY, unusable
from dicom_node.store.rows import StaleClaim
from dicom_node.store.schema import conflicts, deliveries, events, revisions, studies
from dicom_node.store.tallies import (
    STUDIES,
    begin_tallies,
    of_deliveries,
    of_revisions,
    tally,
    write_tallies,
)

EVENTS_PER_STUDY = 500
SENT = (DeliveryState.SENT, DeliveryState.VERIFIED)
UNJUDGED = exists().where(
    conflicts.c.study_id == revisions.c.study_id, conflicts.c.verdict == "unjudged"
)
"""Of a revision: another copy of an image of its study came, and nobody knows yet whether it
contradicts."""
_RELEASED: dict[str, Any] = {"owner": None, "host": None, "boot_id": None, "heartbeat_at": None}
_DELIVERY_RELEASED: dict[str, Any] = {"owner": None, "host": None, "heartbeat_at": None}


class Database:
    """An engine and a clock; every public method of its subclasses is one transaction."""

    def __init__(self, engine: Engine, clock: Clock, host: str | None = None) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**{READ_ONLY: True})
        self._clock = clock
        self._host = (host or instance_name())[:255]

    @property
    def clock(self) -> Clock:
        """The clock that times are written by; who compares with them uses the same."""
        return self._clock

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                begin_tallies(connection)
                begin_counters(connection)
                yield connection
                write_tallies(connection)
                write_counters(connection)
        except SQLAlchemyError as error:
            raise unusable(error) from error

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        try:
            with self._reader.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise unusable(error) from error


def lock_study(db: Connection, study_id: int) -> Row[Any]:
    """Take the study for this transaction (PostgreSQL; SQLite has locked everything)."""
    return db.execute(select(studies).where(studies.c.id == study_id).with_for_update()).one()


def find_study(db: Connection, study_uid: str) -> Row[Any] | None:
    """Return the locked row of a study, or None."""
    found = select(studies).where(studies.c.study_uid == study_uid).with_for_update()
    return db.execute(found).one_or_none()


def make_study(db: Connection, study_uid: str, now_s: float) -> Row[Any]:
    """Return the locked row of a study, made where it is new."""
    if (row := find_study(db, study_uid)) is None:
        try:
            with db.begin_nested():
                db.execute(
                    insert(studies).values(
                        study_uid=study_uid, first_received_at=now_s, last_image_at=now_s
                    )
                )
            tally(db, STUDIES)
            if not is_canary(study_uid):
                count(db, STUDIES_RECEIVED)
        except IntegrityError:
            pass  # another receiver was first; its row is as good
        row = find_study(db, study_uid)
    if row is None:
        raise RuntimeError("a study that was just written is not there")
    return row


def latest_revision(db: Connection, study_id: int) -> Row[Any] | None:
    """Return the revision of the highest number."""
    newest = revisions.c.number.desc()
    return db.execute(
        select(revisions).where(revisions.c.study_id == study_id).order_by(newest).limit(1)
    ).one_or_none()


def open_revision(
    db: Connection, study_id: int, now_s: float, state: RevisionState = RevisionState.RECEIVING
) -> Row[Any]:
    """Add the next revision of a study."""
    last = db.execute(
        select(func.max(revisions.c.number)).where(revisions.c.study_id == study_id)
    ).scalar_one()
    number = (last or 0) + 1
    made = db.execute(
        insert(revisions).values(
            study_id=study_id, number=number, state=state, created_at=now_s, changed_at=now_s
        )
    ).inserted_primary_key
    if made is None:
        raise RuntimeError("the database gave no key")
    tally(db, of_revisions(state))
    add_event(db, study_id, number, now_s, "opened", f"revision {number}")
    return db.execute(select(revisions).where(revisions.c.id == made[0])).one()


def change_revision(
    db: Connection, row: Row[Any], event: RevisionEvent, now_s: float, detail: str = "",
    **values: Any,
) -> RevisionState:  # fmt: skip
    """Move a revision by an event of the table, and write the event down.

    Raises:
        IllegalTransition: the table does not allow it.
        StaleClaim: another transaction moved it first.
    """
    source = RevisionState(row.state)
    target = next_revision_state(source, event)
    if source is RevisionState.RUNNING:
        values = {**_RELEASED, **values}
    same = (revisions.c.id == row.id) & (revisions.c.state == source)
    if row.claim_no is not None:
        same &= revisions.c.claim_no == row.claim_no
    changed = db.execute(
        update(revisions).where(same).values(state=target, changed_at=now_s, **values)
    )
    if changed.rowcount != 1:
        raise StaleClaim
    tally(db, of_revisions(source), -1)
    tally(db, of_revisions(target))
    add_event(db, row.study_id, row.number, now_s, str(event), detail)
    return target


def change_delivery(
    db: Connection, row: Row[Any], event: DeliveryEvent, now_s: float, **values: Any
) -> DeliveryState:
    """Move a delivery by an event of the table.

    Raises:
        IllegalTransition: the table does not allow it.
        StaleClaim: another transaction moved it first.
    """
    source = DeliveryState(row.state)
    target = next_delivery_state(source, event)
    if source is DeliveryState.SENDING:
        values = {**_DELIVERY_RELEASED, **values}
    changed = db.execute(
        update(deliveries)
        .where(deliveries.c.id == row.id, deliveries.c.state == source,
               deliveries.c.claim_no == row.claim_no)
        .values(state=target, since=now_s, **values)
    )  # fmt: skip
    if changed.rowcount != 1:
        raise StaleClaim
    tally(db, of_deliveries(source), -1)
    tally(db, of_deliveries(target))
    return target


def hold(db: Connection, study_id: int, reason: Reason, detail: str, now_s: float) -> None:
    """Hold a study: nothing of it starts, finishes or is sent until it is released (G4)."""
    message = reason_text(reason, detail)
    blame = {"reason": reason, "message": message, "manifest_due": True}
    active = select(revisions).where(
        revisions.c.study_id == study_id,
        revisions.c.state.in_(("receiving", "ready", "running", "analysed")),
    )
    rows = db.execute(active.order_by(revisions.c.number)).all()
    for revision_id in db.execute(
        select(revisions.c.id).where(revisions.c.study_id == study_id)
    ).scalars().all():  # fmt: skip
        withdraw_deliveries(db, revision_id, "the study is held", now_s)
    for row in rows:
        change_revision(
            db, row, RevisionEvent.CONFLICT, now_s, message, claim_no=row.claim_no + 1, **blame
        )
    last = latest_revision(db, study_id)
    if not rows and last is not None and last.state != RevisionState.HELD:
        fresh = open_revision(db, study_id, now_s)
        change_revision(db, fresh, RevisionEvent.CONFLICT, now_s, message, **blame)


def withdraw_deliveries(db: Connection, revision_id: int, message: str, now_s: float) -> None:
    """End the deliveries of a revision that have not begun."""
    pending = select(deliveries).where(
        deliveries.c.revision_id == revision_id, deliveries.c.state == DeliveryState.PENDING
    )
    for row in db.execute(pending).all():
        change_delivery(db, row, DeliveryEvent.WITHDRAWN, now_s, message=message)


def add_event(
    db: Connection, study_id: int | None, number: int | None, now_s: float, event: str, detail: str
) -> None:
    """Add a line to the timeline of a study; a timeline has a bounded length (G5)."""
    known = select(func.count()).select_from(events).where(events.c.study_id == study_id)
    if study_id is not None and db.execute(known).scalar_one() >= EVENTS_PER_STUDY:
        return
    db.execute(
        insert(events).values(
            study_id=study_id, revision=number, at=now_s, event=event, detail=detail[:2000]
        )
    )


def reason_text(reason: Reason | str, detail: str = "") -> str:
    """Plain words of a reason: what is wrong, the detail, what to do."""
    text = REASONS[Reason(reason)]
    return " ".join(part for part in (text.message, detail.strip(), text.advice) if part)
