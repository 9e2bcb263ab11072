"""One study from stored files to encoded result objects: read, load, prepare, infer, encode.

The same function serves the worker of the node and `dicom-node process`. It needs torch, so only
the child that holds the model and the command `process` import it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import pydicom
from pydicom.dataset import Dataset

from ai_core import analyse
from ai_core.errors import GeometryError, InputError
from ai_core.types import Case, CaseResult, ReleaseInfo
from dicom_node.dicom.header import InstanceHeader
from dicom_node.dicom.psa import find_psa
from dicom_node.dicom.select import Chosen, Selection, select
from dicom_node.dicom.volume import build_case
from dicom_node.domain.profile import DEFAULT_KINDS
from dicom_node.domain.reasons import NO_GLAND, REASONS, Reason
from dicom_node.errors import InputProblem
from dicom_node.results.build import build_results
from dicom_node.results.header import tolerant
from dicom_node.results.recognise import is_own_object
from dicom_node.results.request import (
    Analysed,
    EarlierObject,
    KeyImageVolumes,
    NotAnalysed,
    Psa,
    ResultObject,
    ResultRequest,
    SelectionSummary,
)

log = logging.getLogger(__name__)

State = Literal["analysed", "not_analysable", "failed"]
STAGES = ("read", "load", "prepare", "infer", "encode")
_MAX_REPORTS = 20  # reports of others in the study that are searched for a PSA
_REPORT_SOURCES = 40  # a report "not analysed" refers to some images of the study, not to all


@dataclass(frozen=True)
class StudyJob:
    """What to do for one study revision.

    ``load`` returns the bytes of an instance as a Part 10 file, checked against what was received;
    it raises InputProblem where they differ. ``digests`` are SHA-256 of data sets by SOP Instance
    UID. ``verdict``: the study was found not analysable before; only the report is made.
    ``earlier``: what was sent of earlier revisions. ``kinds`` are the objects to encode, with
    ``variants`` the report in every form. ``psa``: where it is given; else the study is searched.
    """

    headers: tuple[InstanceHeader, ...]
    load: Callable[[str], bytes]
    digests: Mapping[str, str]
    content_time: datetime
    config_digest: str
    installation_id: str
    software_version: str
    revision: int = 1
    earlier: tuple[EarlierObject, ...] = ()
    verdict: NotAnalysed | None = None
    kinds: frozenset[str] = frozenset(DEFAULT_KINDS)
    variants: bool = False
    psa: Psa | None = None


@dataclass(frozen=True)
class StudyOutcome:
    """What became of the study. ``objects`` is empty where nothing may be sent."""

    study_uid: str
    state: State
    reason: Reason | None
    message: str | None
    objects: tuple[ResultObject, ...]
    inputs: Mapping[str, str | None]
    timings_s: Mapping[str, float]
    release: ReleaseInfo | None = None
    result: CaseResult | None = field(default=None, repr=False)
    case: Case | None = field(default=None, repr=False)


class _Stopwatch:
    """Divides wall time into the stages of the contract."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now

    def split(self, stage: str, part: str, part_s: float) -> None:
        """Count ``part_s`` of what ``stage`` holds for ``part``."""
        moved = min(part_s, self.seconds[stage])
        self.seconds[stage] -= moved
        self.seconds[part] += moved


def run_study(job: StudyJob, release_of: Callable[[], Any]) -> StudyOutcome:
    """Analyse one study and encode its result objects.

    ``release_of`` returns the loaded release of the core (``ai_core.load_release``); it is called
    once the images are read.

    Raises:
        InputProblem: the study must be held (conflict of identity, stored bytes changed).
        GateError: an object did not pass the output gate.
        CoreError: the release cannot be used.
    """
    watch = _Stopwatch()
    selection = select(job.headers)
    images = _Images(job)
    if job.verdict is not None:
        return _report(job, images, selection, job.verdict, watch)
    try:
        _refuse_what_select_refuses(selection)
        case = build_case(selection, images.dataset)
        watch.lap("read")
        release = release_of()
        watch.lap("load")
        result = _analyse(case, release)
        watch.lap("infer")
        watch.split("infer", "prepare", result.timings_s.get("prepare", 0.0))
        if not result.gland.credible:
            raise InputProblem(Reason.NOT_PROSTATE, NO_GLAND)
    except InputProblem as problem:
        if problem.reason in _HELD:
            raise
        verdict = NotAnalysed("not_analysable", problem.reason, problem.message)
        return _report(job, images, selection, verdict, watch)
    request = _request(job, images, selection, Analysed(result, _shown(case, selection)))
    objects = tuple(build_results(request))
    watch.lap("encode")
    return StudyOutcome(
        study_uid=job.headers[0].study_uid, state="analysed", reason=None, message=None,
        objects=objects, inputs=selection.inputs(), timings_s=watch.seconds,
        release=result.release, result=result, case=case,
    )  # fmt: skip


