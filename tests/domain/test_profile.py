"""What a destination gets: stand-ins, forms of the report, and what may never happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.profile import (
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    DEFAULT_KINDS,
    SEGMENTATION,
    SOP_CLASSES,
    STAND_IN,
    Encoded,
    ResultKind,
    Variant,
    kinds_to_encode,
    plan_delivery,
)

SC = "1.2.840.10008.5.1.4.1.1.7"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
PR = "1.2.840.10008.5.1.4.1.1.11.1"
CLASS_OF = {
    "seg-lesions": SEGMENTATION, "seg-gland": SEGMENTATION, "seg-zones": SEGMENTATION,
    "key-images": SC, "parametric-map": "1.2.840.10008.5.1.4.1.1.30", "pdf": PDF,
    "presentation-state": PR, "key-object": "1.2.840.10008.5.1.4.1.1.88.59",
    "rejection-note": "1.2.840.10008.5.1.4.1.1.88.59",
}  # fmt: skip
REPORTS = (
    Encoded("sr", "", COMPREHENSIVE_3D_SR), Encoded("sr", "no-seg", COMPREHENSIVE_3D_SR),
    Encoded("sr", "comprehensive", COMPREHENSIVE_SR),
    Encoded("sr", "comprehensive-no-seg", COMPREHENSIVE_SR),
)  # fmt: skip


def encoded(*kinds: str) -> set[Encoded]:
    plain = {Encoded(kind, "", CLASS_OF[kind]) for kind in kinds if kind != "sr"}
    return plain | set(REPORTS if "sr" in kinds else ())


ALL = encoded(*ResultKind)
DEFAULTS = encoded(*kinds_to_encode(DEFAULT_KINDS))
NOT_ANALYSED = {REPORTS[0], REPORTS[2], *encoded("key-images", "pdf")}


def told(plan) -> dict[str, str]:
    return {one.kind: one.replaced_by for one in plan.omissions}


def test_who_refuses_nothing_gets_what_it_asked_for() -> None:
    plan = plan_delivery(DEFAULT_KINDS, DEFAULTS, ())
    assert plan.send == {(kind, "") for kind in DEFAULT_KINDS}
    assert plan.omissions == ()


def test_without_segmentations_outlines_stand_in_and_the_report_refers_to_none() -> None:
    plan = plan_delivery(DEFAULT_KINDS, DEFAULTS, {SEGMENTATION})
    assert plan.send == {("sr", "no-seg"), ("key-images", ""), ("presentation-state", "")}
    assert told(plan) == {
        "seg-lesions": "presentation-state", "seg-gland": "presentation-state",
        "sr": "sr (no-seg)",
    }  # fmt: skip
    reasons = {one.kind: one.reason for one in plan.omissions}
    assert reasons["seg-gland"] == "the peer does not take Segmentation Storage"


def test_the_twin_goes_where_only_comprehensive_sr_is_taken() -> None:
    plan = plan_delivery(DEFAULT_KINDS, DEFAULTS, {COMPREHENSIVE_3D_SR})
    assert ("sr", "comprehensive") in plan.send
    assert told(plan) == {"sr": "sr (comprehensive)"}
    plan = plan_delivery(DEFAULT_KINDS, DEFAULTS, {COMPREHENSIVE_3D_SR, SEGMENTATION})
    assert ("sr", "comprehensive-no-seg") in plan.send


def test_an_archive_of_plain_images_gets_key_images_and_pdf() -> None:
    refused = {COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, SEGMENTATION, PR}
    plan = plan_delivery(DEFAULT_KINDS, DEFAULTS, refused)
    assert plan.send == {("key-images", ""), ("pdf", "")}
    assert told(plan) == {"seg-lesions": "", "seg-gland": "", "sr": "pdf"}


def test_a_destination_that_asks_for_no_segmentation_gets_the_report_without() -> None:
    plan = plan_delivery(("sr",), DEFAULTS, ())
    assert plan.send == {("sr", "no-seg")}
    assert plan.omissions == (), "nothing was refused: nothing is missing"
    assert plan_delivery(("sr", "seg-gland"), DEFAULTS, ()).send >= {("sr", "no-seg")}


def test_a_study_that_was_not_analysed_has_a_report_without_segmentations() -> None:
    assert plan_delivery(DEFAULT_KINDS, NOT_ANALYSED, ()).send == {("sr", ""), ("key-images", "")}
    twin = plan_delivery(DEFAULT_KINDS, NOT_ANALYSED, {COMPREHENSIVE_3D_SR, SEGMENTATION})
    assert twin.send == {("sr", "comprehensive"), ("key-images", "")}


def test_who_takes_nothing_is_offered_everything_so_that_the_refusal_shows() -> None:
    plan = plan_delivery(DEFAULT_KINDS, DEFAULTS, set(SOP_CLASSES))
    assert plan.send == {(kind, "") for kind in DEFAULT_KINDS}
    assert plan.omissions == ()


def test_who_gets_nothing_of_a_result_does_not_look_served() -> None:
    plan = plan_delivery(("seg-lesions",), encoded("presentation-state"), ())  # no finding
    assert plan.send == set()
    assert told(plan) == {"seg-lesions": ""}
    assert plan_delivery(("seg-lesions",), (), ()).omissions == ()  # nothing was made at all


def test_results_of_an_older_version_have_one_form() -> None:
    old = {Encoded("sr", "", COMPREHENSIVE_3D_SR), *encoded("seg-gland")}
    assert plan_delivery(DEFAULT_KINDS, old, {SEGMENTATION}).send == {("sr", "")}


def test_stand_ins_are_encoded_along() -> None:
    assert kinds_to_encode(("sr",)) == {"sr", "pdf"}
    assert kinds_to_encode(DEFAULT_KINDS) == {*DEFAULT_KINDS, "pdf", "presentation-state"}


KINDS = st.sets(st.sampled_from(list(ResultKind)), min_size=1)


@given(wanted=KINDS, refused=st.sets(st.sampled_from(list(SOP_CLASSES))))
def test_a_plan_never_refers_to_what_is_not_sent_and_never_falls_silent(wanted, refused) -> None:
    items = encoded(*kinds_to_encode(wanted))
    plan = plan_delivery(wanted, items, refused)
    classes = {(one.kind, one.variant): one.sop_class_uid for one in items}
    assert plan.send
    assert plan.send <= set(classes)
    reports = [variant for kind, variant in plan.send if kind == "sr"]
    assert len(reports) <= 1
    sent = {kind for kind, _ in plan.send}
    taken = {form for form in plan.send if classes[form] not in refused}
    if plan.omissions:  # then nothing that is known to be refused is offered
        assert taken == plan.send
    if reports and reports[0] in (Variant.PLAIN, Variant.TWIN) and items & encoded("seg-gland"):
        assert {"seg-gland", "seg-lesions"} & {one.kind for one in items} <= sent
    # whatever was asked for is sent, or it is written down what became of it
    forms = {kind for kind in wanted if kind in {one.kind for one in items}}
    assert forms <= sent | {one.kind for one in plan.omissions}
    for one in plan.omissions:
        assert one.reason
        if one.replaced_by and one.kind != "sr":
            assert one.replaced_by == STAND_IN[one.kind]
            assert one.replaced_by in sent


@pytest.mark.parametrize("kind", sorted(CLASS_OF))
def test_every_kind_has_a_class_that_is_asked_for(kind: str) -> None:
    assert CLASS_OF[kind] in SOP_CLASSES
