"""Judging what people stored about the node's findings, from the files and rows alone.

Runs beside the worker, never in the receive path: it decodes pixels of strangers. Nothing here
changes a study or its revisions.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from dicom_node.annotations.agreement import NodeResult
from dicom_node.annotations.reading import Reading, StudyGrid, named_by, read_annotation
from dicom_node.annotations.result import SENT_KINDS, SentResult, read_result
from dicom_node.annotations.segmentation import Source
from dicom_node.dicom.records import InstanceHeader
from dicom_node.dicom.select import Selection, select
from dicom_node.dicom.stacks import Stack
from dicom_node.dicom.volume import stack_geometry
from dicom_node.domain.annotation import (
    ANNOTATION_CLASSES,
    ANNOTATION_REASONS,
    AnnotationKind,
    AnnotationProblem,
    AnnotationReason,
    AnnotationState,
)
from dicom_node.domain.identity import same_patient
from dicom_node.domain.states import RevisionState
from dicom_node.errors import InputProblem, NodeError
from dicom_node.flow.spool import read_dataset
from dicom_node.store.rows import AnnotationDue, AnnotationOutcome, InstanceRow, SentRevision
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

MAX_JUDGINGS = 2
"""An object whose judging was begun so often and never ended is not looked at again."""
_UNFINISHED = frozenset(
    {
        RevisionState.RECEIVING, RevisionState.READY, RevisionState.RUNNING, RevisionState.HELD,
    }
)  # fmt: skip


def judge_annotations(store: Store, data_dir: Path) -> int:
    """Judge everything that is due; returns how much that was."""
    due = store.annotations_due()
    for one in due:
        if store.begin_annotation(one.id) > MAX_JUDGINGS:
            outcome = _refused(AnnotationProblem(AnnotationReason.UNREADABLE))
        else:
            outcome = _judge(store, data_dir, one)
        store.settle_annotation(one, outcome)
        extra = {"kind": str(one.kind), "state": str(outcome.state), "reason": outcome.reason}
        log.info("annotation judged", extra=extra)
    return len(due)


def _judge(store: Store, data_dir: Path, due: AnnotationDue) -> AnnotationOutcome:
    try:
        study = AnnotatedStudy.open(store, data_dir, due.instance.study_uid)
        study.check(due.instance)
        reading, revision, grid = study.read(due.instance, due.kind)
    except AnnotationProblem as problem:
        return _refused(problem)
    except NodeError:
        raise
    except Exception as error:  # whatever a parser meets in what a stranger wrote
        log.warning("annotation unreadable", extra={"error": type(error).__name__})
        return _refused(AnnotationProblem(AnnotationReason.UNREADABLE))
    voxel_ml = 0.0 if grid is None else grid.geometry.voxel_volume_mm3 / 1000
    return AnnotationOutcome(
        AnnotationState.USED, person=reading.maker.person, made_at=reading.maker.made_at,
        parts=reading.parts, revision=revision,
        detail_json=json.dumps(reading.described(voxel_ml)),
    )  # fmt: skip


def _refused(problem: AnnotationProblem) -> AnnotationOutcome:
    state = ANNOTATION_REASONS[problem.reason].state
    return AnnotationOutcome(state, problem.reason, problem.message)


def without_strangers(rows: Sequence[InstanceRow]) -> list[InstanceRow]:
    """Leave out stored reports and segmentations that name another patient than the images do.

    They are listed among the annotations; as part of the input they would hold the study.
    """
    images = [row.identity for row in rows if row.role == "image"]
    return [
        row
        for row in rows
        if row.sop_class_uid not in ANNOTATION_CLASSES
        or all(same_patient(row.identity, image) for image in images[:1])
    ]


@dataclass(frozen=True, eq=False)
class AnnotatedStudy:
    """The images and results of one study, as far as annotations are judged by them."""

    data_dir: Path
    rows: tuple[InstanceRow, ...]
    sent: tuple[SentRevision, ...]

    @classmethod
    def open(cls, store: Store, data_dir: Path, study_uid: str) -> AnnotatedStudy:
        """Read rows; files are read when they are needed."""
        rows = tuple(store.headers_of(study_uid))
        return cls(data_dir, rows, tuple(store.sent_revisions(study_uid)))

    @property
    def unfinished(self) -> bool:
        """Whether the last revision has no result yet."""
        return bool(self.sent) and self.sent[0].state in _UNFINISHED

    def check(self, instance: InstanceRow) -> None:
        """See that an object belongs to the patient, and that it can be judged now.

        Raises:
            AnnotationProblem: it does not, or not yet.
        """
        images = [row for row in self.rows if row.role == "image"]
        if not images:
            raise AnnotationProblem(AnnotationReason.NO_IMAGES)
        if self.unfinished:
            raise AnnotationProblem(AnnotationReason.ANALYSIS_OPEN)
        if not all(same_patient(instance.identity, row.identity) for row in images):
            raise AnnotationProblem(AnnotationReason.OTHER_PATIENT)

    def read(
        self, instance: InstanceRow, kind: AnnotationKind, against: int | None = None
    ) -> tuple[Reading, int | None, StudyGrid | None]:
        """Read an annotation against the revision it names, else against the last with a result.

        ``against``: a revision by number, whatever the annotation names. Returns what it says, the
        number of the revision, and the grid of its T2W images.

        Raises:
            AnnotationProblem: it is not used.
        """
        dataset = self._dataset(instance)
        sent = self._compared_with(dataset, kind) if against is None else self.revision(against)
        grid = self.grid(sent)
        node: NodeResult | None = None
        if sent is not None and grid is not None:
            node = read_result(self._sent_result(sent), grid)
        reading = read_annotation(dataset, kind, grid, node)
        return reading, None if node is None else node.revision, grid

    def grid(self, sent: SentRevision | None) -> StudyGrid | None:
        """Return the grid of the T2W images that a revision used; None where there is none."""
        headers = self.headers(sent)
        stack = self.selection(sent).t2w
        if stack is None:
            return None
        try:
            geometry = stack_geometry(stack)
        except InputProblem:
            return None
        frames = {header.series_uid: header.frame_of_reference_uid for header in headers}
        return StudyGrid(
            geometry, stack.header.frame_of_reference_uid, frames, _sources(stack)
        )  # fmt: skip

    def selection(self, sent: SentRevision | None) -> Selection:
        """Choose the input of a revision as its analysis did."""
        return select(self.headers(sent))

    def headers(self, sent: SentRevision | None) -> list[InstanceHeader]:
        """Headers of the images that a revision knew."""
        through = sent.through if sent is not None else None
        return [
            InstanceHeader.from_json(row.header_json)
            for row in self.rows
            if row.role == "image" and (through is None or row.id <= through)
        ]

    def revision(self, number: int | None) -> SentRevision | None:
        """Return a revision that has a result, by number."""
        return next((one for one in self._with_result() if one.number == number), None)

    def result(self, number: int | None) -> NodeResult | None:
        """Return what the node said in a revision; None where it has no result."""
        sent = self.revision(number)
        grid = self.grid(sent)
        return None if sent is None or grid is None else read_result(self._sent_result(sent), grid)

    def _with_result(self) -> list[SentRevision]:
        """Return the revisions in which the study was analysed, newest first."""
        return [
            one for one in self.sent
            if any(result.kind in ("seg-gland", "seg-lesions") for result in one.results)
        ]  # fmt: skip

    def _compared_with(self, dataset: Dataset, kind: AnnotationKind) -> SentRevision | None:
        named = named_by(dataset, kind)
        analysed = self._with_result()
        for one in analysed:
            result = self._sent_result(one)
            if named.links(result.objects, result.tracking_uids, result.lesion_series):
                return one
        return analysed[0] if analysed else None

    def _sent_result(self, sent: SentRevision) -> SentResult:
        found: dict[str, Dataset] = {}
        for result in sent.results:
            place = SENT_KINDS.get(result.kind)
            if place is not None and place not in found:
                found[place] = _read_result_file(self.data_dir / result.path, result.sha256)
        objects = {result.sop_instance_uid: result.kind for result in sent.results}
        return SentResult(sent.number, objects, **found)

    def _dataset(self, instance: InstanceRow) -> Dataset:
        try:
            read_dataset(self.data_dir, instance)  # checked against what was received
        except InputProblem:
            raise AnnotationProblem(AnnotationReason.DAMAGED) from None
        return pydicom.dcmread(self.data_dir / instance.path)


def _read_result_file(path: Path, sha256: str) -> Dataset:
    try:
        whole = hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        whole = False
    if not whole:
        raise AnnotationProblem(AnnotationReason.DAMAGED, "(a result of the node)")
    return pydicom.dcmread(path)


def _sources(stack: Stack) -> dict[tuple[str, int], Source]:
    found = {}
    for frame in stack.frames:
        number = 1 if frame.index is None else frame.index + 1
        x, y, z = frame.ipp
        a, b, c, d, e, f = frame.iop
        found[frame.header.sop_instance_uid, number] = Source(
            (x, y, z), (a, b, c, d, e, f), (frame.spacing[0], frame.spacing[1])
        )
    return found
