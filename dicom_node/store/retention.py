"""Transactions of retention. A row is marked before its file goes, and stays to tell the story.

Order: rows marked and paths written to ``removals`` in one commit; then files deleted and their
folders synced while the study is locked; then the paths forgotten. A crash between two steps
leaves paths in ``removals``, which the next round deletes. An image that comes again takes its path
out of ``removals`` (`dicom_node.store.restoring`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, tuple_, update

from dicom_node.domain.retention import GO_WORDS, Go, Verdict, judge
from dicom_node.domain.states import RevisionState
from dicom_node.errors import NodeError
from dicom_node.store.base import Database, add_event, lock_study
from dicom_node.store.retention_facts import kept_of, live_images, live_results
from dicom_node.store.retention_rows import Kept, Removed, RetentionRules, StudyPlace
from dicom_node.store.retention_schema import removals
from dicom_node.store.schema import conflicts, instances, results, revisions, studies
from dicom_node.store.tallies import BYTES, COPIES, INSTANCES, of_revisions, read_tallies, tally
from dicom_node.store.times import iso

RESULT_JSON = "result.json"
"""What the analysis wrote beside the objects; it goes with them. The manifest stays."""
_BATCH = 400


class RetentionStore(Database):
    """What may go, what goes, what is gone."""

    def stored_bytes(self) -> int:
        """Return the size of all received images that are kept."""
        with self._read() as db:
            return read_tallies(db)[BYTES]

    def studies_in_work(self) -> int:
        """Count the revisions whose results are still to be written."""
        unfinished = (RevisionState.RECEIVING, RevisionState.READY, RevisionState.RUNNING)
        with self._read() as db:
            total = read_tallies(db)
        return sum(total[of_revisions(state)] for state in unfinished)

    def retention_page(
        self, *, images: bool, before_s: float, after: StudyPlace | None, limit: int
    ) -> list[StudyPlace]:
        """Return studies whose images (else whose results alone) are kept, the oldest first.

        ``before_s``: their last image came at that time or earlier.
        """
        kept = (
            studies.c.images_removed_at.is_(None)
            if images
            else studies.c.images_removed_at.is_not(None) & studies.c.results_removed_at.is_(None)
        )
        query = (
            select(studies.c.last_image_at, studies.c.id)
            .where(kept, studies.c.last_image_at <= before_s)
            .order_by(studies.c.last_image_at, studies.c.id)
            .limit(limit)
        )
        if after is not None:
            place = tuple_(studies.c.last_image_at, studies.c.id)
            query = query.where(place > tuple_(after.last_image_at_s, after.study_id))
        with self._read() as db:
            return [StudyPlace(row[0], row[1]) for row in db.execute(query)]

    def kept(
        self, study_ids: Sequence[int], awaited: frozenset[str], *, files: bool = True
    ) -> list[Kept]:
        """Return what is kept of studies, in the order asked for; ``files``: and how much."""
        with self._read() as db:
            return kept_of(db, study_ids, awaited, files=files)

    def remove_due(
        self, study_id: int, rules: RetentionRules, *, pressed: bool = False
    ) -> Removed | None:
        """Mark what may go of a study, decided anew under its lock; None: nothing may."""
        now_s = self._clock.now_s()
        with self._write() as db:
            lock_study(db, study_id)
            (kept,) = kept_of(db, [study_id], rules.awaited)
            verdict = judge(kept.facts, rules.rules, now_s, pressed=pressed)
            if not (isinstance(verdict.images, Go) or isinstance(verdict.results, Go)):
                return None
            return _mark(db, kept, verdict, now_s)

    def studies_with_removals(self, limit: int = 20) -> list[int]:
        """Return studies of which files are still to be deleted."""
        query = select(removals.c.study_id).order_by(removals.c.id).limit(limit)
        with self._read() as db:
            return list(dict.fromkeys(db.execute(query).scalars()))

    def delete_removed(
        self, study_id: int, unlink: Callable[[Sequence[str]], None], limit: int = _BATCH
    ) -> int:
        """Delete files of a study that are marked, and forget their paths; returns how many.

        ``unlink`` deletes them for good (paths relative to the data folder). The study is locked
        meanwhile: an image that comes again waits, and then writes its file anew.
        """
        query = select(removals.c.id, removals.c.path).where(removals.c.study_id == study_id)
        with self._write() as db:
            lock_study(db, study_id)
            rows = db.execute(query.order_by(removals.c.id).limit(limit)).all()
            if rows:
                unlink([row.path for row in rows])
                db.execute(delete(removals).where(removals.c.id.in_([row.id for row in rows])))
            return len(rows)

    def removed_paths(self, paths: Sequence[str]) -> set[str]:
        """Which of these files are not kept any more, by rows or by what is to be deleted."""
        found: set[str] = set()
        with self._read() as db:
            for start in range(0, len(paths), _BATCH):
                some = paths[start : start + _BATCH]
                gone = select(instances.c.path).where(
                    instances.c.path.in_(some), instances.c.removed_at.is_not(None)
                )
                found.update(db.execute(gone).scalars())
                marked = select(removals.c.path).where(removals.c.path.in_(some))
                found.update(db.execute(marked).scalars())
        return found

    def note_late_image(self, study_uid: str, detail: str) -> None:
        """Write into the timeline of a study why an image that came begins nothing."""
        with self._write() as db:
            found = select(studies.c.id).where(studies.c.study_uid == study_uid)
            study_id = db.execute(found).scalar_one()
            add_event(db, study_id, None, self._clock.now_s(), "late_image", detail)


def _mark(db: Connection, kept: Kept, verdict: Verdict, now_s: float) -> Removed:
    study_id = kept.study_id
    images: Counter[str] = Counter()
    made: Counter[str] = Counter()
    freed = 0
    values: dict[str, Any] = {}
    if isinstance(verdict.images, Go):
        images, freed = _mark_images(db, study_id, now_s)
        values["images_removed_at"] = now_s
        if not kept.results:
            values["results_removed_at"] = now_s
        detail = f"{images.total()} files, {freed} bytes: {GO_WORDS[verdict.images]}"
        add_event(db, study_id, None, now_s, "images_removed", detail)
    if isinstance(verdict.results, Go):
        made = _mark_results(db, study_id, now_s)
        freed += kept.result_bytes
        values["results_removed_at"] = now_s
        if made:
            detail = f"{made.total()} objects: {GO_WORDS[verdict.results]}"
            add_event(db, study_id, None, now_s, "results_removed", detail)
    db.execute(update(studies).where(studies.c.id == study_id).values(**values))
    manifests_due(db, study_id)
    went = [GO_WORDS[one] for one in (verdict.images, verdict.results) if isinstance(one, Go)]
    return Removed(study_id, kept.study_uid, images, made, freed, went[0])


def refuse_removed(db: Connection, study: Row[Any]) -> None:
    """See that the images of a study are all kept.

    Raises:
        NodeError: retention removed some; says when.
    """
    gone = (instances.c.study_id == study.id) & instances.c.removed_at.is_not(None)
    removed_at_s = db.execute(select(func.max(instances.c.removed_at)).where(gone)).scalar_one()
    if removed_at_s is None:
        removed_at_s = study.images_removed_at
    if removed_at_s is not None:
        raise NodeError(
            f"images of this study were removed on {iso(removed_at_s)} by retention",
            "have the archive send the whole study again; it is then looked at anew",
        )


def refuse_results_removed(db: Connection, revision_id: int) -> None:
    """See that the results of a revision are kept.

    Raises:
        NodeError: retention removed them; says when.
    """
    gone = (results.c.revision_id == revision_id) & results.c.removed_at.is_not(None)
    removed_at_s = db.execute(select(func.max(results.c.removed_at)).where(gone)).scalar_one()
    if removed_at_s is not None:
        raise NodeError(
            f"the results of this study were removed on {iso(removed_at_s)} by retention",
            "have the archive send the whole study again; it is then analysed anew",
        )


def manifests_due(db: Connection, study_id: int) -> None:
    """Have the manifests of a study written anew: they tell what is removed."""
    mine = (revisions.c.study_id == study_id) & revisions.c.result_folder.is_not(None)
    db.execute(update(revisions).where(mine).values(manifest_due=True))


def _mark_images(db: Connection, study_id: int, now_s: float) -> tuple[Counter[str], int]:
    rows = db.execute(live_images([study_id])).all()
    copies = db.execute(select(conflicts.c.path).where(conflicts.c.study_id == study_id)).all()
    _to_delete(db, study_id, [row.path for row in (*rows, *copies)])
    live = (instances.c.study_id == study_id) & instances.c.removed_at.is_(None)
    db.execute(update(instances).where(live).values(removed_at=now_s))
    db.execute(delete(conflicts).where(conflicts.c.study_id == study_id))
    size = sum(row.size for row in rows)
    tally(db, INSTANCES, -len(rows))
    tally(db, BYTES, -size)
    tally(db, COPIES, -len(copies))
    return Counter(row.sop_class_uid for row in rows), size


def _mark_results(db: Connection, study_id: int, now_s: float) -> Counter[str]:
    rows = db.execute(live_results([study_id])).all()
    mine = select(revisions.c.id).where(revisions.c.study_id == study_id)
    folders = select(revisions.c.result_folder).where(
        revisions.c.study_id == study_id, revisions.c.result_folder.is_not(None)
    )
    beside = [f"{folder}/{RESULT_JSON}" for folder in db.execute(folders).scalars()]
    _to_delete(db, study_id, [*(row.path for row in rows), *beside])
    live = results.c.revision_id.in_(mine) & results.c.removed_at.is_(None)
    db.execute(update(results).where(live).values(removed_at=now_s))
    return Counter(row.sop_class_uid for row in rows)


def _to_delete(db: Connection, study_id: int, paths: Iterable[str]) -> None:
    known = select(removals.c.path).where(removals.c.study_id == study_id)
    new = dict.fromkeys(paths)
    for path in db.execute(known).scalars():
        new.pop(path, None)
    if new:
        db.execute(insert(removals), [{"study_id": study_id, "path": path} for path in new])
