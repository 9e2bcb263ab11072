"""What was measured on each study, by scanner: written with the outcome, read in windows."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.domain.annotation import AnnotationState
from dicom_node.domain.canary import STUDY_ROOT
from dicom_node.domain.drift import Scanner
from dicom_node.domain.states import RevisionState
from dicom_node.store.annotation_schema import annotation_table
from dicom_node.store.base import Database, find_study
from dicom_node.store.observation_rows import (
    Observation,
    ObservedStudy,
    ScannerRow,
    Unobserved,
)
from dicom_node.store.observation_schema import observations, scanners
from dicom_node.store.schema import revisions, studies

_NAME = 64
_WITH_OUTCOME = (
    RevisionState.ANALYSED, RevisionState.DELIVERED, RevisionState.NOT_ANALYSABLE,
    RevisionState.FAILED,
)  # fmt: skip


class ObservationStore(Database):
    """Transactions around what is watched for drift."""

    def scanners(self, limit: int | None = None) -> list[ScannerRow]:
        """Return the scanners that studies came from, those in alarm first, then by age."""
        query = select(scanners).order_by(scanners.c.alarms == "", scanners.c.id).limit(limit)
        with self._read() as db:
            return [_scanner(row) for row in db.execute(query)]

    def scanner(self, scanner_id: int) -> ScannerRow | None:
        """Return a scanner by its number."""
        with self._read() as db:
            found = db.execute(select(scanners).where(scanners.c.id == scanner_id)).one_or_none()
            return None if found is None else _scanner(found)

    def scanner_of(self, study_uid: str) -> ScannerRow | None:
        """Return the scanner of a study that was observed."""
        query = (
            select(scanners)
            .join(observations, observations.c.scanner_id == scanners.c.id)
            .join(studies, studies.c.id == observations.c.study_id)
            .where(studies.c.study_uid == study_uid)
        )
        with self._read() as db:
            found = db.execute(query).one_or_none()
            return None if found is None else _scanner(found)

    def observed(
        self, scanner: ScannerRow, first: int, last: int, release: str | None = None
    ) -> tuple[list[ObservedStudy], list[ObservedStudy]]:
        """Return the first studies of the reference and, of those after them, the last ones.

        ``release``: only studies that it analysed. Both in order of arrival.
        """
        query = _of(scanner, release)
        with self._read() as db:
            return _windows(db, query, first, last)

    def annotated(
        self, scanner: ScannerRow, first: int, last: int, release: str
    ) -> tuple[list[ObservedStudy], list[ObservedStudy]]:
        """Return the same of studies that have an annotation in use."""
        query = _of(scanner, release).where(observations.c.findings_json.is_not(None))
        with self._read() as db:
            return _windows(db, query, first, last)

    def running_release(self, scanner: ScannerRow) -> str:
        """Digest of the release that analysed the scanner's last study; empty where none did."""
        query = (
            select(observations.c.release_sha256)
            .where(observations.c.scanner_id == scanner.id, observations.c.release_sha256 != "")
            .order_by(observations.c.id.desc())
            .limit(1)
        )
        with self._read() as db:
            return db.execute(query).scalar_one_or_none() or ""

    def set_alarms(self, scanner: ScannerRow, alarms: Collection[str]) -> bool:
        """Write down which figures are in alarm; False where another process did it first."""
        told = " ".join(sorted(alarms))
        before = " ".join(sorted(scanner.alarms))
        changed = update(scanners).where(scanners.c.id == scanner.id, scanners.c.alarms == before)
        with self._write() as db:
            return db.execute(changed.values(alarms=told)).rowcount == 1

    def restart_reference(self, scanner: ScannerRow) -> None:
        """Begin the reference of a scanner anew with its next study; its alarms end."""
        last = select(func.coalesce(func.max(observations.c.id), 0)).where(
            observations.c.scanner_id == scanner.id
        )
        with self._write() as db:
            after = db.execute(last).scalar_one()
            db.execute(
                update(scanners)
                .where(scanners.c.id == scanner.id)
                .values(reference_after=after, alarms="")
            )

    def unobserved(self, after: int, limit: int) -> list[Unobserved]:
        """Return revisions with a result or report whose study was never observed, by ``id``."""
        query = (
            select(revisions, studies.c.study_uid)
            .join(studies, studies.c.id == revisions.c.study_id)
            .outerjoin(observations, observations.c.study_id == revisions.c.study_id)
            .where(
                observations.c.id.is_(None), revisions.c.id > after,
                revisions.c.result_folder.is_not(None), revisions.c.state.in_(_WITH_OUTCOME),
                ~studies.c.study_uid.startswith(STUDY_ROOT),
            )
            .order_by(revisions.c.id)
            .limit(limit)
        )  # fmt: skip
        with self._read() as db:
            return [
                Unobserved(
                    row.id, row.study_uid, row.number, row.result_folder,
                    row.content_time or row.changed_at,
                )
                for row in db.execute(query)
            ]  # fmt: skip

    def observe(self, of: Unobserved, seen: Observation) -> None:
        """Write down what an earlier revision of the program did not."""
        with self._write() as db:
            study = find_study(db, of.study_uid)
            if study is not None:
                write_observation(db, (study.id, of.number), seen, of.at_s)


