"""The studies of a site: each analysed and prepared once, kept in the folder of the adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.progress import track

from ai_core.adapt.console import STDERR
from ai_core.errors import CoreError, InputError
from ai_core.labelled import LabelledCase
from ai_core.picai.layout import StudyFiles, open_archive
from ai_core.picai.read import is_simulated, read_images, read_study
from ai_core.pipeline import examine
from ai_core.release import Release
from ai_core.train.archive_source import ArchiveSource, Marked, foci_of, prepare_case
from ai_core.types import Case, CaseResult

_NO_FOCI = np.zeros((0, 3), dtype=np.int16)


class SiteCase(BaseModel):
    """One study. ``annotated``: somebody said which lesions there are; else ``positive`` is None.

    ``measures``: of input quality. ``problem``: why it cannot be used; empty where it can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    patient: str
    annotated: bool = False
    positive: bool | None = None
    simulated: bool = False
    measures: Mapping[str, float] = {}
    problem: str = ""


def open_site(data: Path, release: Release, folder: Path) -> tuple[SiteCase, ...]:
    """Prepare the studies of a folder in the PI-CAI layout; finished ones are read.

    Unlabelled studies take gland and zones from the release.

    Raises:
        InputError: the folder holds no examination.
    """
    folder.mkdir(parents=True, exist_ok=True)
    studies = open_archive((data,)).studies
    found = []
    for study in track(studies, description="studies", console=STDERR):
        record = folder / f"{study.name}.json"
        case = _known(record)
        if case is None:
            case = _prepare(study, release, folder)
            part = record.with_suffix(".part")
            part.write_text(case.model_dump_json(indent=1) + "\n", encoding="utf-8")
            part.replace(record)
        found.append(case)
    return tuple(found)


def source_of(cases: Sequence[SiteCase], folder: Path) -> ArchiveSource:
    """Return prepared studies, in this order, as training draws them."""
    return ArchiveSource(tuple(folder / f"{case.name}.npz" for case in cases))


def _known(record: Path) -> SiteCase | None:
    try:
        return SiteCase.model_validate_json(record.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _prepare(study: StudyFiles, release: Release, folder: Path) -> SiteCase:
    try:
        return _prepared(study, release, folder)
    except CoreError as error:
        return SiteCase(name=study.name, patient=study.patient_id, problem=str(error))


def _prepared(study: StudyFiles, release: Release, folder: Path) -> SiteCase:
    labelled = _labelled(study)
    case = read_images(study) if labelled is None else labelled.case
    result = examine(case, release).result
    prepare_case(
        case, _marked(case, labelled, result), folder / f"{study.name}.npz", release.config
    )
    return SiteCase(
        name=study.name,
        patient=study.patient_id,
        annotated=labelled is not None,
        positive=None if labelled is None else labelled.reference.positive,
        simulated=is_simulated(study),
        measures=dict(result.measures),
    )


def _labelled(study: StudyFiles) -> LabelledCase | None:
    """Return the study with its lesions; None where nobody said or drew which there are."""
    said = study.row is not None and study.row.significant is not None
    if not (said or {"lesions_expert", "lesions_ai"} & set(study.labels)):
        return None
    labelled = read_study(study)
    return None if labelled.reference.grades is None else labelled


def _marked(case: Case, labelled: LabelledCase | None, result: CaseResult) -> Marked:
    zones = None if labelled is None else labelled.reference.zones
    if zones is None or not zones.any():
        zones = result.zones
    if not zones.any():
        raise InputError("no prostate was found in it", "Draw gland and zones.")
    if labelled is None:
        return Marked(zones, np.zeros(case.t2w.geometry.shape_zyx, np.uint8), _NO_FOCI)
    instances, foci = foci_of(labelled)
    return Marked(zones, instances, foci)
