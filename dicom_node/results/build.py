"""From a result to the encoded objects of a study: the one way into this package."""

from __future__ import annotations

from ai_core.types import Geometry
from dicom_node.domain.reasons import NO_GLAND, Reason
from dicom_node.errors import InputProblem
from dicom_node.results.gate import GateError, check_objects
from dicom_node.results.header import SourceImages, read_sources, tolerant
from dicom_node.results.request import (
    Analysed,
    KeyImageVolumes,
    NotAnalysed,
    Predecessor,
    ResultObject,
    ResultRequest,
    SelectionSummary,
)
from dicom_node.results.sc import draft_key_images
from dicom_node.results.seg import (
    GLAND,
    LESIONS,
    Segment,
    draft_segmentation,
    gland_segments,
    lesion_segments,
)
from dicom_node.results.sr import draft_report
from dicom_node.results.uids import Draft, RunKey, finish

__all__ = [
    "Analysed", "GateError", "KeyImageVolumes", "NotAnalysed", "Predecessor", "ResultObject",
    "ResultRequest", "SelectionSummary", "build_results",
]  # fmt: skip


def build_results(request: ResultRequest) -> list[ResultObject]:
    """Encode the default result objects of a study revision, in sending order.

    Analysed: gland SEG, lesion SEG (only with findings), key images, SR. Not analysed: a key
    image page that says so, and the SR. Two builds of one request are identical bytes.

    Raises:
        InputProblem: the source headers cannot carry a result (no frame of reference, slices of
            different orientation), or there is no gland to report on.
        GateError: an object did not pass the checks before sending; nothing may be sent.
    """
    sources = read_sources(request)
    segmentations = _segmentations(request, sources)
    run = RunKey(request.inputs_digest, _weights_digest(request), request.config_digest)
    objects: list[ResultObject] = []
    known: dict[str, str] = {}
    with tolerant():
        for draft, _ in segmentations:
            done, known = finish([draft], known, run, request.content_time)
            objects += done
        pages, known = finish(draft_key_images(request, sources), known, run, request.content_time)
        report = draft_report(request, sources, segmentations)
        final, known = finish([report], known, run, request.content_time)
        objects += [*pages, *final]
        segments = {draft.kind: parts for draft, parts in segmentations}
        check_objects(objects, request, sources, segments)
    return objects


def _weights_digest(request: ResultRequest) -> str:
    outcome = request.outcome
    return outcome.result.release.sha256 if isinstance(outcome, Analysed) else ""


def _segmentations(
    request: ResultRequest, sources: SourceImages
) -> list[tuple[Draft, tuple[Segment, ...]]]:
    if not isinstance(request.outcome, Analysed):
        return []
    result = request.outcome.result
    if not result.gland_mask.any():
        raise InputProblem(Reason.NOT_PROSTATE, NO_GLAND)
    parts = [(GLAND, gland_segments(result))]
    if result.findings:
        parts.append((LESIONS, lesion_segments(result)))
    _check_masks(result.geometry, sources, parts)
    with tolerant():
        return [
            (draft_segmentation(kind, segments, request, sources, result.release), segments)
            for kind, segments in parts
        ]


def _check_masks(
    geometry: Geometry, sources: SourceImages, parts: list[tuple[str, tuple[Segment, ...]]]
) -> None:
    slices = len(sources.references)
    if slices != geometry.size_xyz[2]:
        raise GateError(f"the result has {geometry.size_xyz[2]} slices, the T2W {slices}")
    for kind, segments in parts:
        for segment in segments:
            if not segment.mask.any():
                raise GateError(f"{kind}: '{segment.label}' has no voxel")
