"""Decisions about studies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.identity import (
    Difference,
    Identity,
    agree,
    classify_difference,
    is_uid,
    same_patient,
)
from dicom_node.domain.policy import (
    BACKOFF_CAP_S,
    Chosen,
    PlanKind,
    Situation,
    Step,
    after_failed_attempt,
    backoff_s,
    decide,
    effective_key,
)
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.domain.states import FINAL_REVISION_STATES, RevisionState

QUIET_S, PATIENCE_S = 10.0, 1800.0
GOOD = Chosen("k", None)


def at(seconds: float, chosen: Chosen, state: str = "receiving", key: str | None = None,
       sent: bool = False) -> tuple[Step, bool]:  # fmt: skip
    situation = Situation(0.0, RevisionState(state), key, sent)
    decision = decide(situation, chosen, seconds, QUIET_S, PATIENCE_S)
    return decision.step, decision.new_revision


def test_a_complete_study_starts_after_the_quiet_time() -> None:
    assert at(9.9, GOOD) == (Step.WAIT, False)
    assert at(10, GOOD) == (Step.START, False)


def test_an_incomplete_study_waits_for_the_scanner() -> None:
    missing = Chosen("k", Reason.NO_DIFFUSION)
    assert at(1799, missing) == (Step.WAIT, False)
    assert at(1800, missing) == (Step.REPORT, False)


@pytest.mark.parametrize("reason", [Reason.NOT_MR, Reason.NOT_PROSTATE])
def test_what_is_no_business_of_the_node_ends_in_silence(reason: Reason) -> None:
    assert at(1800, Chosen("k", reason)) == (Step.CLOSE, False)


@pytest.mark.parametrize("state", ["delivered", "analysed", "running", "failed", "not_analysable"])
def test_a_late_image_that_changes_nothing_opens_no_revision(state: str) -> None:
    assert at(5000, GOOD, state, key="k") == (Step.NOTHING, False)


def test_a_late_image_before_a_result_was_sent_waits_the_quiet_time() -> None:
    assert at(10, GOOD, "running", key="old") == (Step.START, True)
    assert at(10, GOOD, "analysed", key="old") == (Step.START, True)


def test_a_late_image_after_a_result_was_sent_waits_patiently() -> None:
    assert at(1799, GOOD, "delivered", key="old", sent=True) == (Step.WAIT, True)
    assert at(1800, GOOD, "delivered", key="old", sent=True) == (Step.START, True)


def test_what_completes_a_study_after_not_analysed_is_analysed() -> None:
    assert at(10, GOOD, "not_analysable", key="old") == (Step.START, True)


def test_a_study_that_waits_in_the_queue_takes_new_inputs_itself() -> None:
    assert at(10, GOOD, "ready", key="old") == (Step.START, False)


def test_G4_a_held_study_stays_held() -> None:
    assert at(1e9, GOOD, "held", key="old") == (Step.NOTHING, False)


@given(
    st.sampled_from(list(RevisionState)), st.sampled_from([None, *REASONS]), st.booleans(),
    st.floats(0, 1e6), st.booleans(),
)  # fmt: skip
def test_G2_decisions_are_total_and_waiting_ends(
    state: RevisionState, reason: Reason | None, sent: bool, now_s: float, same: bool
) -> None:
    situation = Situation(0.0, state, "k" if same else "other", sent)
    chosen = Chosen("k", reason)
    decision = decide(situation, chosen, now_s, QUIET_S, PATIENCE_S)
    if decision.step is Step.WAIT:
        assert now_s < decision.at_s <= PATIENCE_S
        later = decide(situation, chosen, decision.at_s, QUIET_S, PATIENCE_S)
        assert later.step in (Step.START, Step.REPORT, Step.CLOSE)
    if state in FINAL_REVISION_STATES and decision.step in (Step.START, Step.REPORT):
        assert decision.new_revision


def test_the_key_counts_inputs_reason_and_demographics() -> None:
    keys = {
        effective_key("a", None, ["d"]), effective_key("b", None, ["d"]),
        effective_key("a", Reason.NO_T2W, ["d"]), effective_key("a", None, ["e"]),
    }  # fmt: skip
    assert len(keys) == 4
    assert effective_key("a", None, ["d", "e"]) == effective_key("a", None, ["e", "d", "d"])


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_to_its_cap_and_never_beyond(attempt: int, jitter: float) -> None:
    wait_s = backoff_s(attempt, jitter)
    assert 2.5 <= wait_s <= BACKOFF_CAP_S
    assert backoff_s(attempt + 1, jitter) >= wait_s


def test_three_attempts_then_a_report_then_three_attempts_at_it() -> None:
    assert after_failed_attempt(PlanKind.ANALYSE, 1).again
    assert after_failed_attempt(PlanKind.ANALYSE, 2).again
    third = after_failed_attempt(PlanKind.ANALYSE, 3)
    assert (third.again, third.report) == (False, True)
    last = after_failed_attempt(PlanKind.REPORT, 3)
    assert (last.again, last.report) == (False, False)


P1 = Identity("1", "A", "19500101")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Identity("1", "A", "19500101"), True),
        (Identity("1", "", ""), True),
        (Identity("2", "A", "19500101"), False),
        (Identity("", "A", "19500101"), False),
        (Identity("1", "B", "19500101"), False),
        (Identity("1", "A", "19500102"), False),
    ],
)
def test_G4_the_same_patient_rule(other: Identity, same: bool) -> None:
    assert same_patient(P1, other) is same
    assert same_patient(other, P1) is same


def test_G4_agreement_is_not_fooled_by_a_gap_in_the_middle() -> None:
    assert not agree([Identity("1", "A"), Identity("1"), Identity("1", "B")])
    assert Identity.of(" 1 ", None, "19500101 ") == Identity("1", "", "19500101")


@pytest.mark.parametrize(
    ("tags", "difference"),
    [
        ([], Difference.SAME),
        ([0x00100010], Difference.DEMOGRAPHICS),
        ([0x00100020, 0x00080050], Difference.DEMOGRAPHICS),
        ([0x7FE00010], Difference.OTHER),
        ([0x00200032, 0x00100010], Difference.OTHER),
        ([0x00280030], Difference.OTHER),
        ([0x00080012], Difference.METADATA),
        ([0x00191008], Difference.METADATA),
    ],
)
def test_what_a_difference_between_two_copies_means(
    tags: list[int], difference: Difference
) -> None:
    assert classify_difference(tags) is difference


@pytest.mark.parametrize(
    "text", ["", "1", "..", "1..2", ".1", "1.", "../../../etc/x", "1.2\x00", "1.2 ", "1.2\n",
             "A.B", "1." + "2" * 63, "１.２"],
)  # fmt: skip
def test_hostile_uids_are_refused(text: str) -> None:
    assert not is_uid(text)


def test_good_uids_are_taken() -> None:
    assert is_uid("1.2.840.10008.1.1")
    assert is_uid("2.25." + "9" * 38)
