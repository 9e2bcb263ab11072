"""What the console shows of many studies at once: pages of a list, senders, what went through.

Nothing here reads in proportion to all that was received: totals are kept, lists go through an
index and end after a page.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, case, func, select, tuple_, update

from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import (
    DeliveryEvent,
    DeliveryState,
    RevisionEvent,
    RevisionState,
)
from dicom_node.errors import NodeError, WrongUseError
from dicom_node.store.base import (
    SENT,
    Database,
    add_event,
    change_delivery,
    change_revision,
    find_study,
    latest_revision,
)
from dicom_node.store.console_rows import (
    RevisionFiles,
    SenderSeen,
    StudyLine,
    StudyPage,
    StudyQuery,
    Throughput,
)
from dicom_node.store.monitor_schema import canaries
from dicom_node.store.retention import refuse_results_removed
from dicom_node.store.schema import deliveries, instances, results, revisions, studies

_SEARCHED = 500
"""So many studies of one Patient ID are looked at."""


class OverviewStore(Database):
    """Read-only views for the console, and its button "send again"."""

    def study_page(self, query: StudyQuery) -> StudyPage:
        """Return a page of study revisions: latest first, or latest change first of a state.

        Raises:
            WrongUseError: the cursor is none of this list.
        """
        wanted = (
            select(revisions, studies.c.study_uid, studies.c.first_received_at, studies.c.instances)
            .join(studies, studies.c.id == revisions.c.study_id)
            .limit(query.limit + 1)
        )  # fmt: skip
        with self._read() as db:
            if query.text:
                if not (found := _found(db, query.text)):
                    return StudyPage((), "")
                wanted = wanted.where(revisions.c.study_id.in_(found))
            rows = db.execute(_paged(wanted, query)).all()
            shown = rows[: query.limit]
            counts = _counts(db, [row.id for row in shown])
        after = _cursor(shown[-1], query) if len(rows) > query.limit else ""
        return StudyPage(tuple(_line(row, counts) for row in shown), after)

    def revision_files(self, study_uid: str, number: int) -> RevisionFiles | None:
        """Return what was selected for a revision and where its files are."""
        of_study = (
            select(revisions.c.id, revisions.c.selection_json, revisions.c.result_folder)
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(studies.c.study_uid == study_uid, revisions.c.number == number)
        )
        with self._read() as db:
            row = db.execute(of_study).one_or_none()
            if row is None:
                return None
            made = select(results.c.sop_instance_uid, results.c.path).where(
                results.c.revision_id == row.id, results.c.kind == "key-images",
                results.c.variant == "",
            )  # fmt: skip
            pictures = tuple((one[0], one[1]) for one in db.execute(made.order_by(results.c.id)))
        return RevisionFiles(row.selection_json or "{}", row.result_folder, pictures)

    def senders_seen(self, ae_titles: list[str]) -> list[SenderSeen]:
        """Return what came last from each AE title."""
        found = []
        with self._read() as db:
            for title in ae_titles:
                last = (
                    select(instances.c.study_id, instances.c.address, instances.c.received_at)
                    .where(instances.c.calling_ae == title)
                    .order_by(instances.c.received_at.desc())
                    .limit(1)
                )
                row = db.execute(last).one_or_none()
                if row is None:
                    found.append(SenderSeen(title, None, None, None))
                    continue
                uid = select(studies.c.study_uid).where(studies.c.id == row.study_id)
                found.append(
                    SenderSeen(title, db.execute(uid).scalar_one(), row.address, row.received_at)
                )
        return found

    def throughput(self, since_s: float) -> Throughput:
        """Count what was received and what ended since a time."""
        came = select(func.count()).select_from(instances)
        came = came.where(instances.c.received_at >= since_s)
        with self._read() as db:
            tests = _canaries(db, since_s)
            received = db.execute(came).scalar_one()
            if tests:
                received -= db.execute(came.where(instances.c.study_id.in_(tests))).scalar_one()
            ended = {state: _ended(db, state, since_s, tests) for state in _ENDS}
        return Throughput(int(received), *(ended[state] for state in _ENDS))

    def destination_counts(self, names: list[str]) -> dict[str, dict[str, int]]:
        """Count the deliveries to each destination that are not there yet, or did not get there."""
        found: dict[str, dict[str, int]] = {}
        with self._read() as db:
            for name in names:
                found[name] = {
                    state: int(
                        db.execute(
                            select(func.count())
                            .select_from(deliveries)
                            .where(deliveries.c.state == state, deliveries.c.peer == name)
                        ).scalar_one()
                    )
                    for state in (DeliveryState.PENDING, DeliveryState.SENDING,
                                  DeliveryState.FAILED)
                }  # fmt: skip
        return found

    def send_again(self, study_uid: str, peer: str | None = None) -> int:
        """Send the results of the latest revision again, byte for byte; returns how many objects.

        Raises:
            NodeError: the study is unknown, held or superseded, or nothing of it was sent.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            study = find_study(db, study_uid)
            last = None if study is None else latest_revision(db, study.id)
            if study is None or last is None:
                raise NodeError(f"no study {study_uid} here", "see dicom-node studies list")
            if last.state not in _SENDABLE:
                raise NodeError(f"the study is {last.state}", "there is nothing to send again")
            over = (*SENT, DeliveryState.FAILED)
            mine = (deliveries.c.revision_id == last.id) & deliveries.c.state.in_(over)
            if peer is not None:
                mine &= deliveries.c.peer == peer
            rows = db.execute(select(deliveries).where(mine)).all()
            if not rows:
                raise NodeError("nothing of this study was sent", "there is nothing to send again")
            refuse_results_removed(db, last.id)
            for row in rows:
                _again(db, row, now_s)
            _reopened(db, last, now_s)
            return len(rows)


