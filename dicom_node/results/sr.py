"""The report: Comprehensive 3D SR, TID 1500, in the shape that viewers draw (PS3.16 TID 1500).

For the gland and for every finding two groups stand under one Tracking UID: one refers to the
segment and carries all numbers (TID 1411), the other holds the outline on one slice (TID 1410).
Viewers merge them by the UID; a group without an outline is not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ai_core.types import CaseResult, Finding, Quality, ReleaseInfo
from dicom_node.domain.reasons import REASONS
from dicom_node.results import codes, text
from dicom_node.results.contour import graphic_data, slice_of_largest_area
from dicom_node.results.equipment import (
    CODING_SCHEME,
    CODING_SCHEME_NAME,
    MANUFACTURER,
    MODEL_NAME,
    device_observer_uid,
)
from dicom_node.results.header import FrameReference, SourceImages, request_verbatim
from dicom_node.results.remarks import analysed_remarks, common_remarks, not_analysed_words
from dicom_node.results.request import Analysed, NotAnalysed, ResultRequest
from dicom_node.results.seg import Mask, Segment
from dicom_node.results.uids import Draft, placeholder, without_times

KIND = "sr"
_SERIES_NUMBER = 9106
_INSTANCE, _SERIES, _TRACKING = f"{KIND}/instance", f"{KIND}/series", f"{KIND}/tracking"

_INCOMPLETE = frozenset({Quality.GLAND_CUT_OFF, Quality.DIFFUSION_COVERAGE})
"""With these a part of the gland was not looked at: the report says PARTIAL."""

_Groups = list[
    sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
]


def draft_report(
    request: ResultRequest,
    sources: SourceImages,
    segmentations: Sequence[tuple[Draft, Sequence[Segment]]],
) -> Draft:
    """Return the report of a request; it refers to the segmentations by their UIDs.

    Args:
        request: what is reported.
        sources: the source images, all listed as evidence.
        segmentations: the gland first, then the lesions if there are any; empty where the study
            was not analysed. They carry their final instance UIDs.
    """
    outcome = request.outcome
    if isinstance(outcome, Analysed):
        groups = _analysed_groups(outcome.result, sources, segmentations)
        remarks = analysed_remarks(outcome.result, request)
        words = "AI prostate report"
        complete = not _INCOMPLETE & {finding.code for finding in outcome.result.quality}
    else:
        groups = [_not_analysed_group(outcome)]
        remarks = [not_analysed_words(outcome), *common_remarks(request)]
        words, complete = "AI prostate report - NOT ANALYSED", False
    report = _report(groups, request, sources)
    report[0].ContentSequence.append(_remarks_container(remarks))
    evidence = [*sources.templates, *sources.others, *(draft.dataset for draft, _ in segmentations)]
    dataset = _document(report, evidence, request, complete=complete)
    dataset.SeriesDescription = text.series_description(words, request)
    return Draft(KIND, dataset, request_verbatim(sources), (_INSTANCE, _SERIES, _TRACKING))


def _document(
    report: sr.MeasurementReport,
    evidence: Sequence[Dataset],
    request: ResultRequest,
    *,
    complete: bool,
) -> sr.Comprehensive3DSR:
    analysed = isinstance(request.outcome, Analysed)
    dataset = sr.Comprehensive3DSR(
        evidence=evidence,
        content=report,
        series_instance_uid=placeholder(_SERIES),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=placeholder(_INSTANCE),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=complete,
        is_final=False,
        is_verified=False,
        previous_versions=_predecessors(request),
        coding_schemes=[_private_scheme()] if analysed else None,
    )
    without_times(dataset)
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = request.installation_id
    dataset.SoftwareVersions = request.software_version
    return dataset


def _private_scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(
        designator=CODING_SCHEME, name=CODING_SCHEME_NAME, responsible_organization=MANUFACTURER
    )


def _predecessors(request: ResultRequest) -> list[Dataset] | None:
    if request.predecessor is None:
        return None
    earlier = Dataset()
    earlier.SOPClassUID = request.predecessor.sop_class_uid
    earlier.SOPInstanceUID = request.predecessor.sop_instance_uid
    earlier.StudyInstanceUID = request.predecessor.study_uid
    earlier.SeriesInstanceUID = request.predecessor.series_uid
    return [earlier]


def _report(groups: _Groups, request: ResultRequest, sources: SourceImages) -> sr.MeasurementReport:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=device_observer_uid(request.installation_id),
        name=MODEL_NAME,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=request.installation_id,
    )
    observer = sr.ObserverContext(sr.CodedConcept.from_code(codes.DEVICE), device)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.MP_MRI_OF_PROSTATE,
        imaging_measurements=groups,
        title=codes.IMAGING_MEASUREMENT_REPORT,
    )
    content = report[0].ContentSequence
    content.insert(len(content) - 1, _image_library(sources))  # TID 1500: before the measurements
    return report


def _image_library(sources: SourceImages) -> sr.ContainerContentItem:
    """Return the T2W images as image library (TID 1600); OHIF fails on a report without."""
    images = sources.templates or sources.others
    entries = [
        sr.ImageContentItem(
            name=codes.SOURCE,
            referenced_sop_class_uid=image.SOPClassUID,
            referenced_sop_instance_uid=image.SOPInstanceUID,
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
        for image in images
    ]
    group = _container(codes.IMAGE_LIBRARY_GROUP, entries)
    return _container(codes.IMAGE_LIBRARY, [group])


def _container(name: Code, items: Sequence[sr.ContentItem]) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(
        name=name,
        is_content_continuous=False,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
    container.ContentSequence = sr.ContentSequence(items)
    return container


# --- the groups of an analysed study ---------------------------------------------------------


def _analysed_groups(
    result: CaseResult,
    sources: SourceImages,
    segmentations: Sequence[tuple[Draft, Sequence[Segment]]],
) -> _Groups:
    gland_draft, (gland,) = segmentations[0]
    algorithm = _algorithm(result.release)
    groups = _pair(
        gland, gland_draft.dataset, sources, algorithm,
        numbers=_gland_numbers(result, algorithm),
        evaluations=_case_evaluations(result),
        site=None,
        more_slices=[] if result.findings else _second_slice(gland.mask),
    )  # fmt: skip
    for draft, segments in segmentations[1:]:
        for segment, finding in zip(segments, result.findings, strict=True):
            groups += _pair(
                segment, draft.dataset, sources, algorithm,
                numbers=_finding_numbers(finding, result.release, algorithm),
                evaluations=[_yes_no(codes.SIGNIFICANT, finding.significant)],
                site=sr.FindingSite(*codes.finding_site(finding.sector)),
            )  # fmt: skip
    return groups


def _pair(
    segment: Segment,
    segmentation: Dataset,
    sources: SourceImages,
    algorithm: sr.AlgorithmIdentification,
    *,
    numbers: list[sr.Measurement],
    evaluations: list[sr.QualitativeEvaluation],
    site: sr.FindingSite | None,
    more_slices: Sequence[int] = (),
) -> _Groups:
    """Return the groups of one region, under one Tracking UID; outlined also on more slices."""
    sites = [site] if site else None
    volumetric = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(segment.tracking_uid, segment.label),
        referenced_segment=_referenced_segment(segment, segmentation, sources),
        measurements=numbers,
        qualitative_evaluations=evaluations,
        finding_category=segment.category,
        finding_type=segment.type,
        finding_sites=sites,
        algorithm_id=algorithm,
    )
    largest = slice_of_largest_area(segment.mask)
    planar = [
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(segment.tracking_uid, segment.label),
            referenced_region=_region(segment.mask[z], sources.references[z]),
            finding_category=segment.category,
            finding_type=segment.type,
            finding_sites=sites,
            algorithm_id=algorithm,
        )
        for z in (largest, *more_slices)
    ]
    return [volumetric, *planar]


def _region(mask: Mask, reference: FrameReference) -> sr.ImageRegion:
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=graphic_data(mask),
        source_image=sr.SourceImageForRegion(*_reference(reference)),
    )


def _second_slice(mask: Mask) -> list[int]:
    """Return a neighbour of the slice of largest area, where the mask reaches one.

    The Pixelmed validator takes every group of a report with exactly one outline for a planar one
    (TID 1410) and then misses outlines; so a gland that stands alone is outlined twice.
    """
    z = slice_of_largest_area(mask)
    neighbours = [k for k in (z + 1, z - 1) if 0 <= k < len(mask) and mask[k].any()]
    return neighbours[:1]


def _reference(frame: FrameReference) -> tuple[str, str, list[int] | None]:
    number = None if frame.frame_number is None else [frame.frame_number]
    return frame.sop_class_uid, frame.sop_instance_uid, number


def _referenced_segment(
    segment: Segment, segmentation: Dataset, sources: SourceImages
) -> sr.ReferencedSegment:
    """By hand: highdicom's own helper fails where a segmentation has one segment only."""
    series = str(sources.templates[0].SeriesInstanceUID)
    return sr.ReferencedSegment(
        sop_class_uid=str(segmentation.SOPClassUID),
        sop_instance_uid=str(segmentation.SOPInstanceUID),
        segment_number=segment.number,
        source_series=sr.SourceSeriesForSegmentation(series),
    )


