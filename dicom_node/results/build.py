"""From a result to the encoded objects of a study: the one way into this package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pydicom.dataset import Dataset

from ai_core.types import CaseResult
from dicom_node.domain.profile import ResultKind, Variant
from dicom_node.domain.reasons import NO_GLAND, Reason
from dicom_node.errors import InputProblem
from dicom_node.results.gate import GateError, check_objects
from dicom_node.results.gsps import draft_presentation_state
from dicom_node.results.header import SourceImages, read_sources, tolerant
from dicom_node.results.key_image import render_pages
from dicom_node.results.ko import draft_key_object, draft_rejection
from dicom_node.results.page import Page
from dicom_node.results.pdf import draft_pdf
from dicom_node.results.pm import draft_map
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
from dicom_node.results.sc import draft_key_images
from dicom_node.results.seg import (
    GLAND,
    LESIONS,
    ZONES,
    Segment,
    draft_segmentation,
    gland_segments,
    lesion_segments,
    zone_segments,
)
from dicom_node.results.sr import draft_report
from dicom_node.results.uids import Draft, RunKey, finish, placeholder

__all__ = [
    "Analysed", "EarlierObject", "GateError", "KeyImageVolumes", "NotAnalysed", "Psa",
    "ResultObject", "ResultRequest", "SelectionSummary", "build_results",
]  # fmt: skip

_K = ResultKind
Segments = Mapping[ResultKind, tuple[Segment, ...]]


def build_results(request: ResultRequest) -> list[ResultObject]:
    """Encode the result objects of a study revision, in sending order.

    Of the kinds asked for those that the outcome allows: nothing without voxels is segmented, and
    a study that was not analysed has key images, report and PDF alone. Two builds of one request
    are identical bytes.

    Raises:
        InputProblem: the source headers cannot carry a result (no frame of reference, slices of
            different orientation), or there is no gland to report on.
        GateError: an object did not pass the checks before sending; nothing may be sent.
    """
    sources = read_sources(request)
    with tolerant():
        builder = _Builder(request, sources)
        objects = builder.build()
        check_objects(objects, request, sources, {str(k): v for k, v in builder.segments.items()})
    return objects


class _Builder:
    """Encodes one result set; objects that others refer to come first."""

    def __init__(self, request: ResultRequest, sources: SourceImages) -> None:
        self.request = request
        self.sources = sources
        self.segments: Segments = _segments(request, sources)
        self._run = RunKey(request.inputs_digest, _weights_digest(request), request.config_digest)
        self._known = _tracking_uids(request, self._run, self.segments)
        self._segmentations: dict[str, Dataset] = {}
        self._objects: list[ResultObject] = []
        self._pages: tuple[Page, ...] | None = None

    def build(self) -> list[ResultObject]:
        """Return the encoded objects: images, then what refers to them."""
        outcome = self.request.outcome
        if isinstance(outcome, Analysed):
            self._encode_segmentations(outcome.result)
            if self._wants(_K.PARAMETRIC_MAP):
                self._finish([draft_map(outcome.result, self.request, self.sources)])
        if self._wants(_K.KEY_IMAGES):
            self._finish(draft_key_images(self._render(), self.request, self.sources))
        if self._wants(_K.SR):
            self._encode_reports()
        if isinstance(outcome, Analysed):
            if self._wants(_K.PRESENTATION_STATE):
                self._finish([draft_presentation_state(outcome, self.request, self.sources)])
            if self._wants(_K.KEY_OBJECT):
                self._finish([draft_key_object(outcome, self.request, self.sources)])
        if self._wants(_K.PDF):
            self._finish([draft_pdf(self._render(), self.request, self.sources)])
        if isinstance(outcome, Analysed) and self._wants(_K.REJECTION_NOTE):
            note = draft_rejection(self.request, self.sources)
            self._finish([note] if note else [])
        return self._objects

    def _wants(self, kind: ResultKind) -> bool:
        return kind in self.request.kinds

    def _finish(self, drafts: Sequence[Draft]) -> None:
        if drafts:
            done, self._known = finish(drafts, self._known, self._run, self.request.content_time)
            self._objects += done

    def _render(self) -> tuple[Page, ...]:
        if self._pages is None:
            self._pages = render_pages(self.request)
        return self._pages

    def _encode_segmentations(self, result: CaseResult) -> None:
        for kind, segments in self.segments.items():
            if kind in self.request.kinds:
                draft = draft_segmentation(
                    kind, segments, self.request, self.sources, result.release
                )
                self._finish([draft])
                self._segmentations[kind] = draft.dataset

    def _encode_reports(self) -> None:
        """Encode the report in the forms asked for; they share their tracking UIDs."""
        referred = {
            kind: dataset
            for kind, dataset in self._segmentations.items()
            if kind in (GLAND, LESIONS)
        }
        expected = {kind for kind in (GLAND, LESIONS) if kind in self.segments}
        variants: Iterable[Variant]
        if set(referred) != expected:
            variants = (Variant.NO_SEG, Variant.TWIN_NO_SEG)
        elif not expected:
            variants = (Variant.PLAIN, Variant.TWIN)
        else:
            variants = tuple(Variant)
        for variant in variants if self.request.variants else (next(iter(variants)),):
            before = self._known
            draft = draft_report(self.request, self.sources, referred, variant)
            self._finish([draft])
            self._known = before  # each form has its own instance and series


def _weights_digest(request: ResultRequest) -> str:
    outcome = request.outcome
    return outcome.result.release.sha256 if isinstance(outcome, Analysed) else ""


def _tracking_uids(request: ResultRequest, run: RunKey, segments: Segments) -> dict[str, str]:
    """UIDs of the regions by placeholder: of region and name, whatever is encoded of them."""
    if not isinstance(request.outcome, Analysed):
        return {}
    geometry = repr(request.outcome.result.geometry)
    found = {}
    for segment in (segment for parts in segments.values() for segment in parts):
        digest = hashlib.sha256(f"{geometry}{segment.label}{segment.description}".encode())
        digest.update(np.packbits(segment.mask).tobytes())
        role = segment.tracking_role
        found[placeholder(role)] = run.uid(digest.hexdigest(), role)
    return found


def _segments(request: ResultRequest, sources: SourceImages) -> Segments:
    """Regions by kind of segmentation, with or without an object of theirs."""
    if not isinstance(request.outcome, Analysed):
        return {}
    result = request.outcome.result
    if not result.gland_mask.any():
        raise InputProblem(Reason.NOT_PROSTATE, NO_GLAND)
    found = {GLAND: gland_segments(result)}
    if result.findings:
        found[LESIONS] = lesion_segments(result)
    if result.zones.any() and ZONES in request.kinds:
        found[ZONES] = zone_segments(result)
    slices = len(sources.references)
    if slices != result.geometry.size_xyz[2]:
        raise GateError(f"the result has {result.geometry.size_xyz[2]} slices, the T2W {slices}")
    for kind, segments in found.items():
        for segment in segments:
            if not segment.mask.any():
                raise GateError(f"{kind}: '{segment.label}' has no voxel")
    return found
