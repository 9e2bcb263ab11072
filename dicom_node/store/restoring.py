"""An image that comes again after retention removed it: its row counts on its file once more."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from dicom_node.store.base import add_event, latest_revision
from dicom_node.store.retention import manifests_due
from dicom_node.store.retention_schema import removals
from dicom_node.store.schema import instances, revisions, studies
from dicom_node.store.tallies import BYTES, INSTANCES, tally


def take_back(
    db: Connection, study: Row[Any], kept: Row[Any], values: dict[str, Any], now_s: float
) -> None:
    """Take a copy in the place of one that is gone. ``values``: columns of the new copy.

    The former bytes are not there to compare with: what came now is what is kept.
    """
    if values["dataset_digest"] != kept.dataset_digest:
        detail = f"{kept.sop_instance_uid}: the copy kept before is removed, nothing to compare"
        add_event(db, study.id, None, now_s, "came_with_other_bytes", detail)
    db.execute(update(instances).where(instances.c.id == kept.id).values(**values, removed_at=None))
    keep_file(db, values["path"])
    tally(db, INSTANCES)
    tally(db, BYTES, values["size"])
    look_again(db, study.id, now_s)
    if values["role"] != "image":
        return
    names = ("patient_id", "issuer", "birth_date")
    changed: dict[str, Any] = {
        "last_image_at": now_s, "change_no": studies.c.change_no + 1, "evaluate_at": None,
    }  # fmt: skip
    if any(values[name] != getattr(kept, name) for name in names):
        changed |= {name: values[name] for name in names}
    db.execute(update(studies).where(studies.c.id == study.id).values(**changed))


def keep_file(db: Connection, path: str) -> None:
    """See that a file which a row counts on again is not deleted."""
    db.execute(delete(removals).where(removals.c.path == path))


def look_again(db: Connection, study_id: int, now_s: float) -> None:
    """Let retention look at a study again whose images were removed.

    Where its results were removed too, its images make new ones once they are all back.
    """
    gone = (studies.c.id == study_id) & studies.c.images_removed_at.is_not(None)
    results_gone = db.execute(select(studies.c.results_removed_at).where(gone)).one_or_none()
    if results_gone is None:
        return
    db.execute(update(studies).where(gone).values(images_removed_at=None, results_removed_at=None))
    add_event(db, study_id, None, now_s, "images_back", "sent again after retention removed them")
    last = latest_revision(db, study_id)
    if results_gone[0] is not None and last is not None:
        db.execute(update(revisions).where(revisions.c.id == last.id).values(input_key=None))
    manifests_due(db, study_id)
