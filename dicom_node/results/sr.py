"""The report: TID 1500, in the shape that viewers draw (PS3.16 TID 1500).

It comes in up to four forms: as Comprehensive 3D SR or, for archives that take only that, as
Comprehensive SR; with or without references to the segmentations. A destination gets one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ai_core.types import Quality
from dicom_node.domain.profile import ResultKind, Variant
from dicom_node.results import codes
from dicom_node.results.equipment import (
    CODING_SCHEME,
    CODING_SCHEME_NAME,
    MANUFACTURER,
    MODEL_NAME,
    device_observer_uid,
)
from dicom_node.results.header import SourceImages, request_verbatim
from dicom_node.results.remarks import analysed_remarks, common_remarks, not_analysed_words
from dicom_node.results.request import Analysed, EarlierObject, ResultRequest
from dicom_node.results.series import SERIES, instance_role, series_description, series_role
from dicom_node.results.sr_groups import (
    NOT_ANALYSED_TRACKING,
    Groups,
    analysed_groups,
    not_analysed_group,
    remark,
)
from dicom_node.results.uids import Draft, placeholder, without_times

KIND = ResultKind.SR
WITH_SEGMENTATIONS = frozenset({Variant.PLAIN, Variant.TWIN})
_CLASSES = {
    Variant.PLAIN: sr.Comprehensive3DSR,
    Variant.NO_SEG: sr.Comprehensive3DSR,
    Variant.TWIN: sr.ComprehensiveSR,
    Variant.TWIN_NO_SEG: sr.ComprehensiveSR,
}

_INCOMPLETE = frozenset({Quality.GLAND_CUT_OFF, Quality.DIFFUSION_COVERAGE})
"""With these a part of the gland was not looked at: the report says PARTIAL."""


def draft_report(
    request: ResultRequest,
    sources: SourceImages,
    segmentations: Mapping[str, Dataset],
    variant: Variant = Variant.PLAIN,
) -> Draft:
    """Return the report of a request in one of its forms.

    Args:
        request: what is reported.
        sources: the source images, all listed as evidence.
        segmentations: the encoded gland and lesions by kind; empty where the study was not
            analysed. They carry their final instance UIDs.
        variant: which form.
    """
    outcome = request.outcome
    referred = segmentations if variant in WITH_SEGMENTATIONS else {}
    if isinstance(outcome, Analysed):
        groups = analysed_groups(outcome.result, sources, referred, request.psa)
        remarks = analysed_remarks(outcome.result, request)
        complete = not _INCOMPLETE & {finding.code for finding in outcome.result.quality}
    else:
        groups = [not_analysed_group(outcome)]
        remarks = [not_analysed_words(outcome), *common_remarks(request)]
        complete = False
    report = _report(groups, request, sources)
    report[0].ContentSequence.append(_remarks_container(remarks))
    evidence = [*sources.templates, *sources.others, *referred.values()]
    dataset = _document(report, evidence, request, variant, complete=complete)
    roles = (instance_role(KIND), series_role(KIND), NOT_ANALYSED_TRACKING)
    return Draft(KIND, dataset, request_verbatim(sources), roles, variant)


def _document(
    report: sr.MeasurementReport,
    evidence: Sequence[Dataset],
    request: ResultRequest,
    variant: Variant,
    *,
    complete: bool,
) -> Dataset:
    analysed = isinstance(request.outcome, Analysed)
    dataset: Dataset = _CLASSES[variant](
        evidence=evidence,
        content=report,
        series_instance_uid=placeholder(series_role(KIND)),
        series_number=SERIES[KIND].number,
        sop_instance_uid=placeholder(instance_role(KIND)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=complete,
        is_final=False,
        is_verified=False,
        previous_versions=_predecessors(request, variant),
        coding_schemes=[_private_scheme()] if analysed else None,
    )
    without_times(dataset)
    dataset.SeriesDescription = series_description(KIND, request)
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = request.installation_id
    dataset.SoftwareVersions = request.software_version
    return dataset


def _private_scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(
        designator=CODING_SCHEME, name=CODING_SCHEME_NAME, responsible_organization=MANUFACTURER
    )


def predecessors(request: ResultRequest, variant: str) -> list[EarlierObject]:
    """Return the reports that this one replaces: of the last revision whose report was sent.

    The same form of it where that was sent, else every form that was.
    """
    reports = [earlier for earlier in request.earlier if earlier.kind == KIND]
    last = max((report.revision for report in reports), default=0)
    reports = [report for report in reports if report.revision == last]
    return [report for report in reports if report.variant == variant] or reports


def _predecessors(request: ResultRequest, variant: Variant) -> list[Dataset] | None:
    study = str((request.sources or request.other_sources)[0].StudyInstanceUID)
    found = []
    for earlier in predecessors(request, variant):
        named = Dataset()
        named.SOPClassUID = earlier.sop_class_uid
        named.SOPInstanceUID = earlier.sop_instance_uid
        named.StudyInstanceUID = study
        named.SeriesInstanceUID = earlier.series_uid
        found.append(named)
    return found or None


def _report(groups: Groups, request: ResultRequest, sources: SourceImages) -> sr.MeasurementReport:
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
    """Return the T2W images as image library (TID 1600); OHIF fails on a report without.

    Of a study that was not analysed: what is an image. An IMAGE item names no report of others.
    """
    images = sources.templates or [o for o in sources.others if "Rows" in o] or sources.others
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


def _remarks_container(remarks: Sequence[str]) -> sr.ContainerContentItem:
    """Document-level statements (TID 1500, Qualitative Evaluations)."""
    return _container(codes.QUALITATIVE_EVALUATIONS, [remark(words) for words in remarks])
