"""Annotations: noted with the instance that holds them, judged once, replaced by later ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from dicom_node.domain.annotation import (
    ANNOTATION_CLASSES,
    ANNOTATION_REASONS,
    AnnotationKind,
    AnnotationReason,
    AnnotationState,
    Part,
)
from dicom_node.domain.identity import Identity
from dicom_node.domain.states import RevisionState
from dicom_node.store.annotation_schema import annotation_table
from dicom_node.store.base import Database, add_event, find_study
from dicom_node.store.deliveries import result_row
from dicom_node.store.observations import keep_agreement
from dicom_node.store.rows import (
    AnnotationDue,
    AnnotationOutcome,
    AnnotationRow,
    InstanceRow,
    SentRevision,
)
from dicom_node.store.schema import instances, results, revisions, studies

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 600.0
_OPEN = (AnnotationState.PENDING, AnnotationState.WAITING)
_STANDING = (AnnotationState.USED, AnnotationState.SUPERSEDED)


class AnnotationStore(Database):
    """Transactions around annotations."""

    def annotations_due(self, limit: int = 20) -> list[AnnotationDue]:
        """Return what waits to be judged, the longest waiting first."""
        now_s = self._clock.now_s()
        # far in the future: the clock was set back since
        due = or_(
            annotation_table.c.next_at <= now_s, annotation_table.c.next_at > now_s + LONGEST_WAIT_S
        )
        query = _joined().where(annotation_table.c.state.in_(_OPEN), due)
        with self._read() as db:
            rows = db.execute(query.order_by(annotation_table.c.next_at).limit(limit)).all()
        return [AnnotationDue(row.id, AnnotationKind(row.kind), _instance(row)) for row in rows]

    def begin_annotation(self, annotation_id: int) -> int:
        """Count a judging before it starts, so that an object that kills the judge is noticed."""
        mine = annotation_table.c.id == annotation_id
        with self._write() as db:
            db.execute(
                update(annotation_table)
                .where(mine)
                .values(judgings=annotation_table.c.judgings + 1)
            )
            return int(db.execute(select(annotation_table.c.judgings).where(mine)).scalar_one())

    def settle_annotation(self, due: AnnotationDue, outcome: AnnotationOutcome) -> None:
        """Write down what became of a judging; one that waits is due again later."""
        now_s = self._clock.now_s()
        with self._write() as db:
            study = find_study(db, due.instance.study_uid)
            row = db.execute(
                select(annotation_table).where(annotation_table.c.id == due.id)
            ).one_or_none()
            if study is None or row is None:
                return
            wait_s = min(FIRST_WAIT_S * 2 ** min(row.waits, 20), LONGEST_WAIT_S)
            made_at = outcome.made_at or _stamp(due.instance.received_at_s)
            db.execute(
                update(annotation_table)
                .where(annotation_table.c.id == due.id)
                .values(
                    state=outcome.state, reason=outcome.reason, message=outcome.message or None,
                    person=outcome.person, made_at=made_at,
                    parts=" ".join(sorted(outcome.parts)), revision=outcome.revision,
                    detail_json=outcome.detail_json, superseded_by=None, judgings=0,
                    waits=row.waits + 1, next_at=now_s + wait_s, judged_at=now_s,
                )
            )  # fmt: skip
            _supersede(db, study.id)
            keep_agreement(db, study.id)
            if (row.state, row.reason) != (outcome.state, outcome.reason):
                detail = f"{due.kind} {outcome.state}: {outcome.message or due.instance.series_uid}"
                add_event(db, study.id, outcome.revision, now_s, "annotation", detail)

    def annotations_of(self, study_uid: str | None = None) -> list[AnnotationRow]:
        """Return annotations of a study, or of all, in order of arrival."""
        query = _joined().order_by(annotation_table.c.id)
        if study_uid is not None:
            query = query.where(studies.c.study_uid == study_uid)
        with self._read() as db:
            return [_annotation(row) for row in db.execute(query)]

    def annotations_latest(self, limit: int, before: int | None = None) -> list[AnnotationRow]:
        """Return the latest annotations, those in front of a number, the latest first."""
        query = _joined().order_by(annotation_table.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(annotation_table.c.id < before)
        with self._read() as db:
            return [_annotation(row) for row in db.execute(query)]

    def sent_revisions(self, study_uid: str) -> list[SentRevision]:
        """Return the revisions of a study that have results, newest first."""
        query = (
            select(revisions)
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(studies.c.study_uid == study_uid)
            .order_by(revisions.c.number.desc())
        )
        with self._read() as db:
            found = []
            for row in db.execute(query).all():
                made = select(results).where(
                    results.c.revision_id == row.id, results.c.removed_at.is_(None)
                )
                objects = [result_row(one) for one in db.execute(made.order_by(results.c.id))]
                state = RevisionState(row.state)
                found.append(SentRevision(row.number, state, row.through, tuple(objects)))
        return found


def note_annotations(
    db: Connection, study_id: int, sop_instance_uids: Sequence[str], now_s: float
) -> None:
    """Give each new instance that can be an annotation its row, as part of its filing."""
    if not sop_instance_uids:
        return
    query = select(instances.c.id, instances.c.sop_class_uid).where(
        instances.c.study_id == study_id, instances.c.sop_instance_uid.in_(sop_instance_uids)
    )
    values = [
        {
            "study_id": study_id, "instance_id": row.id, "next_at": now_s,
            "kind": ANNOTATION_CLASSES[row.sop_class_uid], "state": AnnotationState.PENDING,
        }
        for row in db.execute(query.order_by(instances.c.id))
    ]  # fmt: skip
    db.execute(insert(annotation_table), values)


def reopen_annotations(db: Connection, study_id: int, now_s: float) -> None:
    """Have annotations judged again that were judged while the study had no result."""
    db.execute(
        update(annotation_table)
        .where(
            annotation_table.c.study_id == study_id,
            annotation_table.c.revision.is_(None),
            annotation_table.c.reason.is_distinct_from(AnnotationReason.SAME_UID_OTHER_BYTES),
        )
        .values(state=AnnotationState.PENDING, superseded_by=None, next_at=now_s)
    )  # fmt: skip


def contradict_annotation(
    db: Connection, study_id: int, sop_instance_uid: str, now_s: float
) -> bool:
    """Set an annotation aside that came again with other content; False where it is none."""
    query = (
        select(annotation_table.c.id)
        .join(instances, instances.c.id == annotation_table.c.instance_id)
        .where(
            instances.c.study_id == study_id, instances.c.sop_instance_uid == sop_instance_uid
        )
    )  # fmt: skip
    found = db.execute(query).scalar_one_or_none()
    if found is None:
        return False
    reason = AnnotationReason.SAME_UID_OTHER_BYTES
    text = ANNOTATION_REASONS[reason]
    db.execute(
        update(annotation_table)
        .where(annotation_table.c.id == found)
        .values(
            state=text.state, reason=reason, message=text.words, parts="", superseded_by=None,
            judged_at=now_s,
        )
    )  # fmt: skip
    _supersede(db, study_id)
    keep_agreement(db, study_id)
    return True


def _supersede(db: Connection, study_id: int) -> None:
    """Let a later annotation of a person replace an earlier one whose parts it all covers."""
    query = select(annotation_table).where(
        annotation_table.c.study_id == study_id, annotation_table.c.state.in_(_STANDING)
    )
    rows = sorted(db.execute(query), key=lambda row: (row.made_at, row.id))
    for place, row in enumerate(rows):
        parts = set(row.parts.split())
        by = next(
            (
                later.id for later in reversed(rows[place + 1 :])
                if later.person == row.person and parts <= set(later.parts.split())
            ),
            None,
        )  # fmt: skip
        state = AnnotationState.USED if by is None else AnnotationState.SUPERSEDED
        if (row.state, row.superseded_by) != (state, by):
            changed = update(annotation_table).where(annotation_table.c.id == row.id)
            db.execute(changed.values(state=state, superseded_by=by))


def _stamp(time_s: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.localtime(time_s))


def _joined() -> Any:
    names = [
        column.label(f"held_{column.name}")
        for column in instances.c
        if column.name not in ("study_id",)
    ]
    return (
        select(annotation_table, studies.c.study_uid, *names)
        .join(instances, instances.c.id == annotation_table.c.instance_id)
        .join(studies, studies.c.id == annotation_table.c.study_id)
    )


def _instance(row: Row[Any]) -> InstanceRow:
    return InstanceRow(
        study_uid=row.study_uid, series_uid=row.held_series_uid,
        sop_class_uid=row.held_sop_class_uid,
        sop_instance_uid=row.held_sop_instance_uid,
        transfer_syntax_uid=row.held_transfer_syntax_uid, role=row.held_role,
        identity=Identity(
            row.held_patient_id, row.held_issuer, row.held_birth_date
        ),
        header_json=row.held_header_json, dataset_digest=row.held_dataset_digest,
        path=row.held_path, size=row.held_size,
        received_at_s=row.held_received_at, calling_ae=row.held_calling_ae,
        called_ae=row.held_called_ae, address=row.held_address, id=row.held_id,
    )  # fmt: skip


def _annotation(row: Row[Any]) -> AnnotationRow:
    return AnnotationRow(
        id=row.id, kind=AnnotationKind(row.kind), state=AnnotationState(row.state),
        reason=row.reason, message=row.message, person=row.person, made_at=row.made_at,
        parts=frozenset(Part(part) for part in row.parts.split()), revision=row.revision,
        superseded_by=row.superseded_by, detail_json=row.detail_json,
        judged_at_s=row.judged_at, instance=_instance(row),
    )  # fmt: skip
