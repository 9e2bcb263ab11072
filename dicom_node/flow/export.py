"""Writing out what was received: Part 10 files, data set bytes as received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.durable import ensure_dir, write_file
from dicom_node.errors import NodeError
from dicom_node.flow.audit import AuditTrail
from dicom_node.store.rows import InstanceRow
from dicom_node.store.store import Store
from dicom_node.store.times import iso


def export_study(store: Store, config: NodeConfig, study_uid: str, out: Path) -> list[Path]:
    """Copy the stored files of a study to ``out``, numbered in order of arrival.

    Returns the files written; empty where the node holds no such study. What retention removed is
    left out. Each is a complete Part 10
    file whose data set is, byte for byte, what the sender sent. The export is recorded in the audit
    trail before the first file is written.

    Raises:
        NodeError: retention removed all of it.
    """
    known = store.headers_of(study_uid)
    instances = [one for one in known if one.removed_at_s is None]
    if known and not instances:
        raise NodeError(
            f"the images of this study were removed on {removed_on(known)} by retention",
            "export it from the archive",
        )
    if instances:
        trail = AuditTrail(store, config, SystemClock())
        trail.exported(study_uid, Counter(one.sop_class_uid for one in instances), str(out))
        trail.flush()
    written = []
    for number, instance in enumerate(instances, start=1):
        ensure_dir(out)
        target = out / f"{number:05d}.dcm"
        write_file(target, [(config.node.data_dir / instance.path).read_bytes()])
        written.append(target)
    return written


def removed_on(known: Sequence[InstanceRow]) -> str:
    """Return when the last of these instances was removed; empty where all are kept."""
    times = [one.removed_at_s for one in known if one.removed_at_s is not None]
    return iso(max(times, default=None)) or ""
