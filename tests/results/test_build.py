"""What the objects say: kinds, content, references, and reading them back with highdicom."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import result_cases as cases
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from ai_core.types import Quality, QualityFinding
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.errors import InputProblem
from dicom_node.results import codes
from dicom_node.results.build import (
    Analysed,
    EarlierObject,
    ResultObject,
    ResultRequest,
    build_results,
)
from dicom_node.results.gate_report import content_items
from dicom_node.results.seg import LESION_RGB

Built = tuple[ResultRequest, list[ResultObject]]


def read(made: ResultObject) -> Dataset:
    return pydicom.dcmread(io.BytesIO(made.data))


def of_kind(objects: list[ResultObject], kind: str) -> Dataset:
    return read(next(made for made in objects if made.kind == kind))


def evaluations(report: Dataset) -> set[tuple[str, str]]:
    return {
        (item.ConceptNameCodeSequence[0].CodeValue, item.ConceptCodeSequence[0].CodeValue)
        for item in content_items(report)
        if item.ValueType == "CODE"
    }


def numbers(group: Dataset) -> dict[str, tuple[float, str]]:
    return {
        item.ConceptNameCodeSequence[0].CodeValue: (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


def words(report: Dataset) -> str:
    return "\n".join(item.TextValue for item in content_items(report) if item.ValueType == "TEXT")


def groups(report: Dataset) -> list[Dataset]:
    return [
        item
        for item in content_items(report)
        if item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == "125007"
    ]


def test_kinds_and_order(real_finding: Built, real_no_finding: Built) -> None:
    kinds = [made.kind for made in real_finding[1]]
    assert kinds == ["seg-gland", "seg-lesions", *["key-images"] * 3, "sr"]
    assert [made.kind for made in real_no_finding[1]] == [
        "seg-gland",
        "key-images",
        "key-images",
        "sr",
    ]


def test_series_are_fixed_and_own(real_finding: Built) -> None:
    found = {(int(read(m).SeriesNumber), read(m).SeriesDescription) for m in real_finding[1]}
    assert found == {
        (9101, "AI lesions - RUO"),
        (9102, "AI prostate gland - RUO"),
        (9106, "AI prostate report - RUO"),
        (9107, "AI key images - RUO"),
    }
    alone = [made.series_uid for made in real_finding[1] if made.kind != "key-images"]
    pages = {made.series_uid for made in real_finding[1] if made.kind == "key-images"}
    assert len(set(alone)) == 3
    assert len(pages) == 1


def test_segmentation_reads_back_equal(real_finding: Built) -> None:
    request, objects = real_finding
    assert isinstance(request.outcome, Analysed)
    lesions = next(made for made in objects if made.kind == "seg-lesions")
    seg = hd.seg.segread(io.BytesIO(lesions.data))
    uids = [str(source.SOPInstanceUID) for source in request.sources]
    pixels = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, relabel=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(pixels, request.outcome.result.lesions)
    assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == [
        "Lesion 1", "Lesion 2",
    ]  # fmt: skip
    for number, rgb in zip((1, 2), LESION_RGB, strict=False):
        lab = seg.SegmentSequence[number - 1].RecommendedDisplayCIELabValue
        shown = hd.color.CIELabColor.from_dicom_value(list(lab)).to_rgb()
        assert np.allclose(shown, rgb, atol=2)


def test_segmentation_identifies_the_segment_of_every_frame(real_finding: Built) -> None:
    gland = of_kind(real_finding[1], "seg-gland")
    assert "SegmentIdentificationSequence" not in gland.SharedFunctionalGroupsSequence[0]
    for frame in gland.PerFrameFunctionalGroupsSequence:
        assert frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
        derivation = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert derivation.SpatialLocationsPreserved == "YES"
    algorithm = gland.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmVersion == cases.RELEASE.version
    assert cases.RELEASE.sha256 in str(algorithm.AlgorithmParameters)


def test_report_reads_back_equal(real_finding: Built) -> None:
    request, objects = real_finding
    assert isinstance(request.outcome, Analysed)
    made = next(o for o in objects if o.kind == "sr")
    report = hd.sr.srread(io.BytesIO(made.data))
    volumetric = report.content.get_volumetric_roi_measurement_groups()
    planar = report.content.get_planar_roi_measurement_groups()
    assert [g.tracking_identifier for g in volumetric] == ["Prostate", "Lesion 1", "Lesion 2"]
    assert [g.tracking_uid for g in volumetric] == [g.tracking_uid for g in planar]
    first = request.outcome.result.findings[0]
    values = numbers(groups(read(made))[2])
    assert values == {
        "118565006": (round(first.volume_ml, 2), "cm3"),
        "103339001": (round(first.longest_diameter_mm, 1), "mm"),
        "AI-SUSPICION": (61.0, "%"),
        "AI-SCORE": (3.1, "{score}"),
        "113041": (812.0, "um2/s"),
    }
    site = volumetric[1].finding_sites[0].value
    assert site == codes.SECTORS["PZ/pl/mid/R"]
    second = numbers(groups(read(made))[4])
    assert "113041" not in second  # no mean ADC where its unit is not proven


def test_outline_lies_on_the_slice_of_largest_area(real_finding: Built) -> None:
    request, objects = real_finding
    assert isinstance(request.outcome, Analysed)
    lesions = request.outcome.result.lesions
    parts = groups(of_kind(objects, "sr"))
    for rank, group in ((1, parts[3]), (2, parts[5])):
        region = next(item for item in group.ContentSequence if item.ValueType == "SCOORD")
        image = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        z = [str(s.SOPInstanceUID) for s in request.sources].index(str(image))
        areas = (lesions == rank).sum(axis=(1, 2))
        assert areas[z] == areas.max()
        points = np.asarray(region.GraphicData, dtype=float).reshape(-1, 2)
        assert np.array_equal(points[0], points[-1])
        rows, columns = np.nonzero(lesions[z] == rank)
        assert np.allclose(points.min(axis=0), [columns.min(), rows.min()], atol=0.6)
        assert np.allclose(points.max(axis=0), [columns.max() + 1, rows.max() + 1], atol=0.6)


def test_report_header(real_finding: Built) -> None:
    request, objects = real_finding
    report = of_kind(objects, "sr")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert "BodyPartExamined" not in report
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99PDN"
    order = report.ReferencedRequestSequence[0]
    assert order.AccessionNumber == request.sources[0].AccessionNumber
    evidence = {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    images = [*request.sources, *request.other_sources]
    segmentations = [m.sop_instance_uid for m in objects if m.kind.startswith("seg")]
    assert evidence == {str(image.SOPInstanceUID) for image in images} | set(segmentations)


def test_G6_G7_the_report_tells_what_it_was_made_from_and_what_it_is(real_finding: Built) -> None:
    request, objects = real_finding
    told = words(of_kind(objects, "sr"))
    for part in (
        "Research use only, machine-made, unverified", "not a probability", "t2_tse_tra",
        "t2_tse_sag: not axial", cases.RELEASE.sha256, request.inputs_digest,
        request.config_digest, "The high b-value image was computed.",
    ):  # fmt: skip
        assert part in told


def test_calibrated_release_says_likelihood(stack_finding: Built) -> None:
    request = stack_finding[0]
    assert isinstance(request.outcome, Analysed)
    release = replace(cases.RELEASE, calibrated_on_real_cases=True)
    outcome = replace(request.outcome, result=replace(request.outcome.result, release=release))
    report = of_kind(build_results(replace(request, outcome=outcome)), "sr")
    assert "CSPCA-LIK" in numbers(groups(report)[0])
    assert "not a probability" not in words(report)


def test_present_and_absent(real_finding: Built, real_no_finding: Built) -> None:
    lesion = codes.LESION.value
    assert (lesion, codes.PRESENT.value) in evaluations(of_kind(real_finding[1], "sr"))
    no_finding = of_kind(real_no_finding[1], "sr")
    assert (lesion, codes.ABSENT.value) in evaluations(no_finding)
    assert len(groups(no_finding)) == 3  # the gland: its segment, and two outlines
    assert "does not exclude cancer" in words(no_finding)


def test_partial_when_the_gland_was_not_wholly_seen(stack_finding: Built) -> None:
    request = stack_finding[0]
    assert isinstance(request.outcome, Analysed)
    cut_off = (QualityFinding(Quality.GLAND_CUT_OFF, "The gland is cut off."),)
    outcome = replace(request.outcome, result=replace(request.outcome.result, quality=cut_off))
    report = of_kind(build_results(replace(request, outcome=outcome)), "sr")
    assert report.CompletionFlag == "PARTIAL"
    expected = (codes.QUALITY_FINDING.value, codes.COVERAGE_INCOMPLETE.value)
    assert expected in evaluations(report)


def test_not_analysed_never_reads_like_a_negative(real_not_analysed: Built) -> None:
    objects = real_not_analysed[1]
    assert [made.kind for made in objects] == ["key-images", "sr"]
    report = of_kind(objects, "sr")
    assert report.SeriesDescription == "AI prostate report - NOT ANALYSED - RUO"
    assert report.CompletionFlag == "PARTIAL"
    assert not [item for item in content_items(report) if item.ValueType == "NUM"]
    assert codes.ABSENT.value not in {value for _, value in evaluations(report)}
    quality = REASONS[Reason.NO_DIFFUSION].quality
    assert quality is not None
    assert (codes.QUALITY_FINDING.value, quality.value) in evaluations(report)
    assert REASONS[Reason.NO_DIFFUSION].message in words(report)
    assert "NOT ANALYSED" in words(report)
    assert of_kind(objects, "key-images").SeriesDescription == "AI key images - NOT ANALYSED - RUO"


def test_failed_says_that_the_analysis_failed(stack_finding: Built) -> None:
    request = replace(stack_finding[0], outcome=cases.not_analysed(Reason.TIMEOUT))
    report = of_kind(build_results(request), "sr")
    assert "The analysis of this study by the AI failed." in words(report)
    assert codes.QUALITY_FINDING.value not in {name for name, _ in evaluations(report)}


def test_not_analysed_without_t2w_stands_in_the_study() -> None:
    request = cases.request_for([], cases.not_analysed(Reason.NO_T2W), other_sources=cases.stack())
    assert [made.kind for made in build_results(request)] == ["key-images", "sr"]


def test_image_library_holds_images_only() -> None:
    """A study with a report of another device: an IMAGE item must not name it (PS3.3 C.18.4)."""
    *images, report = cases.stack(slices=4)
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.33", "SR"
    del report.Rows, report.Columns
    request = cases.request_for([], cases.not_analysed(), other_sources=[*images, report])
    written = of_kind(build_results(request), "sr")
    named = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in content_items(written)
        if item.ValueType == "IMAGE"
    }
    assert named == {str(image.SOPInstanceUID) for image in images}


def test_later_revision_names_its_predecessor(stack_finding: Built) -> None:
    request, objects = stack_finding
    earlier = next(made for made in objects if made.kind == "sr")
    sent = EarlierObject(
        "sr", "", 1, earlier.sop_class_uid, earlier.sop_instance_uid, earlier.series_uid
    )
    later = build_results(replace(request, earlier=(sent,), revision=2))
    report = of_kind(later, "sr")
    named = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == earlier.sop_instance_uid
    assert report.SeriesDescription == "AI rev 2 prostate report - RUO"
    assert report.SOPInstanceUID != earlier.sop_instance_uid


def test_no_gland_and_no_frame_of_reference_are_refused(stack_finding: Built) -> None:
    request = stack_finding[0]
    assert isinstance(request.outcome, Analysed)
    empty = replace(
        request.outcome.result, gland_mask=np.zeros_like(request.outcome.result.gland_mask)
    )
    with pytest.raises(InputProblem, match="No prostate"):
        build_results(replace(request, outcome=replace(request.outcome, result=empty)))
    slices = cases.stack()
    for image in slices:
        del image.FrameOfReferenceUID
    with pytest.raises(InputProblem, match="frame of reference"):
        build_results(cases.stack_request(slices))


def test_enhanced_multi_frame_source() -> None:
    request = cases.stack_request()
    assert isinstance(request.outcome, Analysed)
    enhanced = cases.enhanced(list(request.sources))
    order = cases.frame_numbers(enhanced, list(request.sources))
    objects = build_results(replace(request, sources=[enhanced], frames=order))
    report = of_kind(objects, "sr")
    region = next(item for item in content_items(report) if item.ValueType == "SCOORD")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == enhanced.SOPInstanceUID
    z = int(np.argmax((request.outcome.result.gland_mask > 0).sum(axis=(1, 2))))
    assert reference.ReferencedFrameNumber == order[z]


def test_real_code_of_procedure_is_pinned(real_finding: Built) -> None:
    report = of_kind(real_finding[1], "sr")
    assert ("121058", codes.MP_MRI_OF_PROSTATE.value) in evaluations(report)
    assert isinstance(codes.MP_MRI_OF_PROSTATE, Code)


def test_nothing_of_the_scanner_is_claimed(real_finding: Built, prostatex_0000: Path) -> None:
    for made in real_finding[1]:
        dataset = read(made)
        assert dataset.Manufacturer == "Prostate DICOM Node"
        assert dataset.DeviceSerialNumber == "test-installation"
        assert dataset.ContributingEquipmentSequence[0].Manufacturer == "SIEMENS"
        assert not [element for element in dataset if element.tag.is_private]
