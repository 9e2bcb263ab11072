"""The state tables."""

from __future__ import annotations

import pytest

from dicom_node.domain import states as s


def _reachable(table: dict[tuple[str, str], str], start: str) -> set[str]:
    found = {start}
    while True:
        more = {target for (source, _), target in table.items() if source in found} | found
        if more == found:
            return found
        found = more


TABLES = {
    "revision": (s.REVISION_TRANSITIONS, s.RevisionState, s.RevisionEvent,
                 s.FINAL_REVISION_STATES, s.REVISION_TIMED_EXITS),
    "delivery": (s.DELIVERY_TRANSITIONS, s.DeliveryState, s.DeliveryEvent,
                 s.FINAL_DELIVERY_STATES, s.DELIVERY_TIMED_EXITS),
}  # fmt: skip


@pytest.mark.parametrize("which", TABLES)
def test_every_state_is_reachable_and_every_event_used(which: str) -> None:
    table, states, events, _, _ = TABLES[which]
    start = "receiving" if which == "revision" else "pending"
    assert _reachable(dict(table), start) == set(states)
    assert {event for _, event in table} == set(events)


@pytest.mark.parametrize("which", TABLES)
def test_G2_every_state_that_is_not_final_has_a_timed_exit(which: str) -> None:
    table, states, _, finals, exits = TABLES[which]
    assert set(exits) == set(states) - finals
    assert all((state, event) in table for state, (event, _) in exits.items())
    assert all(f"{which} {state}" in s.TIMED_EXITS for state in exits)


@pytest.mark.parametrize("which", TABLES)
def test_G2_from_every_state_a_final_one_can_be_reached(which: str) -> None:
    table, states, _, finals, _ = TABLES[which]
    assert all(_reachable(dict(table), state) & finals for state in states)


def test_a_release_is_moved_by_people_alone_and_never_lost() -> None:
    table = dict(s.RELEASE_TRANSITIONS)
    assert _reachable(table, "candidate") == set(s.ReleaseState)
    assert {event for _, event in table} == set(s.ReleaseEvent)
    assert all("active" in _reachable(table, state) for state in s.ReleaseState)
    assert {event for (state, event) in table if state == "active"} == {s.ReleaseEvent.REPLACED}
    lines = s.mermaid("release").splitlines()
    assert {f"    {a} --> {b}: {e}" for (a, e), b in table.items()} <= set(lines)


def test_illegal_pairs_raise() -> None:
    with pytest.raises(s.IllegalTransition, match="no 'claim' in state 'receiving'"):
        s.next_revision_state(s.RevisionState.RECEIVING, s.RevisionEvent.CLAIM)
    with pytest.raises(s.IllegalTransition):
        s.next_delivery_state(s.DeliveryState.SENT, s.DeliveryEvent.REJECTED)
    with pytest.raises(s.IllegalTransition, match="no 'shadow_begun' in state 'active'"):
        s.next_release_state(s.ReleaseState.ACTIVE, s.ReleaseEvent.SHADOW_BEGUN)


def test_a_held_study_leaves_only_by_the_operator_or_a_correction() -> None:
    out = {event for (state, event) in s.REVISION_TRANSITIONS if state == "held"}
    assert out == {s.RevisionEvent.RETRY, s.RevisionEvent.RESOLVED}


@pytest.mark.parametrize("which", TABLES)
def test_the_diagram_shows_every_transition(which: str) -> None:
    table, _, _, finals, _ = TABLES[which]
    lines = s.mermaid(which).splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert {f"    {a} --> {b}: {e}" for (a, e), b in table.items()} <= set(lines)
    assert {f"    {state} --> [*]" for state in finals} <= set(lines)


def test_the_diagram_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="choose revision, delivery or release"):
        s.mermaid("study")
