"""`dicom-node recover`: a new database from the files alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dicom_node.clock import Clock, SystemClock
from dicom_node.config import NodeConfig
from dicom_node.durable import ensure_dir, fsync_folder
from dicom_node.errors import StoreError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.outbox import read_manifests
from dicom_node.flow.recover import recover
from dicom_node.store.store import Store


def rebuild_database(config: NodeConfig, clock: Clock | None = None) -> dict[str, object]:
    """Move the database of the data folder aside and rebuild it from spool and results.

    What was received comes back from the spool; results and what was already delivered from the
    manifests beside the result files. Peers made by command line, refusals and timelines do not.

    Raises:
        StoreError: the database is not in the data folder, or the files cannot be read.
    """
    clock = clock or SystemClock()
    data_dir = config.node.data_dir
    ensure_dir(data_dir)
    if config.node.database and not config.node.database.startswith("sqlite"):
        raise StoreError(
            "only the database in the data folder can be moved aside here",
            "give node.database an empty PostgreSQL database; the next start fills it",
        )
    aside = _move_aside(Path(config.database_url.removeprefix("sqlite:///")), clock.now())
    store = Store(config.database_url, clock=clock, create=True)
    try:
        trail = AuditTrail(store, config, clock)
        trail.rebuilt(aside or "")
        trail.flush()
        return {"old_database": aside, **rebuild(store, data_dir)}
    finally:
        store.close()


def rebuild(store: Store, data_dir: Path) -> dict[str, object]:
    """Fill an empty database from the files of the data folder."""
    revisions = sum(store.restore_revision(row) for row in read_manifests(data_dir))
    report = recover(store, data_dir)
    return {"revisions_restored": revisions, **report.as_dict()}


def _move_aside(database: Path, now: datetime) -> str | None:
    """Rename the database and its journal; they are kept for whoever wants to look."""
    if not database.exists():
        return None
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    for suffix in ("-journal", "-wal", "-shm", ""):
        part = database.with_name(database.name + suffix)
        if part.exists():
            part.rename(database.with_name(f"{database.name}.{stamp}{suffix}"))
    fsync_folder(database.parent)
    return f"{database.name}.{stamp}"
