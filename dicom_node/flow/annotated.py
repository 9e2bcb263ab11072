"""The annotated set of the site, as listed and as written out for `ai-core train`.

Names of cases are keyed with the installation: one patient has one name here, and nobody can tell
from it who that is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from scipy import ndimage

from ai_core.errors import CoreError
from ai_core.types import Case, Geometry
from dicom_node.annotations.agreement import NodeResult
from dicom_node.annotations.reading import Reading
from dicom_node.annotations.standing import Standing, standing
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.dicom.volume import build_case
from dicom_node.domain.annotation import AnnotationKind, AnnotationProblem, AnnotationState
from dicom_node.domain.states import RevisionState
from dicom_node.errors import InputProblem
from dicom_node.flow.annotate import AnnotatedStudy
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.spool import verify
from dicom_node.store.rows import AnnotationRow, SentRevision
from dicom_node.store.store import Store
from dicom_node.store.times import iso

FOLDER = "annotated"
"""Where the annotated set is written inside the data folder."""
Labels = npt.NDArray[np.uint8]
Analyse = Callable[[Case], tuple[Labels, Labels]]
"""Returns gland (0/1) and zones (1 PZ, 2 TZ) of a case on its T2W grid."""


def annotation_json(row: AnnotationRow) -> dict[str, Any]:
    """Return an annotation as the commands print it."""
    told = json.loads(row.detail_json)
    return {
        "id": row.id, "study_uid": row.instance.study_uid, "kind": row.kind.value,
        "sop_instance_uid": row.instance.sop_instance_uid, "series_uid": row.instance.series_uid,
        "state": row.state.value, "reason": row.reason, "message": row.message,
        "person": row.person, "made_at": _made_at(row.made_at),
        "received_at": iso(row.instance.received_at_s), "from": row.instance.calling_ae,
        "parts": sorted(part.value for part in row.parts), "revision": row.revision,
        "superseded_by": row.superseded_by, "verified": told.get("verified", False),
        "links": told.get("links", []), "regions": told.get("regions", []),
        "findings": told.get("findings", []), "dice": told.get("dice", {}),
    }  # fmt: skip


def _made_at(stamp: str) -> str | None:
    try:
        return datetime.strptime(stamp, "%Y%m%d%H%M%S").isoformat()  # noqa: DTZ007
    except ValueError:
        return None


@dataclass(frozen=True)
class Exported:
    """What became of one study: ``name`` of its case, or why it was left out."""

    study_uid: str
    name: str = ""
    left_out: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "study_uid": self.study_uid, "name": self.name or None,
            "left_out": self.left_out or None,
        }  # fmt: skip


class _LeftOut(Exception):
    """Why a study is not written."""


def export_annotated(
    store: Store, config: NodeConfig, out: Path, analyse: Analyse,
    studies: Sequence[str] = (), progress: Callable[[int, int], None] | None = None,
) -> list[Exported]:  # fmt: skip
    """Write the annotated set in the PI-CAI layout; each export is recorded in the audit trail.

    Args:
        store: of the node.
        config: of the node.
        out: the folder of the data set; cases that stand in it and are not written now stay.
        analyse: gives gland and zones that nobody drew and no result holds.
        studies: Study Instance UIDs; empty: all that are annotated.
        progress: called with how many are done, of how many.
    """
    used: dict[str, list[AnnotationRow]] = {}
    for row in store.annotations_of():
        if row.state is AnnotationState.USED and row.instance.study_uid in (
            studies or [row.instance.study_uid]
        ):
            used.setdefault(row.instance.study_uid, []).append(row)
    trail = AuditTrail(store, config, SystemClock())
    found = []
    for number, study_uid in enumerate(studies or used, start=1):
        export = _Export(store, config, trail, out, study_uid)
        found.append(export.write(used.get(study_uid, []), analyse))
        if progress is not None:
            progress(number, len(studies or used))
    trail.flush()
    return found


@dataclass(frozen=True, eq=False)
class _Export:
    """Writing one study."""

    store: Store
    config: NodeConfig
    trail: AuditTrail
    out: Path
    study_uid: str

    def write(self, rows: Sequence[AnnotationRow], analyse: Analyse) -> Exported:
        """Write the case of the study, or say why not."""
        try:
            return Exported(self.study_uid, self._write(rows, analyse))
        except _LeftOut as error:
            return Exported(self.study_uid, left_out=str(error))
        except (AnnotationProblem, InputProblem) as problem:
            return Exported(self.study_uid, left_out=problem.message)
        except CoreError as error:
            return Exported(self.study_uid, left_out=str(error))

    def _write(self, rows: Sequence[AnnotationRow], analyse: Analyse) -> str:
        from ai_core import Labels as CoreLabels
        from ai_core import write_labelled

        if not rows:
            raise _LeftOut("no annotation of it is used")
        latest = self.store.studies_show(self.study_uid)[:1]
        if latest and latest[0]["state"] == RevisionState.HELD:
            raise _LeftOut("the study is held")
        data_dir = self.config.node.data_dir
        study = AnnotatedStudy.open(self.store, data_dir, self.study_uid)
        ordered = sorted(rows, key=lambda row: (row.made_at, row.id))
        against = ordered[-1].revision
        node = study.result(against)
        truth = standing(list(_readings(study, ordered, against)), node)
        if truth is None or truth.lesions is None:
            raise _LeftOut("nobody said which lesions there are")
        sent = study.revision(against)
        case = build_case(study.selection(sent), loader(study, data_dir))
        labels = _labels(truth, node, case, analyse)
        name = case_name(self.store, study)
        self.trail.exported(
            self.study_uid, Counter(row.sop_class_uid for row in study.rows), str(self.out)
        )
        write_labelled(name, case, CoreLabels(*labels), self.out, _about(ordered, sent))
        return name


def case_name(store: Store, study: AnnotatedStudy) -> str:
    """Return the name of a study that has images in the set, ``PATIENT_STUDY``, both keyed."""
    key = store.installation_id().encode()
    image = next(row for row in study.rows if row.role == "image")
    of_patient = f"{image.identity.patient_id}\0{image.identity.issuer}"
    return "_".join(
        hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:12]
        for text in (of_patient, image.study_uid)
    )


def _readings(
    study: AnnotatedStudy, rows: Iterable[AnnotationRow], against: int | None
) -> Iterable[tuple[AnnotationKind, Reading]]:
    """Read annotations again on one grid; a report about another revision has nothing to say."""
    for row in rows:
        if row.kind is not AnnotationKind.SEG and row.revision != against:
            continue
        reading, _, _ = study.read(row.instance, row.kind, against)
        yield row.kind, reading


def loader(study: AnnotatedStudy, data_dir: Path) -> Callable[[str], Dataset]:
    """Return a function that reads an instance by UID, checked against what was received."""
    by_uid = {row.sop_instance_uid: row for row in study.rows}

    def load(sop_instance_uid: str) -> Dataset:
        row = by_uid[sop_instance_uid]
        verify(data_dir, row)
        return pydicom.dcmread(data_dir / row.path)

    return load


def _labels(
    truth: Standing, node: NodeResult | None, case: Case, analyse: Analyse
) -> tuple[Labels, Labels, Labels]:
    """Lesions, gland and zones: as drawn, else as the node sent them, else as it finds them."""
    gland = truth.gland if truth.gland is not None else (node.gland if node else None)
    zones = truth.zones if truth.zones is not None else (node.zones if node else None)
    if gland is None or zones is None:
        own_gland, own_zones = analyse(case)
        zones = own_zones if zones is None else zones
        if gland is None:
            gland = truth.zones > 0 if truth.zones is not None else own_gland > 0
    if not gland.any() or not zones.any():
        raise _LeftOut("no gland is drawn, and the node finds none")
    lesions = np.zeros(zones.shape, dtype=np.uint8) if truth.lesions is None else truth.lesions
    spacing = case.t2w.geometry
    return lesions.astype(np.uint8), gland.astype(np.uint8), fill_zones(zones, gland, spacing)


def fill_zones(zones: Labels, gland: npt.NDArray[np.bool_], grid: Geometry) -> Labels:
    """Give every voxel of the gland the zone that is nearest to it, and none to what is outside."""
    x, y, z = grid.spacing_xyz_mm
    nearest = ndimage.distance_transform_edt(
        zones == 0, sampling=(z, y, x), return_distances=False, return_indices=True
    )
    return np.where(gland, zones[tuple(nearest)], 0).astype(np.uint8)


def _about(rows: Sequence[AnnotationRow], sent: SentRevision | None) -> Mapping[str, Any]:
    """Where the labels come from, without names: agreement and parts of each annotation."""
    return {
        "revision": None if sent is None else sent.number,
        "annotations": [
            {
                "kind": row.kind.value, "parts": sorted(row.parts), "made_at": row.made_at,
                "findings": json.loads(row.detail_json).get("findings", []),
            }
            for row in rows
        ],
    }  # fmt: skip


def analyser(config: NodeConfig) -> Analyse:
    """Return a function that finds gland and zones with the configured release, loaded once."""
    loaded: list[Any] = []

    def analyse_case(case: Case) -> tuple[Labels, Labels]:
        from ai_core import analyse, load_release

        if not loaded:
            path = Path(config.model.release) if config.model.release else None
            loaded.append(
                load_release(
                    path,
                    device=config.model.device,
                    precision=config.model.precision,
                    synthesis=False,
                )
            )
        result = analyse(case, loaded[0])
        return result.gland_mask, result.zones

    return analyse_case
