"""What people and scripts see: lists of studies, timelines, the status of the node."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select, update

from dicom_node.domain.states import DeliveryState, RevisionState
from dicom_node.store.base import Database
from dicom_node.store.deliveries import result_row
from dicom_node.store.engine import quick_check
from dicom_node.store.rows import ManifestDelivery, ManifestRow, OmissionRow
from dicom_node.store.schema import (
    audit_state,
    deliveries,
    events,
    instances,
    omissions,
    results,
    revisions,
    studies,
)
from dicom_node.store.tallies import (
    BYTES,
    COPIES,
    INSTANCES,
    RESULTS,
    STUDIES,
    of_deliveries,
    of_revisions,
    read_tallies,
)
from dicom_node.store.times import iso

_BATCH = 400


class ReportStore(Database):
    """Read-only views, and the manifests that let a database be rebuilt."""

    def studies_list(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Study revisions, newest first, in the shape of the contract."""
        with self._read() as db:
            return _studies(db, None, limit)

    def studies_show(self, study_uid: str) -> list[dict[str, Any]]:
        """Return the revisions of one study, newest first; empty where it is unknown."""
        with self._read() as db:
            return _studies(db, study_uid, None)

    def timeline(self, study_uid: str) -> list[dict[str, Any]]:
        """Return what happened to a study, oldest first. ``revision`` None: to the whole study."""
        query = (
            select(events)
            .join(studies, studies.c.id == events.c.study_id)
            .where(studies.c.study_uid == study_uid)
            .order_by(events.c.id)
        )
        with self._read() as db:
            return [
                {"at": iso(row.at), "event": row.event, "detail": row.detail,
                 "revision": row.revision}
                for row in db.execute(query)
            ]  # fmt: skip

    def delivery_details(self, study_uid: str) -> list[dict[str, Any]]:
        """Every delivery of a study with its last answer and next try."""
        query = (
            select(deliveries, results.c.kind, results.c.sop_instance_uid, revisions.c.number)
            .join(results, results.c.id == deliveries.c.result_id)
            .join(revisions, revisions.c.id == deliveries.c.revision_id)
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(studies.c.study_uid == study_uid)
            .order_by(revisions.c.number, deliveries.c.peer, deliveries.c.rank, deliveries.c.id)
        )
        with self._read() as db:
            rows = db.execute(query).all()
        return [
            {
                "revision": row.number, "kind": row.kind,
                "sop_instance_uid": row.sop_instance_uid, "peer": row.peer, "state": row.state,
                "attempts": row.attempts, "status": row.status, "message": row.message,
                "next_at": iso(row.next_at) if row.state == DeliveryState.PENDING else None,
                "sent_at": iso(row.sent_at), "confirmation": row.confirmation,
            }
            for row in rows
        ]  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Return counts and ages of everything the node holds."""
        now_s = self._clock.now_s()
        unfinished = revisions.c.state.in_(("receiving", "ready", "running", "analysed"))
        pending = deliveries.c.state.in_(("pending", "sending"))
        waits: dict[str, float | None] = {}
        with self._read() as db:
            total = read_tallies(db)
            trail = db.execute(select(audit_state)).one()
            for name, table, condition in (
                ("revision", revisions, unfinished), ("delivery", deliveries, pending),
            ):  # fmt: skip
                oldest = db.execute(
                    select(func.min(table.c.created_at)).where(condition)
                ).scalar_one()
                waits[name] = None if oldest is None else round(max(0.0, now_s - oldest), 1)
        return {
            "time": iso(now_s),
            "held": {
                "studies": total[STUDIES], "instances": total[INSTANCES],
                "copies_aside": total[COPIES], "results": total[RESULTS], "bytes": total[BYTES],
            },
            "revisions": {str(state): total[of_revisions(state)] for state in RevisionState},
            "deliveries": {str(state): total[of_deliveries(state)] for state in DeliveryState},
            "oldest_unfinished_s": waits,
            "audit": {
                "records": trail.head_id, "not_forwarded": trail.head_id - trail.forwarded_id,
            },
            "database": self._engine.dialect.name,
        }  # fmt: skip

    def manifests_due(self, limit: int = 20) -> list[ManifestRow]:
        """Revisions that changed since their manifest was written."""
        query = select(revisions.c.id).where(
            revisions.c.manifest_due, revisions.c.result_folder.is_not(None)
        )
        with self._read() as db:
            return [manifest_row(db, found) for found in db.execute(query.limit(limit)).scalars()]

    def manifest_written(self, row: ManifestRow) -> None:
        """Note that a manifest is on disk; one that changed meanwhile stays due."""
        with self._write() as db:
            if manifest_row(db, row.revision_id) == row:
                db.execute(
                    update(revisions)
                    .where(revisions.c.id == row.revision_id)
                    .values(manifest_due=False)
                )

    def check_integrity(self) -> None:
        """Read every table once.

        Raises:
            StoreError: the database is damaged.
        """
        with self._read() as db:
            quick_check(db)
            for table in (studies, instances, revisions, results, deliveries):
                _count(db, table)


def manifest_row(db: Connection, revision_id: int) -> ManifestRow:
    """Return a revision with its results and deliveries."""
    row = db.execute(
        select(revisions, studies.c.study_uid, studies.c.images_removed_at)
        .join(studies, studies.c.id == revisions.c.study_id)
        .where(revisions.c.id == revision_id)
    ).one()
    found = []
    of_revision = select(results).where(results.c.revision_id == revision_id)
    made = db.execute(of_revision.order_by(results.c.id)).all()
    for result in made:
        sent = select(deliveries).where(deliveries.c.result_id == result.id)
        to = tuple(
            ManifestDelivery(one.peer, DeliveryState(one.state), one.attempts)
            for one in db.execute(sent.order_by(deliveries.c.id))
        )
        found.append((result_row(result), to))
    return ManifestRow(
        revision_id=row.id, study_uid=row.study_uid, number=row.number,
        state=RevisionState(row.state), reason=row.reason, message=row.message,
        input_key=row.input_key, content_time_s=row.content_time,
        folder=row.result_folder or "", results=tuple(found),
        left_out=tuple(
            OmissionRow(one["peer"], one["kind"], one["replaced_by"], one["reason"])
            for one in _omissions(db, [revision_id]).get(revision_id, [])
        ),
        images_removed_at_s=row.images_removed_at,
        results_removed_at_s=made[0].removed_at if made else None,
    )  # fmt: skip


def _studies(db: Connection, study_uid: str | None, limit: int | None) -> list[dict[str, Any]]:
    query = (
        select(
            revisions,
            studies.c.study_uid,
            studies.c.first_received_at,
            studies.c.instances,
            studies.c.images_removed_at,
            studies.c.results_removed_at,
        )
        .join(studies, studies.c.id == revisions.c.study_id)
        .order_by(revisions.c.id.desc())
        .limit(limit)
    )
    if study_uid is not None:
        query = query.where(studies.c.study_uid == study_uid)
    rows = db.execute(query).all()
    made = _results(db, [row.id for row in rows])
    missing = _omissions(db, [row.id for row in rows])
    return [
        {
            "study_uid": row.study_uid, "revision": row.number, "state": row.state,
            "reason": row.reason, "message": row.message, "instances": row.instances,
            "received_at": iso(row.first_received_at), "changed_at": iso(row.changed_at),
            "attempts": row.attempts, "results": _shown(made.get(row.id, [])),
            "left_out": missing.get(row.id, []),
            "images_removed_at": iso(row.images_removed_at),
            "results_removed_at": iso(row.results_removed_at) if made.get(row.id) else None,
        }
        for row in rows
    ]  # fmt: skip


def _results(db: Connection, revision_ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    """Results with their deliveries, by revision; asked for in batches."""
    found: dict[int, list[dict[str, Any]]] = {}
    for start in range(0, len(revision_ids), _BATCH):
        some = revision_ids[start : start + _BATCH]
        by_id: dict[int, dict[str, Any]] = {}
        made = select(results).where(results.c.revision_id.in_(some)).order_by(results.c.id)
        for row in db.execute(made):
            by_id[row.id] = {
                "kind": row.kind, "variant": row.variant,
                "sop_instance_uid": row.sop_instance_uid, "sha256": row.sha256, "deliveries": [],
            }  # fmt: skip
            found.setdefault(row.revision_id, []).append(by_id[row.id])
        sent = select(deliveries).where(deliveries.c.revision_id.in_(some))
        for row in db.execute(sent.order_by(deliveries.c.id)):
            by_id[row.result_id]["deliveries"].append(
                {
                    "peer": row.peer, "state": row.state, "attempts": row.attempts,
                    "confirmation": row.confirmation,
                }
            )  # fmt: skip
    return found


def _shown(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what was only encoded to stand in, and no destination needed."""
    queued = [result for result in made if result["deliveries"]]
    return queued or [result for result in made if not result["variant"]]


def _omissions(db: Connection, revision_ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for start in range(0, len(revision_ids), _BATCH):
        some = revision_ids[start : start + _BATCH]
        query = select(omissions).where(omissions.c.revision_id.in_(some))
        for row in db.execute(query.order_by(omissions.c.id)):
            found.setdefault(row.revision_id, []).append(
                {
                    "peer": row.peer, "kind": row.kind, "replaced_by": row.replaced_by,
                    "reason": row.reason,
                }
            )  # fmt: skip
    return found


def _count(db: Connection, table: Any) -> int:
    return int(db.execute(select(func.count()).select_from(table)).scalar_one())