_ENDS = (RevisionState.DELIVERED, RevisionState.NOT_ANALYSABLE, RevisionState.FAILED)
_SENDABLE = (RevisionState.DELIVERED, RevisionState.NOT_ANALYSABLE, RevisionState.FAILED,
             RevisionState.ANALYSED)  # fmt: skip


def _again(db: Connection, row: Row[Any], now_s: float) -> None:
    failed = row.state == DeliveryState.FAILED
    event = DeliveryEvent.RETRY if failed else DeliveryEvent.SEND_AGAIN
    change_delivery(
        db, row, event, now_s, attempts=0, next_at=now_s, created_at=now_s, message=None,
        check_at=None, confirmation=None, checks=0, losses=0,
    )  # fmt: skip


def _reopened(db: Connection, row: Row[Any], now_s: float) -> None:
    """Let the revision wait for its deliveries; one that ended without a result stays so."""
    detail = "sent again by the operator"
    undelivered = row.state == RevisionState.FAILED and row.reason == Reason.DELIVERY_FAILED
    if undelivered or row.state == RevisionState.DELIVERED:
        change_revision(
            db, row, RevisionEvent.DELIVER_AGAIN, now_s, detail, manifest_due=True,
            reason=None, message=None,
        )  # fmt: skip
        return
    add_event(db, row.study_id, row.number, now_s, RevisionEvent.DELIVER_AGAIN, detail)
    db.execute(update(revisions).where(revisions.c.id == row.id).values(manifest_due=True))


def _found(db: Connection, text: str) -> list[int]:
    """Return studies by UID or Patient ID."""
    if not text.isprintable():
        return []
    by_patient = select(studies.c.id).where(studies.c.patient_id == text).limit(_SEARCHED)
    by_uid = select(studies.c.id).where(studies.c.study_uid == text)
    found = [*db.execute(by_patient).scalars(), *db.execute(by_uid).scalars()]
    return sorted(set(found))


def _paged(wanted: Select[Any], query: StudyQuery) -> Select[Any]:
    try:
        changed, _, number = query.after.rpartition(":")
        last_id = int(number) if query.after else 0
        changed_s = float(changed) if changed else None
    except ValueError:
        raise WrongUseError(f"'{query.after}' is no cursor", "begin at the first page") from None
    if query.state is None:
        wanted = wanted.where(revisions.c.id < last_id) if query.after else wanted
        return wanted.order_by(revisions.c.id.desc())
    wanted = wanted.where(revisions.c.state == query.state)
    if changed_s is not None:
        place = tuple_(revisions.c.changed_at, revisions.c.id)
        wanted = wanted.where(place < tuple_(changed_s, last_id))
    return wanted.order_by(revisions.c.changed_at.desc(), revisions.c.id.desc())


def _cursor(row: Row[Any], query: StudyQuery) -> str:
    return f"{row.id}" if query.state is None else f"{row.changed_at!r}:{row.id}"


def _counts(db: Connection, revision_ids: list[int]) -> dict[int, tuple[int, int]]:
    """Return how many deliveries the revisions have, and how many of them have arrived."""
    if not revision_ids:
        return {}
    arrived = func.sum(case((deliveries.c.state.in_(SENT), 1), else_=0))
    query = (
        select(deliveries.c.revision_id, func.count(), arrived)
        .where(deliveries.c.revision_id.in_(revision_ids))
        .group_by(deliveries.c.revision_id)
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in db.execute(query)}


def _line(row: Row[Any], counts: dict[int, tuple[int, int]]) -> StudyLine:
    objects, sent = counts.get(row.id, (0, 0))
    return StudyLine(
        row.study_uid, row.number, RevisionState(row.state), row.reason, row.message,
        row.instances, row.first_received_at, row.changed_at, objects, sent,
    )  # fmt: skip


def _canaries(db: Connection, since_s: float) -> list[int]:
    """Return the test studies that were under way since a time; none lasts for a day."""
    query = (
        select(studies.c.id)
        .join(canaries, canaries.c.study_uid == studies.c.study_uid)
        .where(canaries.c.started_at >= since_s - 86_400)
    )
    return list(db.execute(query).scalars())


def _ended(db: Connection, state: RevisionState, since_s: float, tests: list[int]) -> int:
    query = select(func.count()).select_from(revisions)
    ended = query.where(revisions.c.state == state, revisions.c.changed_at >= since_s)
    if tests:
        ended = ended.where(revisions.c.study_id.not_in(tests))
    return int(db.execute(ended).scalar_one())
