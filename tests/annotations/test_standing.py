"""What counts of several annotations of one study."""

from __future__ import annotations

import numpy as np

from dicom_node.annotations.agreement import NodeResult
from dicom_node.annotations.reading import Reading, read_annotation
from dicom_node.annotations.standing import standing
from dicom_node.domain.annotation import AnnotationKind as Kind
from tests.annotations.make import Drawn, Scene, drawn, key_object, verified, without_group

QUALITY = ("113001", "DCM", "Rejected for Quality Reasons")


def seg(scene: Scene, node: NodeResult, *segments: Drawn) -> tuple[Kind, Reading]:
    return Kind.SEG, read_annotation(drawn(scene, segments), Kind.SEG, scene.grid, node)


def report(scene: Scene, node: NodeResult, without: int | None = None) -> tuple[Kind, Reading]:
    told = scene.object("sr")
    if without is not None:
        told = without_group(told, node.tracking_uids[without])
    return Kind.SR, read_annotation(verified(told), Kind.SR, None, node)


def rejection(scene: Scene, node: NodeResult) -> tuple[Kind, Reading]:
    told = key_object(scene, QUALITY, ("seg-lesions",))
    return Kind.KEY_OBJECT, read_annotation(told, Kind.KEY_OBJECT, None, node)


def test_nothing_said_is_nothing_known(node_result: NodeResult) -> None:
    assert standing([], node_result) is None


def test_each_part_is_the_latest_that_was_drawn(scene: Scene, node_result: NodeResult) -> None:
    first = seg(scene, node_result, Drawn(scene.lesion(1), "Lesion 1"), Drawn(scene.gland, "WG"))
    second = seg(scene, node_result, Drawn(scene.lesion(2), "Lesion 2"))
    zones = seg(scene, node_result, Drawn(scene.result.zones == 1, "PZ"))
    found = standing([first, second, zones], node_result)
    assert found is not None and found.lesions is not None and found.zones is not None
    assert np.array_equal(found.lesions, scene.lesion(2))
    assert found.gland is not None and np.array_equal(found.gland, scene.gland)
    assert np.array_equal(found.zones == 1, scene.result.zones == 1)


def test_a_gland_alone_says_nothing_about_lesions(scene: Scene, node_result: NodeResult) -> None:
    found = standing([seg(scene, node_result, Drawn(scene.gland, "Prostate"))], node_result)
    assert found is not None and found.lesions is None


def test_a_report_counts_by_what_it_accepts_as_significant(
    scene: Scene, node_result: NodeResult
) -> None:
    """Of the two findings the node marked the first as significant."""
    found = standing([report(scene, node_result)], node_result)
    assert found is not None and found.lesions is not None
    assert np.array_equal(found.lesions, scene.lesion(1))
    found = standing([report(scene, node_result, without=1)], node_result)
    assert found is not None and found.lesions is not None
    assert not found.lesions.any()


def test_a_report_made_later_takes_a_drawn_lesion_out(
    scene: Scene, node_result: NodeResult
) -> None:
    drawing = seg(
        scene, node_result, Drawn(scene.lesion(1), "Lesion 1"), Drawn(scene.lesion(2), "Lesion 2")
    )
    said = report(scene, node_result, without=1)
    found = standing([drawing, said], node_result)
    assert found is not None and found.lesions is not None
    assert np.array_equal(found.lesions, scene.lesion(2))
    found = standing([said, drawing], node_result)
    assert found is not None and found.lesions is not None
    assert np.array_equal(found.lesions, scene.lesion(1) | scene.lesion(2))


def test_a_rejected_object_counts_only_where_nothing_else_is_said(
    scene: Scene, node_result: NodeResult
) -> None:
    """Archives reject the object that an edited one replaced."""
    rejected = rejection(scene, node_result)
    alone = standing([rejected], node_result)
    assert alone is not None and alone.lesions is not None and not alone.lesions.any()
    drawing = seg(scene, node_result, Drawn(scene.lesion(1), "Lesion 1"))
    both = standing([drawing, rejected], node_result)
    assert both is not None and both.lesions is not None and both.lesions.any()
    told = standing([report(scene, node_result), rejected], node_result)
    assert told is not None and told.lesions is not None and told.lesions.any()
