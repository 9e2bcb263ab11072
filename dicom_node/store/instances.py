"""Received instances: what came, what came again, what contradicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from dicom_node.domain.annotation import ANNOTATION_CLASSES
from dicom_node.domain.canary import is_canary
from dicom_node.domain.identity import Difference, Identity, same_patient
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import RevisionEvent, RevisionState
from dicom_node.store.annotations import contradict_annotation, note_annotations
from dicom_node.store.base import (
    Database,
    add_event,
    change_revision,
    find_study,
    hold,
    latest_revision,
    make_study,
    open_revision,
)
from dicom_node.store.corrections import corrected_copies, covers, identity_of, swap
from dicom_node.store.counters import INSTANCES_RECEIVED, count
from dicom_node.store.restoring import keep_file, look_again, take_back
from dicom_node.store.rows import ConflictRow, IngestOutcome, InstanceRow
from dicom_node.store.schema import conflicts, events, instances, results, studies
from dicom_node.store.tallies import BYTES, COPIES, INSTANCES, tally


class InstanceStore(Database):
    """Transactions of the receive path."""

    def find_instance(self, study_uid: str, sop_instance_uid: str) -> InstanceRow | None:
        """Return the kept copy of an instance."""
        with self._read() as db:
            row = db.execute(
                _joined().where(
                    studies.c.study_uid == study_uid,
                    instances.c.sop_instance_uid == sop_instance_uid,
                )
            ).one_or_none()
        return None if row is None else _instance(row)

    def add_instance(self, row: InstanceRow) -> IngestOutcome:
        """Take one received instance whose file is durable; see ``add_instances``."""
        return self.add_instances([row])[0]

    def add_instances(self, rows: Sequence[InstanceRow]) -> list[IngestOutcome]:
        """Take received instances whose files are durable, in order, in one transaction.

        A second copy with other bytes is kept aside for judging; the first stays. An image of
        another patient holds the study at once (G4).
        """
        now_s = self._clock.now_s()
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.study_uid, []).append(place)
        outcomes = [IngestOutcome.DUPLICATE] * len(rows)
        with self._write() as db:
            # in one order everywhere, so that two receivers never wait for each other
            for study_uid in sorted(places):
                study = make_study(db, study_uid, now_s)
                mine = [rows[place] for place in places[study_uid]]
                for place, outcome in zip(
                    places[study_uid], _add_to_study(db, study, mine, now_s), strict=True
                ):
                    outcomes[place] = outcome
        return outcomes

    def known_paths(self, paths: Sequence[str]) -> set[str]:
        """Which of these files an instance counts on already."""
        with self._read() as db:
            kept = instances.c.path.in_(paths) & instances.c.removed_at.is_(None)
            query = select(instances.c.path).where(kept)
            return set(db.execute(query).scalars())

    def known_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made the object."""
        with self._read() as db:
            found = select(results.c.id).where(results.c.sop_instance_uid == sop_instance_uid)
            return db.execute(found.limit(1)).first() is not None

    def record_own_object(self, study_uid: str, sop_instance_uid: str, calling_ae: str) -> None:
        """Note that an object of this product came back; once for each object."""
        detail = f"{sop_instance_uid} from {calling_ae}"
        with self._write() as db:
            study = find_study(db, study_uid)
            same = (events.c.event == "own_object") & (events.c.detail == detail)
            if study is None:
                return
            known = select(events.c.id).where(same, events.c.study_id == study.id).limit(1)
            if db.execute(known).first() is None:
                add_event(db, study.id, None, self._clock.now_s(), "own_object", detail)

    def headers_of(self, study_uid: str, through: int | None = None) -> list[InstanceRow]:
        """Return the instances of a study in order of arrival, up to an instance id."""
        query = _joined().where(studies.c.study_uid == study_uid).order_by(instances.c.id)
        if through is not None:
            query = query.where(instances.c.id <= through)
        with self._read() as db:
            return [_instance(row) for row in db.execute(query)]

    def instances_of(self, study_uid: str) -> list[InstanceRow]:
        """Return every instance of a study in order of arrival."""
        return self.headers_of(study_uid)

    def paths_since(self, since_s: float = 0.0) -> set[str]:
        """Files that the database counts on, of instances received since a time."""
        found: set[str] = set()
        with self._read() as db:
            for table in (instances, conflicts):
                query = select(table.c.path).where(table.c.received_at >= since_s)
                if table is instances:
                    query = query.where(instances.c.removed_at.is_(None))
                found.update(db.execute(query).scalars())
        return found

    # copies that differ

    def conflicts_to_judge(self, limit: int = 50) -> list[ConflictRow]:
        """Return copies whose difference from the kept one is not known yet."""
        return self._conflicts(conflicts.c.verdict == "unjudged", limit)

    def conflicts_of(self, study_uid: str) -> list[ConflictRow]:
        """All copies kept aside for a study, oldest first."""
        return self._conflicts(studies.c.study_uid == study_uid, None)

    def _conflicts(self, condition: Any, limit: int | None) -> list[ConflictRow]:
        query = (
            select(
                conflicts, studies.c.study_uid, instances.c.sop_instance_uid,
                instances.c.path.label("kept_path"),
            )
            .join(instances, instances.c.id == conflicts.c.instance_id)
            .join(studies, studies.c.id == conflicts.c.study_id)
            .where(condition)
            .order_by(conflicts.c.id)
            .limit(limit)
        )  # fmt: skip
        with self._read() as db:
            return [_conflict(row) for row in db.execute(query)]

    def begin_judging(self, conflict_id: int) -> int:
        """Count a judging before it starts, so that a file that kills the judge is noticed."""
        with self._write() as db:
            db.execute(
                update(conflicts)
                .where(conflicts.c.id == conflict_id)
                .values(judgings=conflicts.c.judgings + 1)
            )
            found = select(conflicts.c.judgings).where(conflicts.c.id == conflict_id)
            return int(db.execute(found).scalar_one())

    def judge(self, conflict: ConflictRow, verdict: Difference, detail: str) -> None:
        """Write the verdict down; a copy with other content holds the study.

        Of an annotation it holds nothing: the annotation is not used any more.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            study = find_study(db, conflict.study_uid)
            if study is None:
                return
            db.execute(
                update(conflicts).where(conflicts.c.id == conflict.id).values(verdict=verdict)
            )
            add_event(db, study.id, None, now_s, f"second_copy_{verdict}", detail)
            if verdict is Difference.OTHER and not contradict_annotation(
                db, study.id, conflict.sop_instance_uid, now_s
            ):
                hold(db, study.id, Reason.SAME_UID_OTHER_BYTES, detail, now_s)
            elif verdict is Difference.DEMOGRAPHICS:
                _touch(db, study, now_s)

    def adopt_demographics(self, study_uid: str) -> bool:
        """Take the corrected copies when every image of the study came again with them.

        Returns whether they were taken. Images that came after the first corrected copy, or that
        were right from the start, count if they show the same patient. A study held for its
        identity is released by this.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            study = find_study(db, study_uid)
            if study is None:
                return False
            newer = corrected_copies(db, study.id)
            if not newer or not covers(db, study.id, newer):
                return False
            for instance_id, copy in newer.items():
                swap(db, instance_id, copy)
            first = next(iter(newer.values()))
            names = ("patient_id", "issuer", "birth_date")
            db.execute(
                update(studies)
                .where(studies.c.id == study.id)
                .values(**{name: getattr(first, name) for name in names})
            )
            _touch(db, study, now_s)
            add_event(db, study.id, None, now_s, "demographics_changed", f"{len(newer)} images")
            last = latest_revision(db, study.id)
            if last is not None and last.state == RevisionState.HELD and (
                last.reason == Reason.IDENTITY_CONFLICT
            ):  # fmt: skip
                change_revision(db, last, RevisionEvent.RESOLVED, now_s, reason=None, message=None)
            return True


