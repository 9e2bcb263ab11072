"""Reports that a person verified or changed, and key objects that reject."""

from __future__ import annotations

from copy import deepcopy

import pytest
from pydicom.dataset import Dataset

from dicom_node.annotations.agreement import NodeResult
from dicom_node.annotations.reading import Reading, read_annotation
from dicom_node.domain.annotation import (
    AnnotationKind,
    AnnotationProblem,
    AnnotationReason,
    Part,
    Verdict,
)
from dicom_node.results.equipment import uid_of
from tests.annotations.make import (
    Scene,
    code,
    copied,
    groups_of,
    key_object,
    verified,
    without_group,
)

ABSENT = ("272519000", "SCT", "Absent")
NO = ("373067005", "SCT", "No")
YES_CODE = "373066001"
QUALITY = ("113001", "DCM", "Rejected for Quality Reasons")
SAFETY = ("113037", "DCM", "Rejected for Patient Safety Reasons")


def read(node: NodeResult | None, dataset: Dataset, kind: str = "sr") -> Reading:
    return read_annotation(dataset, AnnotationKind(kind), None, node)


def refused(node: NodeResult | None, dataset: Dataset, kind: str = "sr") -> AnnotationReason:
    with pytest.raises(AnnotationProblem) as caught:
        read(node, dataset, kind)
    return caught.value.reason


def said(reading: Reading) -> dict[int | None, Verdict]:
    return {one.finding: one.verdict for one in reading.agreements}


def test_a_verified_report_accepts_its_findings(scene: Scene, node_result: NodeResult) -> None:
    reading = read(node_result, verified(scene.object("sr")))
    assert said(reading) == {1: Verdict.ACCEPTED, 2: Verdict.ACCEPTED}
    assert [one.significant for one in reading.agreements] == [True, False]
    assert reading.parts == {Part.FINDINGS}
    assert reading.links == ("tracking", "predecessor")
    assert (reading.maker.person, reading.maker.made_at) == ("Reader^Two", "20260204080000")


def test_a_finding_taken_out_of_the_report_is_rejected(
    scene: Scene, node_result: NodeResult
) -> None:
    uid = node_result.tracking_uids[1]
    reading = read(node_result, verified(without_group(scene.object("sr"), uid)))
    assert said(reading) == {1: Verdict.REJECTED, 2: Verdict.ACCEPTED}
    assert reading.agreements[0].changes == ("removed from the report",)
    only_copied = copied(without_group(scene.object("sr"), uid))
    assert said(read(node_result, only_copied))[1] is Verdict.REJECTED


def _evaluation(group: Dataset, concept: tuple[str, str, str], value: tuple[str, str, str]) -> None:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "CODE"
    item.ConceptNameCodeSequence, item.ConceptCodeSequence = [code(concept)], [code(value)]
    group.ContentSequence.append(item)


def _absent(group: Dataset) -> None:
    _evaluation(group, ("52988006", "SCT", "Lesion"), ABSENT)


def _pirads_2(group: Dataset) -> None:
    concept = ("130565", "DCM", "PI-RADS v2.1")
    _evaluation(group, concept, ("RID50297", "RADLEX", "PI-RADS 2 - Low (lesion)"))


def _words(group: Dataset) -> None:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [code(("121106", "DCM", "Comment"))]
    item.TextValue = "False positive: haemorrhage"
    group.ContentSequence.append(item)


def _not_significant(group: Dataset) -> None:
    for item in group.ContentSequence:
        if item.ValueType == "CODE" and item.ConceptCodeSequence[0].CodeValue == YES_CODE:
            item.ConceptCodeSequence = [code(NO)]


def _number(group: Dataset, concept: str, value: str) -> None:
    for item in group.ContentSequence:
        if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == concept:
            item.MeasuredValueSequence[0].NumericValue = value


def _no_suspicion(group: Dataset) -> None:
    _number(group, "AI-SUSPICION", "0")


def _low_score(group: Dataset) -> None:
    _number(group, "AI-SCORE", "1")


EDITS = [_absent, _pirads_2, _words, _not_significant, _no_suspicion, _low_score]


@pytest.mark.parametrize("edit", EDITS)
def test_a_finding_is_rejected_in_the_report(
    scene: Scene, node_result: NodeResult, edit: object
) -> None:
    report = scene.object("sr")
    for group in groups_of(report, node_result.tracking_uids[1]):
        edit(group)  # type: ignore[operator]
    for dataset in (copied(report), verified(report)):
        reading = read(node_result, dataset)
        assert said(reading) == {1: Verdict.REJECTED, 2: Verdict.ACCEPTED}
        assert reading.agreements[0].significant is False


def test_a_changed_number_is_told_and_rejects_nothing(
    scene: Scene, node_result: NodeResult
) -> None:
    report = scene.object("sr")
    for group in groups_of(report, node_result.tracking_uids[2]):
        _number(group, "AI-SUSPICION", "90")
    second = read(node_result, copied(report)).agreements[1]
    assert second.verdict is Verdict.ACCEPTED
    assert second.changes == ("AI-SUSPICION: 51 to 90",)


def test_a_copy_that_says_nothing_new_and_foreign_reports_are_no_annotations(
    scene: Scene, node_result: NodeResult
) -> None:
    report = scene.object("sr")
    assert refused(node_result, copied(report)) is AnnotationReason.NOTHING_SAID
    other = deepcopy(report)
    other.SOPInstanceUID = uid_of("another node")
    assert refused(node_result, other) is AnnotationReason.MACHINE_MADE
    foreign = copied(report, Manufacturer="Vendor", VerificationFlag="VERIFIED", ContentSequence=[])
    assert refused(node_result, foreign) is AnnotationReason.NOTHING_SAID
    assert refused(None, verified(report)) is AnnotationReason.NOTHING_SAID


def test_a_verified_report_without_findings_says_that_there_are_none() -> None:
    scene = Scene(lesions=())
    reading = read(scene.node, verified(scene.object("sr")))
    assert (reading.parts, reading.agreements) == ({Part.FINDINGS}, ())
    assert reading.maker.verified


@pytest.mark.parametrize("kinds", [("seg-lesions",), ("sr",), ("seg-lesions", "seg-gland", "sr")])
def test_a_key_object_rejects_every_finding_of_what_it_names(
    scene: Scene, node_result: NodeResult, kinds: tuple[str, ...]
) -> None:
    reading = read(node_result, key_object(scene, QUALITY, kinds), "key-object")
    assert said(reading) == {1: Verdict.REJECTED, 2: Verdict.REJECTED}


@pytest.mark.parametrize(
    ("title", "kinds"), [(SAFETY, ("sr",)), (QUALITY, ("seg-gland",)), (QUALITY, ())]
)
def test_other_key_objects_say_nothing_about_findings(
    scene: Scene, node_result: NodeResult, title: tuple[str, str, str], kinds: tuple[str, ...]
) -> None:
    dataset = key_object(scene, title, kinds)
    assert refused(node_result, dataset, "key-object") is AnnotationReason.NOTHING_SAID
