"""What destinations keep: claims, transactions, losses; on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from dicom_node.clock import ManualClock
from dicom_node.domain.confirmation import FIRST_CHECK_S, MAX_LOSSES, Verdict, judge_failure
from dicom_node.store.pledges import FIRST_ANSWER_S, KEPT_S
from dicom_node.store.rows import SentRow
from dicom_node.store.store import Store
from tests.store.test_store import BOTH, PACS, STUDY, claimed, state


def sent(store: Store, clock: ManualClock) -> list[SentRow]:
    """Send everything that waits; what is then to be asked about."""
    for claim in store.claim_deliveries("pacs", "d"):
        store.delivery_sent(claim)
    assert store.claim_checks("pacs", 300) == [], "not at once"
    clock.advance(FIRST_CHECK_S)
    assert store.peers_with_checks() == ["pacs"]
    return store.claim_checks("pacs", 300)


@pytest.fixture
def rows(store: Store, clock: ManualClock) -> list[SentRow]:
    store.finish_analysed(claimed(store), BOTH, PACS)
    return sent(store, clock)


def deliveries(store: Store) -> dict[str, str]:
    (shown,) = store.studies_show(STUDY)
    return {r["kind"]: r["deliveries"][0]["state"] for r in shown["results"]}


def test_what_is_being_asked_about_is_not_asked_twice(
    store: Store, clock: ManualClock, rows: list[SentRow]
) -> None:
    assert {row.sop_instance_uid for row in rows} == {"9.1", "9.2"}
    assert {(row.study_uid, row.checks) for row in rows} == {(STUDY, 0)}
    assert store.claim_checks("pacs", 300) == []
    clock.advance(300)
    assert len(store.claim_checks("pacs", 300)) == 2, "whoever asked has died"


def test_an_answer_moves_each_object_by_itself(store: Store, rows: list[SentRow]) -> None:
    store.open_commitment("1.7", "pacs", rows, 3600)
    assert not store.commitment_answered("1.7", ["other"], {"9.1"}, {})
    assert store.commitment_answered("1.7", ["x", "pacs"], {"9.1"}, {"9.2": 0x0112})
    assert deliveries(store) == {"sr": "verified", "seg-lesions": "pending"}
    assert state(store) == ("analysed", None)


def test_what_an_answer_does_not_name_is_asked_about_again(
    store: Store, clock: ManualClock, rows: list[SentRow]
) -> None:
    store.open_commitment("1.7", "pacs", rows, 3600)
    store.count_checks(rows, "requested")
    assert store.commitment_answered("1.7", ["pacs"], {"9.1"}, {})
    clock.advance(3600)
    (again,) = store.claim_checks("pacs", 300)
    assert (again.sop_instance_uid, again.checks) == ("9.2", 1)


def test_losing_ends_in_failure_and_the_study_says_so(
    store: Store, clock: ManualClock, rows: list[SentRow]
) -> None:
    for number in range(MAX_LOSSES):
        for row in rows:
            store.judge_sent(row, Verdict.LOST, "gone")
        assert set(deliveries(store).values()) == {"pending"}, number
        rows = sent(store, clock)
        assert state(store) == ("delivered", None)
    store.judge_sent(rows[0], Verdict.LOST, "gone")
    store.judge_sent(rows[1], Verdict.KEPT, "there")
    assert state(store) == ("failed", "delivery_failed")
    assert sorted(deliveries(store).values()) == ["failed", "verified"]
    assert store.retry(STUDY) == "1 objects are sent again"


def test_a_dropped_request_leaves_nothing(store: Store, rows: list[SentRow]) -> None:
    store.open_commitment("1.7", "pacs", rows, 3600)
    store.drop_commitment("1.7")
    assert not store.commitment_answered("1.7", ["pacs"], {"9.1"}, {})


def test_a_superseded_result_is_not_sent_again(
    store: Store, clock: ManualClock, rows: list[SentRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import update

    from dicom_node.store.schema import revisions

    with store._engine.begin() as db:
        db.execute(update(revisions).values(state="superseded"))
    store.judge_sent(rows[0], Verdict.LOST, "gone")
    assert sorted(deliveries(store).values()) == ["failed", "sent"]


@pytest.mark.parametrize("reason", [None, 0, 0x0110, 0x0112, 0x0119, 0x0122, 0x0131, 0xFFFF])
def test_every_failure_reason_has_a_meaning(reason: int | None) -> None:
    verdict, words = judge_failure(reason)
    assert verdict is not Verdict.KEPT and words


def test_requests_of_peers_are_kept_and_answered_once(store: Store, clock: ManualClock) -> None:
    assert store.add_pledge("pacs", "1.8", [("1.2", "1.2.3")])
    assert store.claim_pledges(60) == []
    clock.advance(FIRST_ANSWER_S)
    (row,) = store.claim_pledges(60)
    assert (row.references, row.attempts) == ((("1.2", "1.2.3"),), 1)
    assert store.claim_pledges(60) == []
    store.pledge_answered(row)
    clock.advance(3600)
    assert store.claim_pledges(60) == []
    assert store.add_pledge("pacs", "1.8", [("1.2", "1.2.4")]), "asked again: answered again"
    clock.advance(FIRST_ANSWER_S)
    (row,) = store.claim_pledges(60)
    store.pledge_failed(row, "never reached")
    clock.advance(3600)
    assert store.claim_pledges(60) == []


def test_G5_requests_of_peers_are_bounded(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicom_node.store import pledges

    monkeypatch.setattr(pledges, "MAX_PENDING", 3)
    taken = [store.add_pledge("pacs", f"1.{n}", [("1.2", "1.2.3")]) for n in range(5)]
    assert taken == [True, True, True, False, False]
    assert store.add_pledge("another", "1.1", [("1.2", "1.2.3")]), "each peer has its own room"
    clock.advance(KEPT_S)
    for row in store.claim_pledges(60):
        store.pledge_answered(row)
    clock.advance(1)
    assert store.add_pledge("pacs", "1.9", [("1.2", "1.2.3")])
    with store._engine.connect() as db:
        assert len(db.execute(text("SELECT id FROM pledges")).all()) == 1


def test_the_node_finds_what_it_holds_by_instance_alone(store: Store, rows: list[SentRow]) -> None:
    (made,) = store.held("9.1")
    assert (made.digest, made.whole_file) == ("f" * 64, True)
    assert store.held("1.2.3.99") == []
    (received,) = [row for row in store.headers_of(STUDY)][:1]
    (found,) = store.held(received.sop_instance_uid)
    assert (found.path, found.whole_file) == (received.path, False)
