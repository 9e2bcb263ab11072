"""The output gate for reports and codes: what validators of TID 1500 do not look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.domain.profile import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, SEGMENTATION, Variant
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.errors import NodeError
from dicom_node.results import codes
from dicom_node.results.header import IDENTITY, SourceImages
from dicom_node.results.request import Analysed, ResultRequest
from dicom_node.results.seg import GLAND, LESIONS, Segment

_COPIED = frozenset({*IDENTITY, "ReferencedRequestSequence"})
"""Sequences of the source: their codes are the hospital's."""
_CLASS_OF = {
    Variant.PLAIN: COMPREHENSIVE_3D_SR, Variant.NO_SEG: COMPREHENSIVE_3D_SR,
    Variant.TWIN: COMPREHENSIVE_SR, Variant.TWIN_NO_SEG: COMPREHENSIVE_SR,
}  # fmt: skip
_TRACKING_UID = "112040"


class GateError(NodeError):
    """A result object did not pass the checks before sending; nothing of its set may be sent."""

    reason = Reason.OUTPUT_GATE

    def __init__(self, detail: str) -> None:
        text = REASONS[Reason.OUTPUT_GATE]
        super().__init__(f"{text.message} {detail}", text.advice)
        self.detail = detail


def require(condition: object, detail: str) -> None:
    """Hold the set unless a condition is met.

    Raises:
        GateError: it is not.
    """
    if not condition:
        raise GateError(detail)


def check_codes(kind: str, dataset: Dataset) -> None:
    """Check every code of our own against the pinned table: value, scheme and meaning."""
    for item in _items(dataset):
        if "CodeValue" not in item:
            continue
        value, scheme = str(item.CodeValue), str(item.CodingSchemeDesignator)
        require(
            str(item.CodeMeaning) in codes.PINNED.get((value, scheme), ()),
            f"{kind}: the code ({value}, {scheme}, {item.CodeMeaning}) is not one of ours.",
        )


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ" and element.keyword not in _COPIED:
            for item in element.value:
                yield item
                yield from _items(item)


def check_report(
    variant: str,
    dataset: Dataset,
    made_from: tuple[ResultRequest, SourceImages],
    segments: Mapping[str, Sequence[Segment]],
    segmentations: Mapping[str, Dataset],
) -> None:
    """Check a report: numbers, tracking UIDs, outlines, references, evidence."""
    request, sources = made_from
    require(dataset.SOPClassUID == _CLASS_OF[Variant(variant)], "sr: not the form it is known as.")
    groups = [group for part in _measurements(dataset) for group in part.get("ContentSequence", [])]
    items = [item for part in _measurements(dataset) for item in content_items(part)]
    numbers = [item for item in items if item.ValueType == "NUM"]
    require(
        all(item.get("ContentSequence") for item in numbers),
        "sr: a number says nothing of the algorithm that made it.",
    )
    _check_evidence(dataset)
    if not isinstance(request.outcome, Analysed):
        _check_says_nothing(dataset, items, numbers)
        return
    tracked = {uid for group in groups for uid in _tracking_uids(group)}
    segmented = {
        str(segment.TrackingUID)
        for kind, segmentation in segmentations.items()
        if kind in (GLAND, LESIONS)
        for segment in segmentation.SegmentSequence
    }
    complete = all(kind in segmentations for kind in (GLAND, LESIONS) if kind in segments)
    require(
        tracked >= segmented and (not complete or tracked == segmented),
        "sr: tracking UIDs differ from those of the segmentations.",
    )
    _check_outlines(groups, sources, sum(len(segments.get(k, ())) for k in (GLAND, LESIONS)))
    names_segments = SEGMENTATION in {uid for uid, _ in _referenced(dataset)}
    forbidden = variant in (Variant.NO_SEG, Variant.TWIN_NO_SEG)
    require(not (forbidden and names_segments), "sr: refers to a segmentation that is not sent.")


def _tracking_uids(group: Dataset) -> list[str]:
    return [
        str(item.UID)
        for item in group.get("ContentSequence", [])
        if item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == _TRACKING_UID
    ]


def _check_outlines(groups: Sequence[Dataset], sources: SourceImages, regions: int) -> None:
    """Check that every group with a number has an outline under its tracking UID, on a slice."""
    outlined, numbered = set(), set()
    for group in groups:
        types = {item.ValueType for item in group.get("ContentSequence", [])}
        outlined |= set(_tracking_uids(group)) if "SCOORD" in types else set()
        numbered |= set(_tracking_uids(group)) if "NUM" in types else set()
    require(numbered <= outlined and len(outlined) >= regions, "sr: a region has no outline.")
    template = sources.templates[0]
    known = {(r.sop_instance_uid, r.frame_number) for r in sources.references}
    for item in (item for group in groups for item in content_items(group)):
        if item.ValueType != "SCOORD":
            continue
        points = np.asarray(item.GraphicData, dtype=float).reshape(-1, 2)
        inside = (points >= 0).all() and (points <= (template.Columns, template.Rows)).all()
        image = item.ContentSequence[0].ReferencedSOPSequence[0]
        place = (str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber"))
        require(
            inside and np.array_equal(points[0], points[-1]) and place in known,
            "sr: an outline lies outside its T2W slice.",
        )


def _check_evidence(dataset: Dataset) -> None:
    """Check that everything referred to is listed as evidence (PS3.3 C.17.2.3)."""
    listed = {
        str(instance.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    named = {uid for item in content_items(dataset) for _, uid in _referenced(item)}
    require(named <= listed, "sr: refers to an object that is not listed as evidence.")


def _referenced(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """SOP class and instance of every reference, predecessors and the order apart."""
    for element in dataset:
        if element.keyword in (*_COPIED, "PredecessorDocumentsSequence"):
            continue
        if element.VR == "SQ":
            for item in element.value:
                if "ReferencedSOPInstanceUID" in item:
                    yield str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)
                yield from _referenced(item)


def _check_says_nothing(
    dataset: Dataset, items: Sequence[Dataset], numbers: Sequence[Dataset]
) -> None:
    """Hold a report without a result that reads like a negative one."""
    values = {i.ConceptCodeSequence[0].CodeValue for i in items if i.ValueType == "CODE"}
    require(
        not numbers and codes.ABSENT.value not in values and dataset.CompletionFlag == "PARTIAL",
        "sr: a study that was not analysed reads as if it had a result.",
    )


def _measurements(dataset: Dataset) -> list[Dataset]:
    """Return the containers of measurements; the image library may have numbers of its own."""
    return [
        part
        for part in dataset.ContentSequence
        if part.ValueType == "CONTAINER" and part.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]


def content_items(dataset: Dataset) -> Iterator[Dataset]:
    """All content items of a report, from the root downwards."""
    for item in dataset.get("ContentSequence") or []:
        yield item
        yield from content_items(item)