def _joined() -> Any:
    study = studies.c.study_uid
    return select(instances, study).join(studies, studies.c.id == instances.c.study_id)


def _columns(row: InstanceRow) -> dict[str, Any]:
    return {
        "sop_instance_uid": row.sop_instance_uid, "sop_class_uid": row.sop_class_uid,
        "series_uid": row.series_uid, "transfer_syntax_uid": row.transfer_syntax_uid,
        "role": row.role, "header_json": row.header_json, "dataset_digest": row.dataset_digest,
        "path": row.path, "size": row.size, "received_at": row.received_at_s,
        "calling_ae": row.calling_ae, "called_ae": row.called_ae, "address": row.address,
        "patient_id": row.identity.patient_id, "issuer": row.identity.issuer,
        "birth_date": row.identity.birth_date,
    }  # fmt: skip


def _instance(row: Row[Any]) -> InstanceRow:
    return InstanceRow(
        study_uid=row.study_uid, series_uid=row.series_uid, sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid, transfer_syntax_uid=row.transfer_syntax_uid,
        role=row.role, identity=identity_of(row), header_json=row.header_json,
        dataset_digest=row.dataset_digest, path=row.path, size=row.size,
        received_at_s=row.received_at, calling_ae=row.calling_ae, called_ae=row.called_ae,
        address=row.address, id=row.id, removed_at_s=row.removed_at,
    )  # fmt: skip


def _conflict(row: Row[Any]) -> ConflictRow:
    return ConflictRow(
        id=row.id, study_uid=row.study_uid, sop_instance_uid=row.sop_instance_uid,
        verdict=row.verdict, judgings=row.judgings, kept_path=row.kept_path, path=row.path,
        received_at_s=row.received_at, identity=identity_of(row), header_json=row.header_json,
    )  # fmt: skip


