"""How the results relate to the AI Results profile of IHE Radiology, checked on encoded samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset

from dicom_node.conformance.created import Sample, samples
from dicom_node.conformance.document import Table
from dicom_node.conformance.services import services
from dicom_node.domain.profile import DEFAULT_KINDS, ResultKind

_COMMITMENT = "1.2.840.10008.1.20.1"
_TRACKING = frozenset({"112039", "112040"})


def primitives() -> Table:
    """Return how each primitive of the profile is encoded, and whether the samples bear it out."""
    reports = [sample for sample in samples() if sample.kind == ResultKind.SR]
    by_default = ", ".join(DEFAULT_KINDS)
    found: tuple[tuple[str, str, Callable[[Dataset], bool]], ...] = (
        ("Qualitative finding", "CODE item of a measurement group", _is("CODE")),
        ("Measurement", "NUM item with unit and algorithm", _is("NUM")),
        ("Location", "SCOORD outline on the slice of largest area", _is("SCOORD")),
        ("Region", "Segmentation, referenced by the group (TID 1411)", _refers_to_segment),
        ("Tracking identifier", "identifier and UID in every group", _tracks),
        ("Image reference", "Image Library (TID 1600), sources of SCOORD", _is("IMAGE")),
    )
    rows = [(name, how, _in_some(reports, test), by_default) for name, how, test in found]
    maps = [sample for sample in samples() if sample.kind == ResultKind.PARAMETRIC_MAP]
    rows.append(
        (
            "Parametric map",
            "Parametric Map of its own; the report does not refer to it",
            bool(maps),
            ResultKind.PARAMETRIC_MAP.value,
        )
    )
    columns = ("primitive", "encoded as", "found in the samples", "objects of the destination")
    return Table("air_primitives", "AI Results: primitives", columns, tuple(rows))


def requirements() -> Table:
    """Return what the profile and those grouped with it ask of an Evidence Creator."""
    reports = [sample for sample in samples() if sample.kind == ResultKind.SR]
    roots = {
        str(template.TemplateIdentifier)
        for sample in reports
        for template in sample.dataset.ContentTemplateSequence
    }
    kinds = {sample.kind for sample in samples()}
    offered = {service.uid for service in services() if service.scu}
    rows = (
        ("Comprehensive 3D SR with TID 1500 as root", roots == {"1500"}, "first choice; a twin as "
         "Comprehensive SR only where a destination refuses it"),
        ("Every image and segmentation referred to is listed as evidence",
         all(_evidence_is_complete(sample) for sample in reports), "checked on each set"),
        ("Segmentation", ResultKind.SEG_LESIONS in kinds, "not where a destination refuses it"),
        ("Parametric Map, Key Object", {ResultKind.PARAMETRIC_MAP, ResultKind.KEY_OBJECT} <= kinds,
         "where a destination asks for them"),
        ("Secondary Capture, PDF, presentation state only beside the report", True,
         "alone only where a destination refuses every class of report"),
        ("Storage Commitment as SCU", _COMMITMENT in offered, ""),
        ("Audit trail", True, "messages of PS3.15 A.5; the actor of ATNA is not claimed"),
        ("Consistent Time", False, "left to the host"),
        ("Worklist (AI Workflow for Imaging)", False, "studies come by routing rule"),
    )  # fmt: skip
    columns = ("asked for", "met", "remark")
    return Table("air_requirements", "AI Results: requirements", columns, rows)


def _items(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", ()):
        yield from _items(child)


def _in_some(reports: list[Sample], test: Callable[[Dataset], bool]) -> bool:
    return any(test(item) for sample in reports for item in _items(sample.dataset))


def _is(value_type: str) -> Callable[[Dataset], bool]:
    return lambda item: item.ValueType == value_type


def _refers_to_segment(item: Dataset) -> bool:
    return item.ValueType == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]


def _tracks(item: Dataset) -> bool:
    named = {
        str(child.ConceptNameCodeSequence[0].CodeValue)
        for child in item.get("ContentSequence", ())
        if "ConceptNameCodeSequence" in child
    }
    return named >= _TRACKING


def _evidence_is_complete(sample: Sample) -> bool:
    listed = {
        str(instance.ReferencedSOPInstanceUID)
        for study in sample.dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    referred = {
        str(reference.ReferencedSOPInstanceUID)
        for item in _items(sample.dataset)
        for reference in item.get("ReferencedSOPSequence", ())
    }
    return referred <= listed