def _analyse(case: Case, release: Any) -> CaseResult:
    try:
        result: CaseResult = analyse(case, release)
    except GeometryError as error:
        raise InputProblem(Reason.GEOMETRY_UNREADABLE, str(error)) from error
    except InputError as error:
        raise InputProblem(Reason.NO_DIFFUSION, str(error)) from error
    return result


_HELD = frozenset((Reason.HASH_MISMATCH, Reason.IDENTITY_CONFLICT, Reason.SAME_UID_OTHER_BYTES))


def _refuse_what_select_refuses(selection: Selection) -> None:
    if selection.problem is not None:
        raise InputProblem(selection.problem, selection.detail)


def _report(
    job: StudyJob, images: _Images, selection: Selection, verdict: NotAnalysed, watch: _Stopwatch
) -> StudyOutcome:
    """Encode the report that says why there is no result, where one may be sent."""
    watch.lap("read")
    objects: tuple[ResultObject, ...] = ()
    if REASONS[verdict.reason].send_report:
        objects = tuple(build_results(_request(job, images, selection, verdict)))
    watch.lap("encode")
    return StudyOutcome(
        study_uid=job.headers[0].study_uid,
        state=verdict.state,
        reason=verdict.reason,
        message=verdict.message,
        objects=objects,
        inputs=selection.inputs(),
        timings_s=watch.seconds,
    )


def _request(
    job: StudyJob, images: _Images, selection: Selection, outcome: Analysed | NotAnalysed
) -> ResultRequest:
    sources, frames, others = _sources(job, selection, isinstance(outcome, Analysed))
    used = [*sources, *others]
    return ResultRequest(
        sources=[images.header(uid) for uid in sources],
        outcome=outcome,
        inputs_digest=_inputs_digest(job, used),
        config_digest=job.config_digest,
        content_time=job.content_time,
        installation_id=job.installation_id,
        software_version=job.software_version,
        other_sources=[images.header(uid) for uid in others],
        selection=_summary(selection),
        frames=frames,
        revision=job.revision,
        earlier=job.earlier,
        psa=(job.psa or images.psa(job.headers)) if isinstance(outcome, Analysed) else None,
        kinds=job.kinds,
        variants=job.variants,
    )


def _sources(
    job: StudyJob, selection: Selection, analysed: bool
) -> tuple[list[str], tuple[int, ...] | None, list[str]]:
    """Instances the objects refer to: the T2W stack in order, its frame numbers, and the others."""
    if analysed and selection.t2w is not None:
        refs = selection.t2w.refs
        sources = list(dict.fromkeys(ref.sop_instance_uid for ref in refs))
        frames = None
        if refs[0].frame_index is not None:  # DICOM counts frames from 1
            frames = tuple(ref.frame_index + 1 for ref in refs if ref.frame_index is not None)
        others = [uid for uid in selection.instances_used() if uid not in set(sources)]
        return sources, frames, others
    some = sorted(
        job.headers, key=lambda header: (header.modality != "MR", header.sop_instance_uid)
    )
    t2w = list(selection.t2w.sop_instance_uids) if selection.t2w is not None else []
    known = set(t2w)
    rest = [h.sop_instance_uid for h in some if h.sop_instance_uid not in known]
    return [], None, (t2w + rest)[:_REPORT_SOURCES]