def _algorithm(release: ReleaseInfo) -> sr.AlgorithmIdentification:
    return sr.AlgorithmIdentification(
        name=text.ascii_text(release.name), version=text.ascii_text(release.version)
    )


def _number(
    name: Code,
    value: float,
    unit: Code,
    algorithm: sr.AlgorithmIdentification,
    derivation: Code | None = None,
) -> sr.Measurement:
    """Return a NUM with the algorithm as its child: OHIF fails on a NUM that has none."""
    return sr.Measurement(
        name=name, value=value, unit=unit, algorithm_id=algorithm, derivation=derivation
    )


def _suspicion(
    fraction: float, release: ReleaseInfo, algorithm: sr.AlgorithmIdentification
) -> sr.Measurement:
    name = codes.LIKELIHOOD if release.calibrated_on_real_cases else codes.SUSPICION_INDEX
    return _number(name, text.percent(fraction), codes.PERCENT, algorithm)


def _gland_numbers(
    result: CaseResult, algorithm: sr.AlgorithmIdentification
) -> list[sr.Measurement]:
    return [
        _number(codes.VOLUME, round(result.gland.volume_ml, 1), codes.CUBIC_CENTIMETRE, algorithm),
        _suspicion(result.case_likelihood, result.release, algorithm),
    ]


