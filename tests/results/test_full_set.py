"""Every kind in every form: what each says, refers to, and gives back when read."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
import result_cases as cases
from pydicom.dataset import Dataset

from dicom_node.domain.profile import COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ResultKind
from dicom_node.results import codes
from dicom_node.results.build import (
    Analysed,
    EarlierObject,
    GateError,
    ResultObject,
    ResultRequest,
    build_results,
)
from dicom_node.results.gate_report import check_codes, content_items
from dicom_node.results.ko import key_slices
from dicom_node.results.seg import LESION_RGB

Built = tuple[ResultRequest, list[ResultObject]]
FULL = ("full_finding", "full_no_finding", "full_stack", "full_enhanced")


def read(made: ResultObject) -> Dataset:
    return pydicom.dcmread(io.BytesIO(made.data))


def of_kind(objects: list[ResultObject], kind: str, variant: str = "") -> Dataset:
    return read(next(made for made in objects if (made.kind, made.variant) == (kind, variant)))


def result_of(request: ResultRequest):
    assert isinstance(request.outcome, Analysed)
    return request.outcome.result


@pytest.fixture(params=FULL)
def full(request: pytest.FixtureRequest) -> Built:
    return request.getfixturevalue(request.param)


def test_all_kinds_are_made(full: Built) -> None:
    kinds = {made.kind for made in full[1]}
    expected = set(ResultKind)
    if not result_of(full[0]).findings:
        expected -= {ResultKind.SEG_LESIONS}
    assert kinds == expected
    assert len({made.sop_instance_uid for made in full[1]}) == len(full[1])
    numbers = {(int(read(made).SeriesNumber), str(made.kind)) for made in full[1]}
    assert len(numbers) == len({number for number, _ in numbers}) == len(kinds)
    for made in full[1]:
        description = str(read(made).SeriesDescription)
        assert description.startswith("AI rev 2 ")
        assert len(description) <= 64


def test_g3_two_builds_of_everything_are_identical_files(full_stack: Built) -> None:
    again = build_results(full_stack[0])
    assert [made.data for made in again] == [made.data for made in full_stack[1]]


def test_not_analysed_has_page_report_and_pdf_alone(full_not_analysed: Built) -> None:
    forms = [(str(made.kind), str(made.variant)) for made in full_not_analysed[1]]
    assert forms == [("key-images", ""), ("sr", ""), ("sr", "comprehensive"), ("pdf", "")]
    for made in full_not_analysed[1]:
        assert "NOT ANALYSED" in read(made).SeriesDescription
    document = of_kind(full_not_analysed[1], "pdf")
    assert "NOT ANALYSED" in document.DocumentTitle


def test_the_forms_of_the_report_say_the_same(full: Built) -> None:
    reports = {made.variant: read(made) for made in full[1] if made.kind == "sr"}
    assert {v: str(r.SOPClassUID) for v, r in reports.items()} == {
        "": COMPREHENSIVE_3D_SR, "no-seg": COMPREHENSIVE_3D_SR,
        "comprehensive": COMPREHENSIVE_SR, "comprehensive-no-seg": COMPREHENSIVE_SR,
    }  # fmt: skip

    def said(report: Dataset) -> tuple:
        items = [item for item in content_items(report) if item.ValueType in ("NUM", "SCOORD")]
        numbers = sorted(
            (i.ConceptNameCodeSequence[0].CodeValue, i.MeasuredValueSequence[0].NumericValue)
            for i in items if i.ValueType == "NUM"
        )  # fmt: skip
        outlines = [list(i.GraphicData) for i in items if i.ValueType == "SCOORD"]
        tracked = {str(i.UID) for i in content_items(report)
                   if i.ValueType == "UIDREF"
                   and i.ConceptNameCodeSequence[0].CodeValue == "112040"}  # fmt: skip
        return numbers, outlines, tracked

    first, *others = [said(report) for report in reports.values()]
    assert all(other == first for other in others)
    segmentations = {m.sop_instance_uid for m in full[1] if m.kind.startswith("seg-")}
    for variant, report in reports.items():
        names = {
            str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            for item in content_items(report) if "ReferencedSOPSequence" in item
        }  # fmt: skip
        assert bool(names & segmentations) == (variant in ("", "comprehensive"))


def test_a_report_without_segmentations_reads_back(full_finding: Built) -> None:
    made = next(m for m in full_finding[1] if m.variant == "no-seg")
    report = hd.sr.srread(io.BytesIO(made.data))
    planar = report.content.get_planar_roi_measurement_groups()
    assert [g.tracking_identifier for g in planar] == ["Prostate", "Lesion 1", "Lesion 2"]
    assert not report.content.get_volumetric_roi_measurement_groups()
    values = {m.name.value: m.value for m in planar[1].get_measurements()}
    assert values["103339001"] == 13.2


def test_psa_and_its_density(full_finding: Built) -> None:
    report = of_kind(full_finding[1], "sr")
    numbers = {
        item.ConceptNameCodeSequence[0].CodeValue: item
        for item in content_items(report) if item.ValueType == "NUM"
    }  # fmt: skip
    volume = round(result_of(full_finding[0]).gland.volume_ml, 9)
    density = numbers["15325-4"].MeasuredValueSequence[0]
    assert float(density.NumericValue) == round(7.2 / volume, 2)
    assert density.MeasurementUnitsCodeSequence[0].CodeValue == "ng/mL/cm3"
    psa = numbers["2857-1"]
    assert float(psa.MeasuredValueSequence[0].NumericValue) == 7.2
    assert psa.ContentSequence[0].TextValue == "given by the test"
    without = build_results(replace(cases.stack_request(), psa=None))
    told = {item.ConceptNameCodeSequence[0].CodeValue for item in content_items(read(without[-1]))
            if item.ValueType == "NUM"}  # fmt: skip
    assert not told & {"15325-4", "2857-1"}


def test_zones_read_back_equal(full: Built) -> None:
    request, objects = full
    seg = hd.seg.segread(io.BytesIO(next(m.data for m in objects if m.kind == "seg-zones")))
    labels = [seg.get_segment_description(n).segment_label for n in seg.segment_numbers]
    assert labels == ["Peripheral zone", "Transition zone"]
    volume = seg.get_volume(combine_segments=True, relabel=True)
    assert int((volume.array > 0).sum()) == int((result_of(request).zones > 0).sum())


def test_map_reads_back_equal(full: Built) -> None:
    request, objects = full
    made = next(m for m in objects if m.kind == "parametric-map")
    found = hd.imread(io.BytesIO(made.data))
    volume = found.get_volume(apply_real_world_transform=True)
    expected = np.clip(result_of(request).likelihood, 0, 1)
    last = np.asarray(volume.affine)[:3, 0] * (len(expected) - 1)
    # highdicom orders the slices by position; ours run as the images of the request
    step = np.asarray(result_of(request).geometry.direction)[:, 2]
    values = volume.array if np.dot(last, step) > 0 else volume.array[::-1]
    assert np.array_equal(values.astype(np.float32), expected)
    mapping = found.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert quantity.CodeMeaning == codes.SUSPICION_INDEX.meaning, "never called a probability"


def test_presentation_state_outlines_every_slice(full: Built) -> None:
    request, objects = full
    state = of_kind(objects, "presentation-state")
    layers = {layer.GraphicLayer: layer for layer in state.GraphicLayerSequence}
    result = result_of(request)
    assert len(layers) == 1 + len(result.findings)
    masks = {"AI_GLAND": result.gland_mask > 0}
    masks |= {f"AI_LESION_{f.rank}": result.lesions == f.rank for f in result.findings}
    for name, mask in masks.items():
        drawn = [a for a in state.GraphicAnnotationSequence if a.GraphicLayer == name]
        assert len(drawn) == int(mask.any(axis=(1, 2)).sum())
        assert sum("TextObjectSequence" in a for a in drawn) == 1
    rgb = hd.color.CIELabColor.from_dicom_value(
        list(layers["AI_GLAND"].GraphicLayerRecommendedDisplayCIELabValue)
    ).to_rgb()
    assert np.allclose(rgb, (60, 180, 255), atol=2)
    assert LESION_RGB  # the lesions share the colours of their segments
    window = state.SoftcopyVOILUTSequence[0]
    assert float(window.WindowWidth) > 1


def test_key_object_names_the_slices_of_the_findings(full_finding: Built) -> None:
    request, objects = full_finding
    note = of_kind(objects, "key-object")
    assert note.ConceptNameCodeSequence[0].CodeValue == "113000"
    named = [
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in content_items(note) if item.ValueType == "IMAGE"
    ]  # fmt: skip
    lesions = result_of(request).lesions
    expected = [int(np.argmax((lesions == rank).sum(axis=(1, 2)))) for rank in (1, 2)]
    uids = [str(request.sources[z].SOPInstanceUID) for z in dict.fromkeys(expected)]
    assert named == uids


def test_rejection_names_what_was_sent_before(full_finding: Built) -> None:
    note = of_kind(full_finding[1], "rejection-note")
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    named = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in content_items(note) if "ReferencedSOPSequence" in item
    }  # fmt: skip
    assert named == {earlier.sop_instance_uid for earlier in full_finding[0].earlier}
    first = replace(full_finding[0], earlier=(), revision=1)
    assert not [m for m in build_results(first) if m.kind == "rejection-note"]


def test_a_failed_revision_rejects_nothing(full_stack: Built) -> None:
    failed = replace(full_stack[0], outcome=cases.not_analysed())
    assert {str(m.kind) for m in build_results(failed)} == {"key-images", "sr", "pdf"}


def test_the_predecessor_is_the_same_form_where_that_was_sent() -> None:
    def sent(variant: str, revision: int, uid: str) -> EarlierObject:
        return EarlierObject("sr", variant, revision, COMPREHENSIVE_3D_SR, uid, uid + ".1")

    earlier = (sent("", 1, "1.1"), sent("", 2, "1.2"), sent("no-seg", 2, "1.3"))
    request = replace(cases.stack_request(), earlier=earlier, revision=3, variants=True)
    named = {}
    for made in build_results(request):
        if made.kind == "sr":
            series = read(made).PredecessorDocumentsSequence[0].ReferencedSeriesSequence
            named[made.variant] = {
                str(one.ReferencedSOPInstanceUID) for s in series for one in s.ReferencedSOPSequence
            }
    assert named == {
        "": {"1.2"}, "no-seg": {"1.3"}, "comprehensive": {"1.2", "1.3"},
        "comprehensive-no-seg": {"1.2", "1.3"},
    }  # fmt: skip


def test_pdf_is_a_document_that_tells_the_findings(full_finding: Built) -> None:
    dataset = of_kind(full_finding[1], "pdf")
    document = bytes(dataset.EncapsulatedDocument)
    assert document.startswith(b"%PDF-")
    assert b"%%EOF" in document[-8:]
    words = b""
    for part in document.split(b"stream\n")[1:]:
        try:
            words += zlib.decompress(part.split(b"endstream")[0].strip(b"\r\n"))
        except zlib.error:
            continue
    for told in (b"Finding 1", b"13.2 mm", b"not a probability", b"Research use only"):
        assert told in words, told
    assert b"ProstateX" not in words, "nobody is named on the pages"


def test_the_gate_knows_every_code(full: Built) -> None:
    for made in full[1]:
        check_codes(made.kind, read(made))
    dataset = of_kind(full[1], "seg-gland")
    dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "Kidney"
    with pytest.raises(GateError, match="Kidney"):
        check_codes("seg-gland", dataset)


def test_a_rescaled_source_keeps_its_rescaling_in_the_presentation_state() -> None:
    slices = cases.stack()
    for image in slices:
        image.RescaleSlope, image.RescaleIntercept = "2", "-5"
        image.WindowCenter, image.WindowWidth = "300", "600"
    request = cases.stack_request(slices, kinds=frozenset({"presentation-state"}))
    (made,) = build_results(request)
    state = read(made)
    assert (float(state.RescaleSlope), float(state.RescaleIntercept)) == (2, -5)
    assert float(state.SoftcopyVOILUTSequence[0].WindowCenter) == 300


@pytest.mark.parametrize("kind", sorted(set(ResultKind) - {"rejection-note"}))
def test_every_kind_can_be_made_alone(kind: str) -> None:
    made = build_results(cases.stack_request(kinds=frozenset({kind}), variants=True))
    assert {str(one.kind) for one in made} == {kind}


def test_a_multi_frame_source_is_named_by_its_frames_and_keeps_its_rescaling() -> None:
    slices = cases.stack()
    request = cases.stack_request(
        slices, kinds=frozenset({"presentation-state", "key-object"}), lesion=True
    )
    image = cases.enhanced(slices)
    (rescaling,) = image.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    rescaling.RescaleSlope, rescaling.RescaleIntercept = "2", "-5"
    order = cases.frame_numbers(image, slices)
    objects = build_results(replace(request, sources=[image], frames=order))
    state = of_kind(objects, "presentation-state")
    assert (float(state.RescaleSlope), float(state.RescaleIntercept)) == (2, -5)
    named = [i for i in of_kind(objects, "key-object").ContentSequence if i.ValueType == "IMAGE"]
    (z,) = key_slices(request.outcome.result)
    assert [i.ReferencedSOPSequence[0].ReferencedFrameNumber for i in named] == [order[z]]


def test_pdf_names_the_images_it_was_derived_from(full: Built) -> None:
    """PS3.3 C.24.2: Source Instance Sequence is required then; dciodvfy cannot know."""
    request, objects = full
    named = {one.ReferencedSOPInstanceUID for one in of_kind(objects, "pdf").SourceInstanceSequence}
    assert named == {one.SOPInstanceUID for one in (*request.sources, *request.other_sources)}


@pytest.mark.parametrize("kind", ["seg-gland", "parametric-map", "key-images"])
def test_once_lossy_always_lossy(kind: str) -> None:
    """PS3.3 C.7.6.1.1.5: what is derived from images compressed with loss says so."""
    slices = cases.stack()
    for image in slices:
        image.LossyImageCompression = "01"
        image.LossyImageCompressionRatio, image.LossyImageCompressionMethod = "9", "ISO_10918_1"
    for made in build_results(cases.stack_request(slices, kinds=frozenset({kind}))):
        dataset = read(made)
        assert dataset.LossyImageCompression == "01"
        assert dataset.LossyImageCompressionMethod == "ISO_10918_1"


def _other_map(request: ResultRequest) -> ResultRequest:
    likelihood = result_of(request).likelihood.copy()
    likelihood[0, 0, 0] += 0.25
    result = replace(result_of(request), likelihood=likelihood)
    return replace(request, outcome=replace(request.outcome, result=result))


def _other_zones(request: ResultRequest) -> ResultRequest:
    zones = result_of(request).zones.copy()
    z, y, x = np.argwhere(zones == 1)[0]
    zones[z, y, x] = 2
    result = replace(result_of(request), zones=zones)
    return replace(request, outcome=replace(request.outcome, result=result))


CHANGES = {
    "one value of the map": (_other_map, {"parametric-map"}),
    "one voxel of the zones": (_other_zones, {"seg-zones"}),
    "psa": (lambda r: replace(r, psa=replace(r.psa, value_ng_ml=7.3)), {"sr", "pdf"}),
    "what was sent before": (
        lambda r: replace(r, earlier=(replace(r.earlier[0], sop_instance_uid="2.25.889"),)),
        {"sr", "rejection-note"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_g3_what_differs_has_other_uids_and_nothing_else(name: str, full_stack: Built) -> None:
    request, objects = full_stack
    change, kinds = CHANGES[name]
    changed = build_results(change(request))
    before = {(m.kind, m.variant, read(m).InstanceNumber): m for m in objects}
    after = {(m.kind, m.variant, read(m).InstanceNumber): m for m in changed}
    assert set(before) == set(after)
    other = {k for k in before if before[k].sop_instance_uid != after[k].sop_instance_uid}
    assert {k for k in before if before[k].data != after[k].data} == other
    assert {str(kind) for kind, _, _ in other} - {"key-images"} == kinds
