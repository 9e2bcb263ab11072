"""A copy of the whole database while it is in use, and the files that its rows count on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.engine import make_url

from dicom_node.domain.annotation import AnnotationState
from dicom_node.domain.states import FINAL_REVISION_STATES
from dicom_node.errors import StoreError
from dicom_node.store.annotation_schema import annotation_table
from dicom_node.store.base import Database, add_event
from dicom_node.store.schema import conflicts, instances, results, revisions, studies
from dicom_node.store.tallies import BYTES, COPIES, INSTANCES, tally

SQLITE_COPY, POSTGRESQL_COPY = "node.sqlite3", "node.pgdump"
_BATCH = 400


def copy_name(url: str) -> str:
    """Return what the copy of a database is called."""
    return SQLITE_COPY if make_url(url).get_backend_name() == "sqlite" else POSTGRESQL_COPY


def copy_database(url: str, target: Path) -> None:
    """Copy the database as it stands at one moment; the node goes on meanwhile.

    Raises:
        StoreError: it cannot be copied; for PostgreSQL ``pg_dump`` is needed.
    """
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        _copy_sqlite(Path(str(address.database)), target)
        return
    program = _program("pg_dump")
    _run([program, "--format=custom", f"--file={target}"], url)


def load_database(copy: Path, url: str) -> None:
    """Fill an empty PostgreSQL database from its copy.

    Raises:
        StoreError: it cannot be filled; ``pg_restore`` is needed.
    """
    name = make_url(url).database or ""
    _run([_program("pg_restore"), "--no-owner", "--exit-on-error", f"--dbname={name}", str(copy)],
         url)  # fmt: skip


def _copy_sqlite(database: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        source = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
        copy = sqlite3.connect(target)
        try:
            source.backup(copy)  # in one step: a copy in parts begins anew with each commit
            copy.execute("PRAGMA journal_mode=DELETE")
            copy.commit()
        finally:
            copy.close()
            source.close()
    except sqlite3.Error as error:
        raise StoreError(
            f"the database cannot be copied ({error})", "see that there is room and try again"
        ) from None


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise StoreError(
            f"{name} is not installed here",
            "install the PostgreSQL client programs, of the version of the server or newer",
        )
    return found


def _run(arguments: list[str], url: str) -> None:
    address = make_url(url)
    names = {
        "PGHOST": address.host or address.query.get("host"), "PGPORT": address.port,
        "PGUSER": address.username, "PGPASSWORD": address.password, "PGDATABASE": address.database,
    }  # fmt: skip
    environment = {**os.environ, **{key: str(value) for key, value in names.items() if value}}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or ["no words"])[-1]
        raise StoreError(f"{Path(arguments[0]).name} failed: {words}", "see what it says")


class SnapshotStore(Database):
    """Which files go with a copy of the database, and what is said of those that do not."""

    def result_paths(self) -> list[str]:
        """Return the result objects that are kept."""
        kept = select(results.c.path).where(results.c.removed_at.is_(None))
        with self._read() as db:
            return list(db.execute(kept.order_by(results.c.id)).scalars())

    def result_folders(self) -> list[str]:
        """Return the folders of results; the manifest stays in one whose objects are removed."""
        named = select(revisions.c.result_folder).where(revisions.c.result_folder.is_not(None))
        with self._read() as db:
            return list(dict.fromkeys(db.execute(named.order_by(revisions.c.id)).scalars()))

    def image_paths(self, *, everything: bool) -> list[str]:
        """Return stored instances and copies: all, or of studies in work or annotated alone."""
        wanted = (
            studies.c.change_no > studies.c.evaluated_no,
            studies.c.evaluate_at.is_not(None),
            exists().where(
                revisions.c.study_id == studies.c.id,
                revisions.c.state.not_in([*FINAL_REVISION_STATES - {"held"}]),
            ),
            exists().where(
                annotation_table.c.study_id == studies.c.id,
                annotation_table.c.state != AnnotationState.NO_ANNOTATION,
            ),
        )
        found: list[str] = []
        with self._read() as db:
            for table in (instances, conflicts):
                query = select(table.c.path).order_by(table.c.id)
                if table is instances:
                    query = query.where(instances.c.removed_at.is_(None))
                if not everything:
                    query = query.join(studies, studies.c.id == table.c.study_id)
                    query = query.where(or_(*wanted))
                found += db.execute(query).scalars()
        return found

    def forget_files(self, there: set[str]) -> int:
        """Say of stored instances whose files are not ``there`` that they are removed.

        Only after a restore from a backup without all images. Returns how many those were.
        """
        now_s = self._clock.now_s()
        with self._write() as db:
            kept = select(
                instances.c.id, instances.c.study_id, instances.c.path, instances.c.size
            ).where(instances.c.removed_at.is_(None))
            gone = [row for row in db.execute(kept) if row.path not in there]
            for start in range(0, len(gone), _BATCH):
                ids = [row.id for row in gone[start : start + _BATCH]]
                db.execute(
                    update(instances).where(instances.c.id.in_(ids)).values(removed_at=now_s)
                )
            aside = [
                row for row in db.execute(select(conflicts.c.id, conflicts.c.path))
                if row.path not in there
            ]  # fmt: skip
            for row in aside:
                db.execute(delete(conflicts).where(conflicts.c.id == row.id))
            tally(db, INSTANCES, -len(gone))
            tally(db, BYTES, -sum(row.size for row in gone))
            tally(db, COPIES, -len(aside))
            for study_id in sorted({row.study_id for row in gone}):
                left = select(instances.c.id).where(
                    instances.c.study_id == study_id, instances.c.removed_at.is_(None)
                )
                if db.execute(left.limit(1)).first() is None:
                    db.execute(
                        update(studies)
                        .where(studies.c.id == study_id)
                        .values(images_removed_at=now_s)
                    )
                detail = "not in the backup that this node was restored from"
                add_event(db, study_id, None, now_s, "images_removed", detail)
            return len(gone)
