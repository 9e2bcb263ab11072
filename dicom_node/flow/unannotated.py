"""Studies that nobody annotated: written out for the profile of the site, and asked for by name.

`ai-core adapt` ranks them under their keyed names; this node alone can tell which studies they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ai_core.errors import CoreError
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.dicom.volume import build_case
from dicom_node.domain.annotation import AnnotationState
from dicom_node.domain.canary import is_canary
from dicom_node.domain.states import RevisionState
from dicom_node.durable import ensure_dir
from dicom_node.errors import InputProblem, NodeError
from dicom_node.flow.annotate import AnnotatedStudy
from dicom_node.flow.annotated import Exported, case_name, loader
from dicom_node.flow.audit import AuditTrail
from dicom_node.store.store import Store

_ANALYSED = frozenset({RevisionState.ANALYSED, RevisionState.DELIVERED})
_ALL = 10**9


@dataclass(frozen=True)
class WantedStudy:
    """A study of the list. ``study_uid`` None: this node does not hold it (any more)."""

    rank: int
    name: str
    study_uid: str | None
    patient_id: str | None
    annotated: bool
    uncertainty: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def export_unannotated(
    store: Store, config: NodeConfig, out: Path, limit: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Exported]:  # fmt: skip
    """Write the images of the newest analysed studies without annotation, one by patient's study.

    Each export is recorded in the audit trail.

    Args:
        store: of the node.
        config: of the node.
        out: the folder of the data set; cases that stand in it stay.
        limit: at most so many studies.
        progress: called with how many are done, of how many.
    """
    from ai_core import write_images

    trail = AuditTrail(store, config, SystemClock())
    annotated = _annotated(store)
    studies = [uid for uid in _analysed(store) if uid not in annotated][:limit]
    data_dir, found = config.node.data_dir, []
    for number, study_uid in enumerate(studies, start=1):
        study = AnnotatedStudy.open(store, data_dir, study_uid)
        name = case_name(store, study)
        try:
            case = build_case(study.selection(study.sent[0]), loader(study, data_dir))
            trail.exported(study_uid, Counter(row.sop_class_uid for row in study.rows), str(out))
            ensure_dir(out)
            write_images(name, case, out)
            found.append(Exported(study_uid, name))
        except InputProblem as problem:
            found.append(Exported(study_uid, left_out=problem.message))
        except CoreError as error:
            found.append(Exported(study_uid, left_out=str(error)))
        if progress is not None:
            progress(number, len(studies))
    trail.flush()
    return found


def wanted_studies(store: Store, config: NodeConfig, file: Path) -> list[WantedStudy]:
    """Say which studies of this node a list of `ai-core adapt` means, in its order.

    Raises:
        NodeError: the file is not such a list.
    """
    rows = _read(file)
    annotated = _annotated(store)
    known: dict[str, str] = {}
    for study_uid in _analysed(store):
        study = AnnotatedStudy.open(store, config.node.data_dir, study_uid)
        known[case_name(store, study)] = study_uid
    found = []
    for rank, name, uncertainty in rows:
        uid = known.get(name)
        patient = None if uid is None else store.patient_of(uid)
        found.append(WantedStudy(rank, name, uid, patient, uid in annotated, uncertainty))
    return found


def _read(file: Path) -> list[tuple[int, str, float]]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["wanted"]
        return [(int(r["rank"]), str(r["name"]), float(r["uncertainty"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NodeError(
            f"{file} is not a list of studies to annotate",
            "give to-annotate.json of an adaptation (ai-core adapt)",
        ) from error


def _annotated(store: Store) -> set[str]:
    rows = store.annotations_of()
    return {row.instance.study_uid for row in rows if row.state is AnnotationState.USED}


def _analysed(store: Store) -> Iterator[str]:
    """Studies whose last revision was analysed, newest first."""
    seen: set[str] = set()
    for row in store.studies_list(_ALL):
        if row["study_uid"] not in seen and not is_canary(row["study_uid"]):
            seen.add(row["study_uid"])
            if RevisionState(row["state"]) in _ANALYSED:
                yield row["study_uid"]
