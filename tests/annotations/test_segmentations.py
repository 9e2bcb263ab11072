"""Segmentations as viewers write them: where they lie, what they mean, how far they agree."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai_core.geometry import grid_around
from ai_core.types import Geometry
from dicom_node.annotations.agreement import NodeResult, dice
from dicom_node.annotations.meaning import Meaning
from dicom_node.annotations.reading import Reading, read_annotation
from dicom_node.domain.annotation import (
    AnnotationKind,
    AnnotationProblem,
    AnnotationReason,
    Part,
    Verdict,
)
from dicom_node.results.equipment import MANUFACTURER, MODEL_NAME, uid_of
from tests.annotations.make import (
    LESION,
    OHIF,
    PROSTATE,
    SLICER,
    Drawn,
    Mask,
    Scene,
    Style,
    ball,
    copied,
    drawn,
    stored,
)

SEG = AnnotationKind.SEG


def read(scene: Scene, node: NodeResult | None, dataset: Dataset) -> Reading:
    return read_annotation(dataset, SEG, scene.grid, node)


def refused(scene: Scene, node: NodeResult | None, dataset: Dataset) -> AnnotationReason:
    with pytest.raises(AnnotationProblem) as caught:
        read(scene, node, dataset)
    return caught.value.reason


def grown(mask: Mask) -> Mask:
    """The mask and its neighbours in the plane."""
    out = mask.copy()
    for axis in (1, 2):
        out |= np.roll(mask, 1, axis) | np.roll(mask, -1, axis)
    return out


STYLES = {
    "ohif": OHIF,
    "ohif-empty-frames": Style(empty_frames=True),
    "ohif-label-map": Style(kind="LABELMAP"),
    "slicer": SLICER,
    "slices-mixed": Style(slice_major=True, reverse=True),
    "fractional": Style(kind="FRACTIONAL", empty_frames=True),
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_each_style_puts_each_voxel_where_it_was_drawn(
    scene: Scene, node_result: NodeResult, style: Style
) -> None:
    first, second = grown(scene.lesion(1)), scene.lesion(2)
    reading = read(scene, node_result, drawn(
        scene, [Drawn(second, "Lesion 2"), Drawn(first, "Lesion 1")], style
    ))  # fmt: skip
    masks = {region.label: region.mask for region in reading.regions}
    assert np.array_equal(masks["Lesion 1"], first)
    assert np.array_equal(masks["Lesion 2"], second)
    by_finding = {one.finding: one for one in reading.agreements}
    assert by_finding[2].dice == 1.0
    assert by_finding[1].dice == pytest.approx(dice(first, scene.lesion(1)))
    assert by_finding[1].dice < 1.0
    assert {one.verdict for one in reading.agreements} == {Verdict.ACCEPTED}
    assert reading.maker.person == style.creator
    assert reading.maker.made_at == "20260203101112"
    assert reading.parts == {Part.LESIONS}


def test_results_of_the_node_are_read_back_as_they_were(
    scene: Scene, node_result: NodeResult
) -> None:
    assert [one.rank for one in node_result.findings] == [1, 2]
    for finding in node_result.findings:
        assert np.array_equal(finding.mask, scene.lesion(finding.rank))
    assert node_result.gland is not None and node_result.zones is not None
    assert np.array_equal(node_result.gland, scene.gland)
    assert np.array_equal(node_result.zones, scene.result.zones)
    assert set(node_result.tracking_uids.values()) < set(node_result.report.groups)


def turned(geometry: Geometry) -> Geometry:
    """A finer grid around the same place, tilted and turned, as a series of its own has it."""
    a, b = 0.35, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return grid_around((0.0, 0.0, 0.0), (0.8, 0.7, 2.0), (110, 120, 40), turn @ tilt)


def sagittal(geometry: Geometry) -> Geometry:
    axes = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], dtype=float)
    return grid_around((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (90, 60, 90), axes)


@pytest.mark.parametrize("grid_of", [turned, sagittal])
@pytest.mark.parametrize("style", [OHIF, Style(kind="LABELMAP", reverse=True)])
def test_a_drawing_on_another_series_is_moved_to_the_t2w(
    scene: Scene, node_result: NodeResult, grid_of: object, style: Style
) -> None:
    grid = grid_of(scene.geometry)  # type: ignore[operator]
    centre, radius = (12.0, 10.0, -4.5), 9.0
    dataset = drawn(scene, [Drawn(ball(grid, centre, radius), "Lesion")], style, grid)
    (region,) = read(scene, node_result, dataset).regions
    truth = ball(scene.geometry, centre, radius)
    assert dice(region.mask, truth) > 0.93
    assert region.findings == (1,)


def test_frames_left_out_in_between_stay_empty(scene: Scene, node_result: NodeResult) -> None:
    mask = np.zeros_like(scene.gland)
    mask[[4, 12], 40:60, 40:60] = True
    dataset = drawn(scene, [Drawn(mask, "Lesion 1")])
    for one in dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence:
        del one.SpacingBetweenSlices, one.SliceThickness
    (region,) = read(scene, node_result, stored(dataset)).regions
    assert np.array_equal(region.mask, mask)


def test_a_frame_without_position_lies_where_its_source_does(
    scene: Scene, node_result: NodeResult
) -> None:
    dataset = drawn(scene, [Drawn(scene.lesion(1), "Lesion 1")])
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    del dataset.SharedFunctionalGroupsSequence
    (region,) = read(scene, node_result, stored(dataset)).regions
    assert np.array_equal(region.mask, scene.lesion(1))


# --- which finding, and what became of it -------------------------------------------------------


def test_an_edited_copy_that_keeps_our_equipment_is_an_annotation(
    scene: Scene, node_result: NodeResult
) -> None:
    """All attributes are kept, AUTOMATIC and manufacturer too; only the UID is a new one."""
    copy = copied(scene.object("seg-lesions"))
    assert (copy.Manufacturer, copy.ManufacturerModelName) == (MANUFACTURER, MODEL_NAME)
    reading = read(scene, node_result, copy)
    assert "tracking" in reading.links
    assert [one.dice for one in reading.agreements] == [1.0, 1.0]
    assert reading.maker.person == "", "the node is no person"


def test_the_result_of_another_node_is_none(scene: Scene, node_result: NodeResult) -> None:
    """The same, under a UID of the form that the product derives."""
    other = copied(scene.object("seg-lesions"))
    other.SOPInstanceUID = uid_of("another node")
    assert refused(scene, node_result, other) is AnnotationReason.MACHINE_MADE


def test_what_another_program_made_is_none(scene: Scene, node_result: NodeResult) -> None:
    automatic = Drawn(scene.lesion(1), "Lesion 1", algorithm=("AUTOMATIC", "Other AI"))
    dataset = drawn(scene, [automatic], Style(manufacturer=("Vendor", "AI")))
    assert refused(scene, node_result, dataset) is AnnotationReason.MACHINE_MADE


def test_a_saved_copy_that_keeps_only_the_algorithm_is_an_annotation(
    scene: Scene, node_result: NodeResult
) -> None:
    """OHIF keeps type and name of the algorithm of the segmentation it loaded, and its labels."""
    name = cases_algorithm(scene)
    kept = Drawn(grown(scene.lesion(1)), "Lesion 1", algorithm=("AUTOMATIC", name))
    reading = read(scene, node_result, drawn(scene, [kept]))
    assert reading.links == ("algorithm",)
    verdicts = {one.finding: one.verdict for one in reading.agreements}
    assert verdicts == {1: Verdict.ACCEPTED, 2: Verdict.REJECTED}


def cases_algorithm(scene: Scene) -> str:
    return str(scene.object("seg-lesions").SegmentSequence[0].SegmentAlgorithmName)


def test_a_finding_taken_out_of_an_edited_copy_is_rejected(
    scene: Scene, node_result: NodeResult
) -> None:
    uid = node_result.tracking_uids[2]
    kept = Drawn(scene.lesion(2), "Lesion 2", tracking_uid=uid)
    reading = read(scene, node_result, drawn(scene, [kept]))
    verdicts = {one.finding: one.verdict for one in reading.agreements}
    assert verdicts == {1: Verdict.REJECTED, 2: Verdict.ACCEPTED}


def test_a_finding_that_a_new_drawing_does_not_hold_was_only_not_drawn(
    scene: Scene, node_result: NodeResult
) -> None:
    elsewhere = ball(scene.geometry, (-14.0, 8.0, -10.5), 4.0)
    reading = read(scene, node_result, drawn(scene, [Drawn(elsewhere, "tumour", LESION)]))
    assert [(one.finding, one.verdict) for one in reading.agreements] == [
        (1, Verdict.NOT_DRAWN), (2, Verdict.NOT_DRAWN), (None, Verdict.MISSED),
    ]  # fmt: skip


def test_a_tracked_finding_that_was_moved_is_the_same_and_no_hit(
    scene: Scene, node_result: NodeResult
) -> None:
    uid = node_result.tracking_uids[1]
    moved = Drawn(np.roll(scene.lesion(1), 25, axis=2), "Lesion 1", tracking_uid=uid)
    first = read(scene, node_result, drawn(scene, [moved])).agreements[0]
    assert (first.finding, first.verdict, first.dice, first.hit) == (
        1, Verdict.ACCEPTED, 0.0, False,
    )  # fmt: skip


def test_a_finding_split_in_two_is_one_hit(scene: Scene, node_result: NodeResult) -> None:
    whole = scene.lesion(1)
    left, right = whole.copy(), whole.copy()
    middle = int(np.argwhere(whole)[:, 2].mean())
    left[:, :, middle:], right[:, :, :middle] = False, False
    reading = read(scene, node_result, drawn(scene, [Drawn(left, "L1"), Drawn(right, "L2")]))
    first = reading.agreements[0]
    assert (first.segments, first.dice, first.hit) == ((1, 2), 1.0, True)
    assert Verdict.MISSED not in {one.verdict for one in reading.agreements}


def test_without_a_result_drawn_lesions_are_new(scene: Scene) -> None:
    reading = read(scene, None, drawn(scene, [Drawn(scene.lesion(1), "Lesion", LESION)]))
    assert [one.verdict for one in reading.agreements] == [Verdict.NEW]


# --- meaning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "type_", "meaning"),
    [
        ("anything", LESION, Meaning.LESION),
        ("anything", ("M-01100", "SRT", "Lesion"), Meaning.LESION),
        ("anything", PROSTATE, Meaning.GLAND),
        ("anything", ("T-9200B", "SRT", "Prostate"), Meaning.GLAND),
        ("anything", ("279706003", "SCT", "PZ"), Meaning.PERIPHERAL_ZONE),
        ("anything", ("T-D0823", "SRT", "TZ"), Meaning.TRANSITION_ZONE),
        ("Prostate", ("85756007", "SCT", "Tissue"), Meaning.GLAND),
        ("PZ", ("85756007", "SCT", "Tissue"), Meaning.PERIPHERAL_ZONE),
        ("peripheral zone lesion", ("85756007", "SCT", "Tissue"), Meaning.LESION),
        ("PI-RADS 4", ("85756007", "SCT", "Tissue"), Meaning.LESION),
        ("BPH nodule", ("85756007", "SCT", "Tissue"), Meaning.OTHER),
    ],
)
def test_codes_come_first_then_names(
    scene: Scene, label: str, type_: tuple[str, str, str], meaning: Meaning
) -> None:
    everything = [
        Drawn(scene.gland, label, type_), Drawn(scene.gland, "Prostate", PROSTATE),
    ]  # fmt: skip
    reading = read(scene, None, drawn(scene, everything))
    assert reading.regions[0].meaning is meaning


def test_an_unnamed_segment_is_what_its_place_says(scene: Scene, node_result: NodeResult) -> None:
    inside = ball(scene.geometry, (-14.0, 8.0, -10.5), 4.0)
    outside = np.zeros_like(inside)
    outside[2, 2:6, 2:6] = True
    reading = read(scene, node_result, drawn(scene, [
        Drawn(inside, "Segment 1"), Drawn(scene.gland, "Segment 2"), Drawn(outside, "Segment 3"),
        Drawn(scene.lesion(2), "Segment 4"),
    ]))  # fmt: skip
    assert [region.meaning for region in reading.regions] == [
        Meaning.LESION, Meaning.GLAND, Meaning.UNKNOWN, Meaning.LESION,
    ]  # fmt: skip
    assert {region.by for region in reading.regions} == {"place", ""}
    assert reading.dices == {"gland": 1.0}
    assert refused(scene, node_result, drawn(scene, [Drawn(outside, "Segment 1")])) is (
        AnnotationReason.UNNAMED
    )


def test_gland_and_zones_are_compared(scene: Scene, node_result: NodeResult) -> None:
    zones = scene.result.zones
    reading = read(scene, node_result, drawn(scene, [
        Drawn(zones == 1, "PZ", ("279706003", "SCT", "PZ")), Drawn(zones == 2, "TZ"),
        Drawn(grown(scene.gland), "Prostate", PROSTATE),
    ], SLICER))  # fmt: skip
    assert reading.parts == {Part.GLAND, Part.ZONES}
    assert reading.agreements == (), "nothing was said about lesions"
    assert reading.dices is not None
    assert reading.dices["peripheral_zone"] == reading.dices["transition_zone"] == 1.0
    assert 0.9 < reading.dices["gland"] < 1.0


# --- what is not used ---------------------------------------------------------------------------


def lesion(scene: Scene, **changes: object) -> Dataset:
    return copied(drawn(scene, [Drawn(scene.lesion(1), "Lesion 1")]), **changes)


def test_another_frame_of_reference_and_another_study(
    scene: Scene, node_result: NodeResult
) -> None:
    other = lesion(scene, FrameOfReferenceUID="1.2.3.4")
    assert refused(scene, node_result, other) is AnnotationReason.OTHER_FRAME_OF_REFERENCE
    other.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.5"
    assert refused(scene, node_result, other) is AnnotationReason.OTHER_STUDY


def test_a_frame_of_reference_left_out_is_that_of_the_series_named(
    scene: Scene, node_result: NodeResult
) -> None:
    dataset = lesion(scene, FrameOfReferenceUID="")
    assert read(scene, node_result, dataset).agreements[0].dice == 1.0


def test_empty_outside_and_no_images(scene: Scene, node_result: NodeResult) -> None:
    empty = drawn(scene, [Drawn(np.zeros_like(scene.gland), "Lesion 1")], Style(empty_frames=True))
    assert refused(scene, node_result, empty) is AnnotationReason.EMPTY
    away = grid_around((400.0, 0.0, 0.0), (1.0, 1.0, 3.0), (20, 20, 10), np.eye(3))
    ones = np.ones(away.shape_zyx, dtype=bool)
    outside = drawn(scene, [Drawn(ones, "Lesion 1")], OHIF, away)
    assert refused(scene, node_result, outside) is AnnotationReason.OUTSIDE
    with pytest.raises(AnnotationProblem) as caught:
        read_annotation(outside, SEG, None, None)
    assert caught.value.reason is AnnotationReason.NO_IMAGES


def _no_positions(dataset: Dataset) -> None:
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence, group.DerivationImageSequence


def _uneven(dataset: Dataset) -> None:
    for n, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        place = group.PlanePositionSequence[0]
        x, y, z = place.ImagePositionPatient
        place.ImagePositionPatient = [x, y, float(z) + 0.37 * n * n]


def _sheared(dataset: Dataset) -> None:
    for n, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        place = group.PlanePositionSequence[0]
        x, y, z = place.ImagePositionPatient
        place.ImagePositionPatient = [float(x) + 2 * n, y, z]


def _no_groups(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence


@pytest.mark.parametrize("spoil", [_no_positions, _uneven, _sheared, _no_groups])
def test_frames_without_a_regular_place(
    scene: Scene, node_result: NodeResult, spoil: object
) -> None:
    dataset = drawn(scene, [Drawn(scene.lesion(1), "Lesion 1")])
    spoil(dataset)  # type: ignore[operator]
    assert refused(scene, node_result, stored(dataset)) is AnnotationReason.GEOMETRY


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": b"\0\0"}, {"PixelData": b""}, {"Rows": 0}, {"Rows": 65535, "Columns": 65535},
        {"BitsAllocated": 32}, {"SamplesPerPixel": 3}, {"NumberOfFrames": 30_000},
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_is_unreadable_before_memory_is_taken(
    scene: Scene, node_result: NodeResult, changes: dict[str, object]
) -> None:
    assert refused(scene, node_result, lesion(scene, **changes)) is AnnotationReason.UNREADABLE