def _inputs_digest(job: StudyJob, used: Sequence[str]) -> str:
    lines = [job.headers[0].study_uid, *sorted(f"{uid} {job.digests[uid]}" for uid in used)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _summary(selection: Selection) -> SelectionSummary:
    chosen = tuple(
        f"{role}: {_text_of(choice)}"
        for role, all_of in selection.chosen().items()
        for choice in all_of
    )
    rejected = tuple(f"{r.description or r.series_uid}: {r.reason}" for r in selection.rejected)
    return SelectionSummary(chosen, rejected, selection.notes)


def _text_of(choice: Chosen) -> str:
    b_value = "" if choice.b_value is None else f", b {choice.b_value:g}"
    computed = " computed" if choice.computed else ""
    name = choice.description or choice.series_uid
    return f"{name}{b_value}{computed}, {choice.images} images"


def _shown(case: Case, selection: Selection) -> KeyImageVolumes:
    high_b = case.high_b
    label = "high b"
    if high_b is not None:
        label = f"b {high_b.b_value_s_per_mm2:g}" + (" computed" if high_b.computed else "")
    elif case.dwi:
        last = max(case.dwi, key=lambda dwi: dwi.b_value_s_per_mm2)
        high_b, label = last, f"b {last.b_value_s_per_mm2:g}"
    return KeyImageVolumes(case.t2w, case.adc, high_b.volume if high_b else None, label)


class _Images:
    """Data sets of the study by SOP Instance UID; headers are kept, pixels are not."""

    def __init__(self, job: StudyJob) -> None:
        self._load = job.load
        self._headers: dict[str, Dataset] = {}

    def dataset(self, sop_instance_uid: str) -> Dataset:
        """Return the whole data set. Raises InputProblem where the stored bytes changed."""
        data = self._load(sop_instance_uid)
        self._headers[sop_instance_uid] = _parse(data, pixels=False)
        return _parse(data, pixels=True)

    def header(self, sop_instance_uid: str) -> Dataset:
        """Return the data set without pixels."""
        if sop_instance_uid not in self._headers:
            data = self._load(sop_instance_uid)
            self._headers[sop_instance_uid] = _parse(data, pixels=False)
        return self._headers[sop_instance_uid]

    def psa(self, headers: Sequence[InstanceHeader]) -> Psa | None:
        """Return the PSA that the study itself tells, if it does."""
        reports = [h.sop_instance_uid for h in headers if h.modality == "SR"][:_MAX_REPORTS]
        told = [*self._headers.values(), *(self.header(uid) for uid in reports)]
        datasets = [_beside(dataset) for dataset in told]
        with tolerant():
            found = find_psa(
                dataset
                for dataset in datasets
                if not is_own_object(
                    dataset.get("Manufacturer"), dataset.get("ManufacturerModelName")
                )
            )
        return Psa(found.value_ng_ml, found.source) if found else None


def _beside(dataset: Dataset) -> Dataset:
    """Return a data set to read text from; decoded there, it stays as received in the first."""
    view = Dataset({element.tag: element for element in dataset.elements()})
    implicit, little_endian = dataset.original_encoding
    view.set_original_encoding(implicit, little_endian, dataset.original_character_set)
    return view


def _parse(data: bytes, *, pixels: bool) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)


def result_json(outcome: StudyOutcome, outputs: Sequence[str]) -> dict[str, Any]:
    """Return the JSON of ``process`` for an outcome: keys and units of the contract."""
    result = outcome.result if outcome.state == "analysed" else None
    release = outcome.release
    return {
        "study_uid": outcome.study_uid,
        "state": outcome.state,
        "reason": outcome.reason.value if outcome.reason else None,
        "message": outcome.message,
        "case": _case_json(result) if result else None,
        "gland": {"volume_ml": round(result.gland.volume_ml, 1)} if result else None,
        "findings": [_finding_json(finding) for finding in result.findings] if result else None,
        "quality": [vars_of(item) for item in result.quality] if result else [],
        "inputs": dict(outcome.inputs),
        "outputs": list(outputs),
        "model": _model_json(release) if release else None,
        "timings_s": {stage: round(s, 3) for stage, s in outcome.timings_s.items()},
        "notice": "Machine-made, unverified, research use only.",
    }


def _case_json(result: CaseResult) -> dict[str, Any]:
    return {
        "likelihood_percent": round(100 * result.case_likelihood, 1),
        "significant": result.case_significant,
    }


def _finding_json(finding: Any) -> dict[str, Any]:
    adc, abnormality = finding.mean_adc_um2_s, finding.abnormality
    branch = {} if abnormality is None else {"abnormality": round(abnormality, 2)}
    return {
        "rank": finding.rank,
        "center_lps_mm": [round(v, 2) for v in finding.center_lps_mm],
        "volume_ml": round(finding.volume_ml, 2),
        "longest_diameter_mm": round(finding.longest_diameter_mm, 1),
        "likelihood_percent": round(100 * finding.likelihood, 1),
        "significant": finding.significant,
        "suspicion_score": round(finding.suspicion_score, 1),
        "sector": finding.sector,
        "mean_adc_um2_s": None if adc is None else round(adc, 1),
        "uncertainty": round(finding.uncertainty, 3),
        **branch,
    }


def _model_json(release: ReleaseInfo) -> dict[str, str]:
    return {"name": release.name, "version": release.version, "sha256": release.sha256}


def vars_of(item: Any) -> dict[str, Any]:
    """Return a quality finding as plain values."""
    return {"code": item.code.value, "message": item.message, "value": item.value}


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Encode a JSON document for a file."""
    return (json.dumps(value, indent=2) + "\n").encode()
