"""The output gate holds what is wrong, whatever made it so."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import result_cases as cases
from pydicom.dataset import Dataset

from dicom_node.domain.reasons import Reason
from dicom_node.results import codes
from dicom_node.results.build import Analysed, ResultObject, ResultRequest, build_results
from dicom_node.results.gate import GateError, check_objects
from dicom_node.results.gate_report import content_items
from dicom_node.results.header import read_sources
from dicom_node.results.seg import GLAND, LESIONS, gland_segments, lesion_segments

Built = tuple[ResultRequest, list[ResultObject]]


def tampered(
    objects: list[ResultObject], kind: str, change: Callable[[Dataset], None]
) -> list[ResultObject]:
    """The objects with one of them changed after it was encoded."""
    changed = []
    for made in objects:
        if made.kind != kind:
            changed.append(made)
            continue
        dataset = pydicom.dcmread(io.BytesIO(made.data))
        change(dataset)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
        changed.append(replace(made, data=buffer.getvalue()))
    return changed


def check(request: ResultRequest, objects: list[ResultObject]) -> None:
    segments = {}
    if isinstance(request.outcome, Analysed):
        result = request.outcome.result
        segments = {GLAND: gland_segments(result), LESIONS: lesion_segments(result)}
    check_objects(objects, request, read_sources(request), segments)


def set_value(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def move_frames(dataset: Dataset) -> None:
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        position = groups.PlanePositionSequence[0]
        x, y, z = position.ImagePositionPatient
        position.ImagePositionPatient = [float(x) + 0.7, y, z]


def swap_frames(dataset: Dataset) -> None:
    frames = dataset.PerFrameFunctionalGroupsSequence
    first, other = frames[0].PlanePositionSequence, frames[2].PlanePositionSequence
    frames[0].PlanePositionSequence, frames[2].PlanePositionSequence = other, first


def flip_a_voxel(dataset: Dataset) -> None:
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]


def foreign_reference(dataset: Dataset) -> None:
    frame = dataset.PerFrameFunctionalGroupsSequence[0]
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "1.2.3"


def turn(dataset: Dataset) -> None:
    plane = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def other_spacing(dataset: Dataset) -> None:
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = list(reversed(measures.PixelSpacing))


def other_tracking(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].TrackingUID = "1.2.3"


def childless_number(dataset: Dataset) -> None:
    number = next(item for item in content_items(dataset) if item.ValueType == "NUM")
    del number.ContentSequence


def no_outline(dataset: Dataset) -> None:
    for item in content_items(dataset):
        if item.ValueType == "CONTAINER" and "ContentSequence" in item:
            item.ContentSequence = [c for c in item.ContentSequence if c.ValueType != "SCOORD"]


TAMPERING: dict[str, tuple[str, Callable[[Dataset], None], str]] = {
    "patient name": ("sr", set_value("PatientName", "Other^One"), "PatientName differs"),
    "patient id": (GLAND, set_value("PatientID", "T-2"), "PatientID differs"),
    "study": (LESIONS, set_value("StudyInstanceUID", "1.2.3"), "StudyInstanceUID differs"),
    "instance uid": ("sr", set_value("SOPInstanceUID", "1.2.3"), "UIDs it is known by"),
    "frame of reference": (GLAND, set_value("FrameOfReferenceUID", "1.2.3"), "frame of reference"),
    "moved": (LESIONS, move_frames, "lies on no T2W slice"),
    "swapped": (GLAND, swap_frames, "not where it was found"),
    "voxel": (GLAND, flip_a_voxel, "not where it was found"),
    "turned": (GLAND, turn, "another orientation"),
    "spacing": (GLAND, other_spacing, "another pixel spacing"),
    "foreign reference": (GLAND, foreign_reference, "not part of this study"),
    "tracking": (LESIONS, other_tracking, "tracking UIDs differ"),
    "childless number": ("sr", childless_number, "nothing of the algorithm"),
    "no outline": ("sr", no_outline, "no outline"),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampered_object_is_held(name: str, stack_finding: Built) -> None:
    request, objects = stack_finding
    kind, change, message = TAMPERING[name]
    with pytest.raises(GateError, match=message) as caught:
        check(request, tampered(objects, kind, change))
    assert caught.value.reason is Reason.OUTPUT_GATE


def test_untouched_objects_pass(stack_finding: Built) -> None:
    request, objects = stack_finding
    check(request, objects)
    check(request, tampered(objects, "sr", lambda dataset: None))


def test_not_analysed_must_not_say_absent(stack_finding: Built) -> None:
    request = replace(stack_finding[0], outcome=cases.not_analysed())

    def say_absent(dataset: Dataset) -> None:
        coded = next(
            item
            for item in content_items(dataset)
            if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "111052"
        )
        said = coded.ConceptCodeSequence[0]
        said.CodeValue, said.CodingSchemeDesignator = codes.ABSENT.value, "SCT"
        said.CodeMeaning = codes.ABSENT.meaning

    with pytest.raises(GateError, match="as if it had a result"):
        check(request, tampered(build_results(request), "sr", say_absent))


def test_finding_without_voxels_is_held(stack_finding: Built) -> None:
    request = stack_finding[0]
    assert isinstance(request.outcome, Analysed)
    result = request.outcome.result
    empty = replace(result, lesions=np.zeros_like(result.lesions))
    with pytest.raises(GateError, match="has no voxel"):
        build_results(replace(request, outcome=replace(request.outcome, result=empty)))


def test_result_of_another_stack_is_held(stack_finding: Built) -> None:
    request = stack_finding[0]
    with pytest.raises(GateError, match="slices"):
        build_results(replace(request, sources=list(request.sources)[:-1]))
    assert isinstance(request.outcome, Analysed)
    one_sided = request.outcome.result.gland_mask.copy()
    one_sided[:3] = 0
    request = cases.with_gland(request, one_sided)
    with pytest.raises(GateError, match="not where it was found"):
        build_results(replace(request, sources=list(reversed(request.sources))))
