"""The start, before the port opens: nothing acknowledged is lost (G1), nothing is stuck (G2).

Half-written files go away, files that a crash left without a row get one, what was acknowledged
and waits in the journal is filed, work of the last run is taken back, and files that the database
counts on but the disk lost are named.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dicom_node.clock import SystemClock
from dicom_node.dicom.header import HeaderError, read_header
from dicom_node.durable import (
    SyncBatch,
    ensure_dir,
    remove_temporary_files,
    write_file,
)
from dicom_node.flow.filing import Filing
from dicom_node.flow.journal import Journal
from dicom_node.flow.spool import (
    JOURNAL,
    RESULTS,
    SPOOL,
    instance_row,
    read_stored,
    result_folders,
    spool_files,
    study_folders,
)
from dicom_node.store.store import Store

log = logging.getLogger(__name__)
_NAMED = 20
_LOOK_BACK_S = 86_400.0
"""The start looks at what was written since the day before the last start: a spool grows to
millions of files, and the port must open within seconds. A day covers a clock that was set."""
_CUT_SHORT_S = 3600.0
"""No write lasts so long: what is still temporary then belongs to nobody."""


@dataclass(frozen=True)
class RecoverReport:
    """What a recovery did. Paths are relative to the data folder; at most twenty are named."""

    boot_id: str = ""
    revisions_taken_back: int = 0
    deliveries_taken_back: int = 0
    temporary_files_removed: int = 0
    instances_filed: int = 0
    instances_restored: int = 0
    files_missing: int = 0
    files_unreadable: int = 0
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


@dataclass
class _Findings:
    restored: int = 0
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def recover(store: Store, data_dir: Path, *, alone: bool = True) -> RecoverReport:
    """Recover to the end. ``alone``: no other process of the node uses the data folder.

    Where others do, temporary files are left alone until they are an hour old, and of the journal
    only what no receiver has is filed.
    """
    for folder in (SPOOL, RESULTS):
        ensure_dir(data_dir / folder)
    last_s = store.last_boot_s()
    since_s = 0.0 if last_s is None else last_s - _LOOK_BACK_S
    folders = [*study_folders(data_dir, since_s), *result_folders(data_dir, since_s)]
    before_s = None if alone else _file_system_time_s(data_dir) - _CUT_SHORT_S
    removed = remove_temporary_files(folders, before_s)
    # what the spool holds came before what the journal still has: the first copy stays the first
    found = _restore_rows(store, data_dir, since_s)
    filed = _file_journal(store, data_dir)
    found.unreadable = _still_unknown(store, found.unreadable)
    boot_id = store.start_boot()  # from here on the spool counts as looked through
    taken = store.recover_after_node_death(boot_id)
    sending = store.recover_deliveries()
    for what, names in (("missing", found.missing), ("unreadable", found.unreadable)):
        if names:
            log.error("spool damaged", extra={"what": what, "files": len(names)})
    return RecoverReport(
        boot_id=boot_id, revisions_taken_back=taken, deliveries_taken_back=sending,
        temporary_files_removed=removed, instances_filed=filed, instances_restored=found.restored,
        files_missing=len(found.missing), files_unreadable=len(found.unreadable),
        missing=tuple(found.missing[:_NAMED]), unreadable=tuple(found.unreadable[:_NAMED]),
    )  # fmt: skip


def _file_system_time_s(data_dir: Path) -> float:
    """Return the time that the file system writes, which may not be that of this host."""
    probe = data_dir / SPOOL / ".clock"
    write_file(probe, [b""])
    return probe.stat().st_mtime


def take_back(store: Store) -> int:
    """At the start of a part without a receiver: only the work of its last life is taken back.

    The spool belongs to the receivers; to look through it at every start of a worker would not
    scale. Returns how many revisions and deliveries are free again.
    """
    return store.recover_after_node_death("") + store.recover_deliveries()


def _still_unknown(store: Store, paths: list[str]) -> list[str]:
    """Leave out files that the journal has written anew: a power cut had spoilt them."""
    known = store.known_paths(paths) if paths else set()
    return [path for path in paths if path not in known]


def _file_journal(store: Store, data_dir: Path) -> int:
    """File what was acknowledged and not yet filed."""
    journal = Journal(data_dir / JOURNAL)
    try:
        return Filing(store, data_dir, SystemClock(), journal).file_leftovers()
    finally:
        journal.close()


def _restore_rows(store: Store, data_dir: Path, since_s: float) -> _Findings:
    """Give every file written since a time a row, from the file alone.

    What was acknowledged has its row already: this is for files whose row a crash prevented, and
    for a database that was lost or set back. ``dicom-node recover`` looks at everything.
    """
    known = store.paths_since(since_s - _LOOK_BACK_S)
    found = _Findings()
    files = {str(path.relative_to(data_dir)): path for path in spool_files(data_dir, since_s)}
    new = {relative: path for relative, path in files.items() if relative not in known}
    for gone in store.removed_paths(list(new)):
        del new[gone]  # retention was cut short: it goes on where it stopped
    if new:
        # a process that was killed may have left them in memory only; a row says they are safe
        SyncBatch(data_dir / SPOOL).sync(new.values())
    for relative, path in new.items():
        if restore_instance(store, data_dir, path):
            found.restored += 1
        else:
            found.unreadable.append(relative)
    found.missing = sorted(name for name in known - files.keys() if not (data_dir / name).is_file())
    return found


def restore_instance(store: Store, data_dir: Path, path: Path) -> bool:
    """Add the row of one stored file; False where the file is not one that was acknowledged."""
    try:
        stored = read_stored(path)
        data = path.read_bytes()[stored.dataset_offset :]
        header = read_header(data, stored.transfer_syntax_uid)
    except (ValueError, OSError, HeaderError):
        return False
    digest = hashlib.sha256(data).hexdigest()
    row = instance_row(header, stored.transfer_syntax_uid, digest, len(data), stored.source)
    if data_dir / row.path != path:
        return False  # the digest in its name is not that of its bytes
    store.add_instance(row)
    return True
