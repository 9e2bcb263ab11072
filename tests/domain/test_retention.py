"""What retention may let go: the promises hold for every study there can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.annotation import AnnotationState
from dicom_node.domain.reasons import Reason
from dicom_node.domain.retention import (
    CANARY_ISSUER,
    DAY_S,
    GO_WORDS,
    KEEP_WORDS,
    DeliveryFacts,
    Go,
    Keep,
    RevisionFacts,
    Rules,
    Sort,
    StudyFacts,
    judge,
)
from dicom_node.domain.states import FINAL_REVISION_STATES, DeliveryState, RevisionState

DAYS = {Sort.ANALYSED: 90.0, Sort.UNANALYSED: 30.0, Sort.NOT_OURS: 7.0, Sort.HELD: 0.0,
        Sort.CANARY: 1.0}  # fmt: skip
RULES = Rules(DAYS, 365.0, 3.0)
NOW_S = 1_800_000_000.0
ages = st.floats(0, 1000).map(lambda days: NOW_S - days * DAY_S)
revisions = st.builds(
    RevisionFacts, st.integers(1, 4), st.sampled_from(RevisionState),
    st.none() | st.sampled_from([str(reason) for reason in Reason]), ages,
)  # fmt: skip
deliveries = st.builds(
    DeliveryFacts, st.sampled_from(DeliveryState), st.booleans(), st.booleans(),
    st.none() | ages, st.booleans(),
)  # fmt: skip
studies = st.builds(
    StudyFacts,
    last_image_at_s=ages, issuer=st.sampled_from(["", CANARY_ISSUER]),
    revisions=st.lists(revisions, max_size=3).map(tuple),
    deliveries=st.lists(deliveries, max_size=3).map(tuple),
    annotations=st.frozensets(st.sampled_from(AnnotationState), max_size=2),
    unevaluated=st.booleans(), unjudged=st.booleans(), images_gone=st.booleans(),
    results_gone=st.booleans(),
)  # fmt: skip
rules = st.builds(
    Rules, st.fixed_dictionaries({sort: st.floats(0, 400) for sort in Sort}), st.floats(0, 800),
    st.floats(0, 30),
)  # fmt: skip


@given(studies, rules, st.booleans())
def test_what_is_not_final_annotated_or_owed_never_goes(
    facts: StudyFacts, rules: Rules, pressed: bool
) -> None:
    verdict = judge(facts, rules, NOW_S, pressed=pressed)
    goes = [one for one in (verdict.images, verdict.results) if isinstance(one, Go)]
    if goes:
        assert all(one.state in FINAL_REVISION_STATES for one in facts.revisions)
        assert facts.latest is None or facts.latest.state is not RevisionState.SUPERSEDED
        assert not {one.state for one in facts.deliveries} & {"pending", "sending"}
        assert not facts.unevaluated and not facts.unjudged
        assert facts.annotations <= {AnnotationState.NO_ANNOTATION}
    if isinstance(verdict.results, Go):
        assert facts.images_gone or isinstance(verdict.images, Go), "never before the images"
        owed = [one for one in facts.deliveries if one.latest and one.awaited]
        assert DeliveryState.FAILED not in {one.state for one in owed}
        assert not any(one.asked for one in facts.deliveries)
        assert rules.results > 0


@given(studies, rules, st.booleans())
def test_nothing_goes_that_is_younger_than_the_least_age(
    facts: StudyFacts, rules: Rules, pressed: bool
) -> None:
    verdict = judge(facts, rules, NOW_S, pressed=pressed)
    age_days = (NOW_S - facts.ended_at_s) / DAY_S
    if isinstance(verdict.images, Go):
        assert verdict.sort is not None
        assert rules.images[verdict.sort] > 0, "for ever is for ever, however full the disk is"
        assert verdict.sort is Sort.CANARY or age_days >= rules.least
        if not pressed:
            assert age_days >= rules.images[verdict.sort]
    if isinstance(verdict.results, Go):
        assert age_days >= rules.results, "a disk short of room takes no result earlier"


@given(studies, rules, st.booleans(), st.floats(0, 900))
def test_what_may_go_may_go_later_too(
    facts: StudyFacts, rules: Rules, pressed: bool, days: float
) -> None:
    now, later = (
        judge(facts, rules, at_s, pressed=pressed) for at_s in (NOW_S, NOW_S + days * DAY_S)
    )
    assert isinstance(later.images, Go) or not isinstance(now.images, Go)
    assert isinstance(later.results, Go) or not isinstance(now.results, Go)


def facts_of(
    state: RevisionState, age_days: float, reason: str | None = None, *sent: DeliveryFacts
) -> StudyFacts:
    at_s = NOW_S - age_days * DAY_S
    revision = RevisionFacts(1, state, reason, at_s)
    return StudyFacts(at_s, "", (revision,), sent, frozenset(), False, False, False, False)


R = RevisionState
LOST = DeliveryFacts(DeliveryState.FAILED, awaited=True, asked=False)


@pytest.mark.parametrize(
    ("facts", "images", "results"),
    [
        (facts_of(R.DELIVERED, 89), Keep.YOUNG, Keep.IMAGES_STAY),
        (facts_of(R.DELIVERED, 90), Go.AGE, Keep.YOUNG),
        (facts_of(R.DELIVERED, 365), Go.AGE, Go.AGE),
        (facts_of(R.FAILED, 400, "delivery_failed", LOST), Go.AGE, Keep.UNDELIVERED),
        (facts_of(R.FAILED, 400, "delivery_failed", replace(LOST, awaited=False)), Go.AGE, Go.AGE),
        (facts_of(R.FAILED, 400, "no_destination"), Go.AGE, Keep.UNDELIVERED),
        (facts_of(R.NOT_ANALYSABLE, 31, "no_t2w"), Go.AGE, Keep.YOUNG),
        (facts_of(R.NOT_ANALYSABLE, 8, "not_prostate"), Go.AGE, Keep.YOUNG),
        (facts_of(R.HELD, 4000, "identity_conflict"), Keep.FOR_EVER, Keep.IMAGES_STAY),
        (facts_of(R.RUNNING, 4000), Keep.NOT_FINAL, Keep.NOT_FINAL),
        (replace(facts_of(R.DELIVERED, 2), issuer=CANARY_ISSUER), Go.AGE, Keep.YOUNG),
    ],
)
def test_examples(facts: StudyFacts, images: Go | Keep, results: Go | Keep) -> None:
    verdict = judge(facts, RULES, NOW_S)
    assert (verdict.images, verdict.results) == (images, results)


def test_a_disk_short_of_room_takes_the_images_earlier() -> None:
    assert judge(facts_of(R.DELIVERED, 4), RULES, NOW_S, pressed=True).images is Go.PRESSED
    assert judge(facts_of(R.DELIVERED, 2), RULES, NOW_S, pressed=True).images is Keep.YOUNG
    assert judge(facts_of(R.HELD, 400), RULES, NOW_S, pressed=True).images is Keep.FOR_EVER


def test_everything_has_words() -> None:
    assert KEEP_WORDS.keys() == set(Keep)
    assert GO_WORDS.keys() == set(Go)
