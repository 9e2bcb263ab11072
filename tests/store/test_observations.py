"""What was measured on a study is written with its outcome, once, and read in windows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.clock import ManualClock
from dicom_node.domain.drift import Scanner
from dicom_node.domain.policy import PlanKind
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import RevisionState
from dicom_node.store.observation_rows import Observation
from dicom_node.store.rows import StaleClaim
from dicom_node.store.store import Store
from tests.store.life import PACS, claim, image, made, plan

NORTH, SOUTH = Scanner("NORTH", "Maker", "One", 3.0), Scanner("SOUTH", "Maker", "One", 1.5)
RELEASE = "a" * 64


def analysed(store: Store, clock: ManualClock, study: str, seen: Observation) -> None:
    """Receive a study and finish it as the worker does."""
    known = len(store.headers_of(study))
    store.add_instances([image(study, known, clock.now_s())])
    clock.advance(20)
    plan(store, study, f"key {known}")
    taken = replace(claim(store), seen=seen)
    store.finish_analysed(taken, made(study, taken.number), [PACS])


def snr(value: float, scanner: Scanner = NORTH, release: str = RELEASE) -> Observation:
    return Observation(scanner, {"snr_t2w": value, "outcome": "analysed"}, release)


def test_each_scanner_has_its_studies_in_order_of_arrival(store: Store, clock: ManualClock) -> None:
    for number in range(7):
        scanner = SOUTH if number == 3 else NORTH
        analysed(store, clock, f"1.2.{number}", snr(float(number), scanner))
    north, south = store.scanners()
    assert [(row.scanner, row.studies) for row in (north, south)] == [(NORTH, 6), (SOUTH, 1)]
    reference, current = store.observed(north, 2, 3)
    assert [one.values["snr_t2w"] for one in reference] == [0, 1]
    assert [one.values["snr_t2w"] for one in current] == [4, 5, 6]
    assert store.observed(south, 2, 3)[1] == [], "no comparison before the reference is whole"
    found = store.scanner_of("1.2.3")
    assert found is not None and found.scanner == SOUTH
    assert store.scanner_of("1.2.99") is None


def test_a_later_revision_takes_the_place_of_the_earlier_one(
    store: Store, clock: ManualClock
) -> None:
    analysed(store, clock, "1.2.1", snr(1.0))
    analysed(store, clock, "1.2.2", snr(2.0))
    analysed(store, clock, "1.2.1", snr(9.0))
    (north,) = store.scanners()
    reference, _ = store.observed(north, 2, 1)
    assert [one.values["snr_t2w"] for one in reference] == [9.0, 2.0]


def test_a_report_is_observed_and_a_stale_claim_writes_nothing(
    store: Store, clock: ManualClock
) -> None:
    store.add_instances([image("1.2.1", 0, clock.now_s())])
    clock.advance(20)
    plan(store, "1.2.1", kind=PlanKind.REPORT)
    told = Observation(NORTH, {"outcome": "no_t2w"})
    taken = replace(claim(store), seen=told)
    state, reason = RevisionState.NOT_ANALYSABLE, Reason.NO_T2W
    with pytest.raises(StaleClaim):
        stale = replace(taken, claim_no=99)
        store.finish_reported(stale, state, reason, "m", made("1.2.1")[1:], [PACS])
    assert store.scanners() == []
    store.finish_reported(taken, state, reason, "m", made("1.2.1")[1:], [PACS])
    (north,) = store.scanners()
    assert store.observed(north, 2, 1)[0][0].values == {"outcome": "no_t2w"}
    assert store.running_release(north) == ""


def test_outputs_are_told_apart_by_release(store: Store, clock: ManualClock) -> None:
    for number in range(4):
        release = RELEASE if number < 3 else "b" * 64
        analysed(store, clock, f"1.2.{number}", snr(float(number), release=release))
    (north,) = store.scanners()
    assert store.running_release(north) == "b" * 64
    assert len(store.observed(north, 10, 10, RELEASE)[0]) == 3


def test_alarms_are_written_by_whoever_saw_them_first(store: Store, clock: ManualClock) -> None:
    analysed(store, clock, "1.2.1", snr(1.0))
    (row,) = store.scanners()
    assert store.set_alarms(row, {"snr_t2w", "b_values"})
    assert not store.set_alarms(row, {"snr_t2w"}), "another process judged from the same state"
    (row,) = store.scanners()
    assert row.alarms == {"snr_t2w", "b_values"}
    store.restart_reference(row)
    analysed(store, clock, "1.2.2", snr(2.0))
    (row,) = store.scanners()
    assert (row.alarms, row.studies) == (frozenset(), 2)
    assert [one.values["snr_t2w"] for one in store.observed(row, 5, 5)[0]] == [2.0]


def test_what_was_finished_before_is_found_once(store: Store, clock: ManualClock) -> None:
    store.add_instances([image("1.2.1", 0, clock.now_s())])
    clock.advance(20)
    plan(store, "1.2.1")
    store.finish_analysed(claim(store), made("1.2.1"), [PACS])
    (found,) = store.unobserved(0, 10)
    assert (found.study_uid, found.number, found.folder) == ("1.2.1", 1, "results/1.2.1-1")
    store.observe(found, snr(1.0))
    assert store.unobserved(0, 10) == []
