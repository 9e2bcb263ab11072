"""What the decision about a study needs, read for many studies at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from dicom_node.domain.annotation import AnnotationState
from dicom_node.domain.retention import DeliveryFacts, RevisionFacts, StudyFacts
from dicom_node.domain.states import DeliveryState, RevisionState
from dicom_node.store.annotation_schema import annotation_table
from dicom_node.store.retention_rows import Kept
from dicom_node.store.schema import conflicts, deliveries, instances, results, revisions, studies

Rows = dict[int, list[Row[Any]]]


def live_images(study_ids: Sequence[int]) -> Any:
    """Select the instances of studies whose files are kept."""
    return select(
        instances.c.study_id, instances.c.path, instances.c.size, instances.c.sop_class_uid
    ).where(instances.c.study_id.in_(study_ids), instances.c.removed_at.is_(None))


def live_results(study_ids: Sequence[int]) -> Any:
    """Select the result objects of studies whose files are kept."""
    return (
        select(revisions.c.study_id, results.c.path, results.c.size, results.c.sop_class_uid)
        .join(revisions, revisions.c.id == results.c.revision_id)
        .where(revisions.c.study_id.in_(study_ids), results.c.removed_at.is_(None))
    )


def kept_of(
    db: Connection, study_ids: Sequence[int], awaited: frozenset[str], *, files: bool = True
) -> list[Kept]:
    """Return what is kept of studies, in the order asked for; ``files``: and how much."""
    held = db.execute(select(studies).where(studies.c.id.in_(study_ids)))
    by_id = {row.id: row for row in held}
    of_study = revisions.c.study_id.in_(study_ids)
    stands = _by_study(db, select(revisions).where(of_study).order_by(revisions.c.number))
    sending = select(revisions.c.study_id, deliveries).join(
        revisions, revisions.c.id == deliveries.c.revision_id
    )
    sent = _by_study(db, sending.where(of_study))
    named = _by_study(
        db,
        select(annotation_table.c.study_id, annotation_table.c.state).where(
            annotation_table.c.study_id.in_(study_ids)
        ),
    )
    aside = _by_study(
        db,
        select(conflicts.c.study_id).where(
            conflicts.c.study_id.in_(study_ids), conflicts.c.verdict == "unjudged"
        ),
    )
    images: Rows = _by_study(db, live_images(study_ids)) if files else defaultdict(list)
    made: Rows = _by_study(db, live_results(study_ids)) if files else defaultdict(list)
    found = []
    for study_id in study_ids:
        facts = StudyFacts(
            **_facts(by_id[study_id], stands[study_id], sent[study_id], awaited),
            annotations=frozenset(AnnotationState(one.state) for one in named[study_id]),
            unjudged=bool(aside[study_id]),
        )
        found.append(
            Kept(
                study_id, by_id[study_id].study_uid, facts,
                *_amount(images[study_id]), *_amount(made[study_id]),
            )
        )  # fmt: skip
    return found


def _amount(rows: list[Row[Any]]) -> tuple[int, int]:
    return len(rows), sum(row.size for row in rows)


def _by_study(db: Connection, query: Any) -> Rows:
    found: Rows = defaultdict(list)
    for row in db.execute(query):
        found[row.study_id].append(row)
    return found


def _facts(
    study: Row[Any], stands: list[Row[Any]], sent: list[Row[Any]], awaited: frozenset[str]
) -> dict[str, Any]:
    latest = max((row.id for row in stands), default=0)
    return {
        "last_image_at_s": study.last_image_at,
        "issuer": study.issuer or "",
        "revisions": tuple(
            RevisionFacts(row.number, RevisionState(row.state), row.reason, row.changed_at)
            for row in stands
        ),
        "deliveries": tuple(
            DeliveryFacts(
                DeliveryState(row.state), row.peer in awaited, row.check_at is not None,
                row.sent_at, row.revision_id == latest,
            )
            for row in sent
        ),
        "unevaluated": study.change_no > study.evaluated_no or study.evaluate_at is not None,
        "images_gone": study.images_removed_at is not None,
        "results_gone": study.results_removed_at is not None,
    }  # fmt: skip