def write_observation(
    db: Connection, revision: tuple[int, int], seen: Observation, at_s: float
) -> None:
    """Write what was measured on a revision (study id, number); a later one takes its place."""
    study_id, number = revision
    scanner_id = _scanner_id(db, seen.scanner)
    values = {
        "scanner_id": scanner_id, "revision": number, "at": at_s,
        "release_sha256": seen.release_sha256, "values_json": json.dumps(dict(seen.values)),
    }  # fmt: skip
    mine = observations.c.study_id == study_id
    known = db.execute(select(observations).where(mine)).one_or_none()
    if known is None:
        db.execute(insert(observations).values(study_id=study_id, **values))
    elif known.revision > number:
        return
    else:
        db.execute(update(observations).where(mine).values(**values))
        _count(db, known.scanner_id, -1)
    _count(db, scanner_id, 1)
    keep_agreement(db, study_id)


def keep_agreement(db: Connection, study_id: int) -> None:
    """Keep with a study what its latest annotation in use says of each finding."""
    latest = (
        select(annotation_table.c.detail_json)
        .where(
            annotation_table.c.study_id == study_id, annotation_table.c.revision.is_not(None),
            annotation_table.c.state == AnnotationState.USED,
        )
        .order_by(annotation_table.c.id.desc())
        .limit(1)
    )  # fmt: skip
    found = db.execute(latest).scalar_one_or_none()
    told = None if found is None else json.dumps(json.loads(found).get("findings", []))
    mine = observations.c.study_id == study_id
    db.execute(update(observations).where(mine).values(findings_json=told))


def _count(db: Connection, scanner_id: int, more: int) -> None:
    mine = scanners.c.id == scanner_id
    db.execute(update(scanners).where(mine).values(studies=scanners.c.studies + more))


def _scanner_id(db: Connection, scanner: Scanner) -> int:
    values: dict[str, Any] = {
        "station": scanner.station[:_NAME], "manufacturer": scanner.manufacturer[:_NAME],
        "model": scanner.model[:_NAME], "field_strength_t": scanner.field_strength_t,
    }  # fmt: skip
    query = select(scanners.c.id).where(*(scanners.c[n] == v for n, v in values.items()))
    found = db.execute(query).scalar_one_or_none()
    if found is None:
        try:
            with db.begin_nested():
                db.execute(insert(scanners).values(**values))
        except IntegrityError:
            pass  # another worker was first; its row is as good
        found = db.execute(query).scalar_one()
    return int(found)


def _of(scanner: ScannerRow, release: str | None) -> Select[Any]:
    query = select(observations).where(
        observations.c.scanner_id == scanner.id, observations.c.id > scanner.reference_after
    )
    return query if release is None else query.where(observations.c.release_sha256 == release)


def _windows(
    db: Connection, query: Select[Any], first: int, last: int
) -> tuple[list[ObservedStudy], list[ObservedStudy]]:
    reference = db.execute(query.order_by(observations.c.id).limit(first)).all()
    if len(reference) < first:
        return _studies(reference), []
    later = query.where(observations.c.id > reference[-1].id)
    current = db.execute(later.order_by(observations.c.id.desc()).limit(last)).all()
    return _studies(reference), _studies(current[::-1])


def _studies(rows: Sequence[Row[Any]]) -> list[ObservedStudy]:
    return [
        ObservedStudy(
            row.at, json.loads(row.values_json), tuple(json.loads(row.findings_json or "[]"))
        )
        for row in rows
    ]  # fmt: skip


def _scanner(row: Row[Any]) -> ScannerRow:
    scanner = Scanner(row.station, row.manufacturer, row.model, row.field_strength_t)
    return ScannerRow(
        row.id, scanner, row.reference_after, frozenset(row.alarms.split()), row.studies
    )
