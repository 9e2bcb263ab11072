"""When a canary has come back, and what its UID tells."""

from __future__ import annotations

import pytest

from dicom_node.domain.canary import (
    CanarySeen,
    RunState,
    derived_uid,
    is_canary,
    judge,
    study_uid_of,
)
from dicom_node.domain.states import DeliveryState, RevisionState

SENT, VERIFIED, PENDING = DeliveryState.SENT, DeliveryState.VERIFIED, DeliveryState.PENDING
DELIVERED = RevisionState.DELIVERED
RUNNING, PASSED, FAILED = RunState


@pytest.mark.parametrize(
    ("seen", "to", "in_time", "late"),
    [
        (CanarySeen(None), "pacs", RUNNING, FAILED),
        (CanarySeen(RevisionState.READY), "pacs", RUNNING, FAILED),
        (CanarySeen(RevisionState.ANALYSED, "", 3, [(PENDING, False)]), "pacs", RUNNING, FAILED),
        (CanarySeen(RevisionState.NOT_ANALYSABLE, "no_t2w", 1), "pacs", FAILED, FAILED),
        (CanarySeen(RevisionState.HELD), "pacs", FAILED, FAILED),
        (CanarySeen(DELIVERED, "", 3, [(SENT, True)]), "pacs", RUNNING, FAILED),
        (CanarySeen(DELIVERED, "", 3, [(VERIFIED, False), (SENT, False)]), "pacs", PASSED, PASSED),
        (CanarySeen(DELIVERED, "", 3), "pacs", FAILED, FAILED),
        (CanarySeen(DELIVERED, "", 3), "", PASSED, PASSED),
        (CanarySeen(DELIVERED), "", FAILED, FAILED),
    ],
)
def test_a_canary_is_back_or_lost(
    seen: CanarySeen, to: str, in_time: RunState, late: RunState
) -> None:
    assert judge(seen, to=to, in_time=True).state is in_time
    found = judge(seen, to=to, in_time=False)
    assert (found.state, bool(found.message)) == (late, True)


def test_every_state_is_judged_in_the_end() -> None:
    for state in (None, *RevisionState):
        assert judge(CanarySeen(state), to="", in_time=False).state is not RunState.RUNNING


def test_its_uids_are_valid_its_own_and_those_of_the_run() -> None:
    uids = {study_uid_of(host, str(run)) for host in "ab" for run in range(200)}
    assert len(uids) == 400
    assert all(is_canary(uid) and len(uid) <= 64 for uid in uids)
    assert study_uid_of("a", "1") == study_uid_of("a", "1")
    uid = derived_uid("1.2", "2.25.1")
    assert uid != derived_uid("1.3", "2.25.1") and len(uid) <= 64 and not is_canary(uid)