def _finding_numbers(
    finding: Finding, release: ReleaseInfo, algorithm: sr.AlgorithmIdentification
) -> list[sr.Measurement]:
    numbers = [
        _number(codes.VOLUME, round(finding.volume_ml, 2), codes.CUBIC_CENTIMETRE, algorithm),
        _number(
            codes.LONG_AXIS, round(finding.longest_diameter_mm, 1), codes.MILLIMETRE, algorithm
        ),
        _suspicion(finding.likelihood, release, algorithm),
        _number(codes.SUSPICION_SCORE, round(finding.suspicion_score, 1), codes.SCORE, algorithm),
    ]
    if finding.mean_adc_um2_s is not None:
        adc = float(round(finding.mean_adc_um2_s))
        unit = codes.SQUARE_MICROMETRE_PER_SECOND
        numbers.append(_number(codes.ADC, adc, unit, algorithm, codes.MEAN))
    return numbers


def _yes_no(name: Code, value: bool) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(name, codes.YES if value else codes.NO)


def _case_evaluations(result: CaseResult) -> list[sr.QualitativeEvaluation]:
    present = codes.PRESENT if result.findings else codes.ABSENT
    found = dict.fromkeys(
        codes.QUALITY_CODES[finding.code]
        for finding in result.quality
        if finding.code in codes.QUALITY_CODES
    )
    return [
        sr.QualitativeEvaluation(codes.LESION, present),
        _yes_no(codes.SIGNIFICANT, result.case_significant),
        *(sr.QualitativeEvaluation(codes.QUALITY_FINDING, code) for code in found),
    ]


# --- the group of a study that was not analysed ----------------------------------------------


def _not_analysed_group(outcome: NotAnalysed) -> sr.MeasurementsAndQualitativeEvaluations:
    """Return a TID 1501 group: unlike TID 1411 it needs no region. No number, no "absent"."""
    quality = REASONS[outcome.reason].quality
    coded = [Code(quality.value, quality.scheme, quality.meaning)] if quality else []
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(placeholder(_TRACKING), "Not analysed"),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(codes.QUALITY_FINDING, code) for code in coded
        ]
        or None,
    )
    group[0].ContentSequence.append(_remark(not_analysed_words(outcome)))
    return group


# --- remarks in words ------------------------------------------------------------------------


def _remark(words: str) -> sr.TextContentItem:
    return sr.TextContentItem(
        name=codes.COMMENT,
        value=text.ascii_text(words),
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )


def _remarks_container(remarks: Sequence[str]) -> sr.ContainerContentItem:
    """Document-level statements (TID 1500, Qualitative Evaluations)."""
    return _container(codes.QUALITATIVE_EVALUATIONS, [_remark(words) for words in remarks])