def _add_to_study(
    db: Connection, study: Row[Any], rows: Sequence[InstanceRow], now_s: float
) -> list[IngestOutcome]:
    """Insert what is new, then judge what is there already, or twice among ``rows``."""
    uids = {row.sop_instance_uid for row in rows}
    same = (instances.c.study_id == study.id) & instances.c.sop_instance_uid.in_(uids)
    kept = set(db.execute(select(instances.c.sop_instance_uid).where(same)).scalars())
    fresh: dict[str, InstanceRow] = {}
    for row in rows:
        if row.sop_instance_uid not in kept:
            fresh.setdefault(row.sop_instance_uid, row)
    if fresh:
        values = [{"study_id": study.id, **_columns(row)} for row in fresh.values()]
        db.execute(insert(instances), values)
        tally(db, INSTANCES, len(fresh))
        tally(db, BYTES, sum(row.size for row in fresh.values()))
        if not is_canary(study.study_uid):
            count(db, INSTANCES_RECEIVED, more=len(fresh))
            note_annotations(
                db,
                study.id,
                [uid for uid, row in fresh.items() if row.sop_class_uid in ANNOTATION_CLASSES],
                now_s,
            )
        _count_in(db, study, list(fresh.values()), now_s)
    return [
        IngestOutcome.STORED
        if fresh.get(row.sop_instance_uid) is row
        else _second_copy(db, study, row, now_s)
        for row in rows
    ]


def _second_copy(db: Connection, study: Row[Any], row: InstanceRow, now_s: float) -> IngestOutcome:
    kept = db.execute(
        select(instances).where(
            instances.c.study_id == study.id,
            instances.c.sop_instance_uid == row.sop_instance_uid,
        )
    ).one()
    if kept.removed_at is not None:
        take_back(db, study, kept, _columns(row), now_s)
        return IngestOutcome.RESTORED
    same = (row.dataset_digest, row.transfer_syntax_uid)
    if same == (kept.dataset_digest, kept.transfer_syntax_uid):
        return IngestOutcome.DUPLICATE
    known = select(conflicts.c.id).where(
        conflicts.c.instance_id == kept.id,
        conflicts.c.dataset_digest == row.dataset_digest,
        conflicts.c.transfer_syntax_uid == row.transfer_syntax_uid,
    )
    if db.execute(known).first() is not None:
        return IngestOutcome.DUPLICATE
    db.execute(
        insert(conflicts).values(
            study_id=study.id, instance_id=kept.id, verdict="unjudged",
            header_json=row.header_json, transfer_syntax_uid=row.transfer_syntax_uid,
            dataset_digest=row.dataset_digest, path=row.path, size=row.size,
            received_at=row.received_at_s, patient_id=row.identity.patient_id,
            issuer=row.identity.issuer, birth_date=row.identity.birth_date,
        )
    )  # fmt: skip
    keep_file(db, row.path)
    tally(db, COPIES)
    return IngestOutcome.CONFLICT


def _count_in(db: Connection, study: Row[Any], rows: Sequence[InstanceRow], now_s: float) -> None:
    """Let new instances move the study on; what can be an annotation never does."""
    values = {"instances": studies.c.instances + len(rows)}
    moving = [row for row in rows if row.sop_class_uid not in ANNOTATION_CLASSES]
    images = [row for row in moving if row.role == "image"]
    if moving and latest_revision(db, study.id) is None:
        open_revision(db, study.id, now_s)
    if images or (moving and not study.has_images):
        values |= _moved(study, now_s, image=bool(images))
    db.execute(update(studies).where(studies.c.id == study.id).values(**values))
    if study.images_removed_at is not None:
        look_again(db, study.id, now_s)
    if not images:
        return
    known = None if study.patient_id is None else identity_of(study)
    seen, agrees = known, True
    for image in images:
        if seen is None:
            seen = image.identity
        elif same_patient(seen, image.identity):
            seen = _filled(seen, image.identity)
        else:
            agrees = False
    if seen is not None and seen != known:
        db.execute(
            update(studies)
            .where(studies.c.id == study.id)
            .values(patient_id=seen.patient_id, issuer=seen.issuer, birth_date=seen.birth_date)
        )
    if not agrees:
        hold(db, study.id, Reason.IDENTITY_CONFLICT, "", now_s)


def _filled(known: Identity, seen: Identity) -> Identity:
    """Keep an issuer or birth date that earlier images did not give."""
    return Identity(
        known.patient_id, known.issuer or seen.issuer, known.birth_date or seen.birth_date
    )


def _touch(db: Connection, study: Row[Any], now_s: float) -> None:
    """Have a study looked at anew, as if an image had come."""
    moved = _moved(study, now_s, image=True)
    db.execute(update(studies).where(studies.c.id == study.id).values(**moved))


def _moved(study: Row[Any], now_s: float, *, image: bool) -> dict[str, Any]:
    return {
        "last_image_at": now_s, "change_no": studies.c.change_no + 1, "evaluate_at": None,
        "has_images": bool(study.has_images) or image,
    }  # fmt: skip
