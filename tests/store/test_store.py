"""The store on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, text
from sqlalchemy.exc import IntegrityError

from dicom_node.clock import ManualClock, WallWatch
from dicom_node.config import PeerConfig
from dicom_node.domain.confirmation import FIRST_CHECK_S, Verdict
from dicom_node.domain.identity import Identity
from dicom_node.domain.policy import PlanKind
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import RevisionState
from dicom_node.errors import ConfigError, NodeError, StoreError
from dicom_node.store import schema, tables
from dicom_node.store.engine import HEAD, journal_settings, migrate, open_engine
from dicom_node.store.peers import MAX_REFUSALS
from dicom_node.store.rows import (
    Claim,
    Destination,
    IngestOutcome,
    InstanceRow,
    Plan,
    ResultRow,
    StaleClaim,
)
from dicom_node.store.store import Store

STUDY = "1.2.3"
PATIENCE_S = 1800.0
PACS = [Destination("pacs", ("sr", "seg-lesions"))]


def image(number: int = 1, study: str = STUDY, digest: str = "a", **changes: object) -> InstanceRow:
    values: dict[str, object] = {
        "study_uid": study, "series_uid": f"{study}.1", "sop_class_uid": "1.2.840.10008.1",
        "sop_instance_uid": f"{study}.1.{number}", "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "role": "image", "identity": Identity("P1"), "header_json": "{}",
        "dataset_digest": digest * 64, "path": f"spool/{study}/{number}{digest}", "size": 100,
        "received_at_s": 1.0,
    }  # fmt: skip
    return InstanceRow(**{**values, **changes})  # type: ignore[arg-type]


def result(kind: str = "sr", uid: str = "9.1") -> ResultRow:
    return ResultRow(kind, "1.2.840", uid, "9", f"results/x/{kind}", "f" * 64, 10)


BOTH = [result("sr", "9.1"), result("seg-lesions", "9.2")]


def make_ready(
    store: Store, study: str = STUDY, key: str = "key", kind: PlanKind = PlanKind.ANALYSE
) -> None:
    now_s = store._clock.now_s()
    found = [one for one in store.studies_to_evaluate(now_s + 100, 10) if one.study_uid == study]
    report = kind is PlanKind.REPORT
    plan = Plan(
        kind, key, "{}", 10**6, RevisionState.NOT_ANALYSABLE if report else None,
        Reason.NO_T2W if report else None, "no T2W" if report else "",
    )  # fmt: skip
    assert store.set_plan(found[0], plan)


def claimed(store: Store, study: str = STUDY) -> Claim:
    store.add_instance(image(study=study))
    make_ready(store, study)
    claim = store.claim_ready("worker-0")
    assert claim is not None
    return claim


def state(store: Store, study: str = STUDY) -> tuple[str, str | None]:
    last = store.studies_show(study)[0]
    return last["state"], last["reason"]


def in_threads(count: int, work: Callable[[int], object]) -> list[object]:
    """Run ``work`` in many threads at once and return what each returned or raised."""
    outcome: list[object] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            outcome[number] = work(number)
        except Exception as error:
            outcome[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcome


# schema


def test_the_migrated_schema_is_the_declared_one(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        names = set(inspect(connection).get_table_names())
    assert names == set(tables.metadata.tables) | {"alembic_version"}


def test_a_database_without_schema_or_of_a_newer_program_is_refused(
    empty_url: str, clock: ManualClock
) -> None:
    url = empty_url
    with pytest.raises(StoreError, match="has schema none"):
        Store(url, clock=clock)
    Store(url, clock=clock, create=True).close()
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match="another version of the program"):
        Store(url, clock=clock, create=True)


def test_migrating_twice_at_once_is_harmless(empty_url: str) -> None:
    engines = [open_engine(empty_url) for _ in range(4)]
    assert in_threads(4, lambda n: migrate(engines[n])) == [None] * 4
    with engines[0].connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "dreaming"},
        {"state": "running", "plan": "analyse"},
        {"state": "receiving", "owner": "someone"},
        {"state": "failed"},
        {"state": "ready"},
        {"state": "receiving", "attempts": 4},
        {"state": "ready", "plan": "analyse", "number": 2},
    ],
)
def test_states_that_must_not_exist_cannot_be_written(
    store: Store, wrong: dict[str, object]
) -> None:
    store.add_instance(image())  # revision 1 is receiving
    row = {"study_id": 1, "number": 5, "created_at": 0, "changed_at": 0, **wrong}
    with pytest.raises(IntegrityError), store._engine.begin() as connection:
        if wrong["state"] not in ("ready", "receiving") or "attempts" in wrong or "owner" in wrong:
            connection.execute(text("DELETE FROM revisions"))
        connection.execute(insert(schema.revisions).values(**row))


def test_wal_only_where_sqlite_is_free_of_the_reset_bug() -> None:
    assert journal_settings((3, 40, 1)) == ("DELETE", "EXTRA")
    assert journal_settings((3, 51, 2)) == ("DELETE", "EXTRA")
    assert journal_settings((3, 51, 3)) == ("WAL", "FULL")


def test_G1_every_sqlite_connection_syncs_fully(tmp_path: Path, clock: ManualClock) -> None:
    store = Store(f"sqlite:///{tmp_path}/n.sqlite3", clock=clock, create=True)
    with store._engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    assert (mode, level) in (("delete", 3), ("wal", 2))
    store.close()


@pytest.mark.parametrize("address", ["nonsense", "mysql://a/b", "sqlite://"])
def test_an_unusable_address_says_so(address: str, clock: ManualClock) -> None:
    with pytest.raises(StoreError):
        Store(address, clock=clock, create=True)


def test_a_damaged_database_says_so(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "n.sqlite3").write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError, match="dicom-node recover"):
        Store(f"sqlite:///{tmp_path}/n.sqlite3", clock=clock, create=True)


# receiving


def test_an_instance_is_stored_once(store: Store) -> None:
    assert store.add_instance(image()) is IngestOutcome.STORED
    assert store.add_instance(image()) is IngestOutcome.DUPLICATE
    assert len(store.instances_of(STUDY)) == 1
    assert state(store) == ("receiving", None)


def test_G1_many_receivers_store_each_instance_once(store: Store) -> None:
    def send(thread: int) -> list[IngestOutcome]:
        return [store.add_instance(image(number)) for number in range(5)]

    outcomes = in_threads(8, send)
    counts = Counter(str(one) for some in outcomes for one in some)  # type: ignore[attr-defined]
    assert counts == {"stored": 5, "duplicate": 35}
    assert len(store.studies_list()) == 1


def test_a_batch_is_taken_as_its_instances_one_by_one(store: Store) -> None:
    other = "1.2.99"
    store.add_instance(image(1))
    batch = [
        image(2), image(1, study=other), image(1), image(2), image(2, digest="b"),
        image(1, digest="b"), image(3), image(1, study=other, identity=Identity("P2")),
        image(2, study=other, identity=Identity("P2")),
    ]  # fmt: skip
    assert [str(one) for one in store.add_instances(batch)] == [
        "stored", "stored", "duplicate", "duplicate", "conflict", "conflict", "stored",
        "duplicate", "stored",
    ]  # fmt: skip
    assert [row.sop_instance_uid for row in store.instances_of(STUDY)] == [
        f"{STUDY}.1.{n}" for n in (1, 2, 3)
    ]
    assert state(store) == ("receiving", None)
    assert store.studies_show(other)[0]["state"] == "held"  # G4: two patients in one batch
    assert store.known_paths([image(1).path, "spool/none"]) == {image(1).path}
    assert store.add_instances([]) == []


def test_batches_of_several_receivers_do_not_wait_for_each_other(store: Store) -> None:
    studies = [f"1.2.{number}" for number in range(4)]

    def send(thread: int) -> list[IngestOutcome]:
        order = studies[thread % 4 :] + studies[: thread % 4]
        return store.add_instances([image(n, study=study) for study in order for n in range(3)])

    outcomes = in_threads(6, send)
    counts = Counter(str(one) for some in outcomes for one in some)  # type: ignore[attr-defined]
    assert counts == {"stored": 12, "duplicate": 60}


def test_other_bytes_under_one_uid_are_kept_aside_once(store: Store) -> None:
    store.add_instance(image())
    assert store.add_instance(image(digest="b")) is IngestOutcome.CONFLICT
    assert store.add_instance(image(digest="b")) is IngestOutcome.DUPLICATE
    assert [one.path for one in store.conflicts_to_judge()] == [f"spool/{STUDY}/1b"]
    assert store.find_instance(STUDY, f"{STUDY}.1.1").path == f"spool/{STUDY}/1a"  # type: ignore[union-attr]


def test_G4_an_image_of_another_patient_holds_the_study_at_once(store: Store) -> None:
    claim = claimed(store)
    store.add_instance(image(2, identity=Identity("P2")))
    assert state(store) == ("held", "identity_conflict")
    with pytest.raises(StaleClaim):
        store.finish_analysed(claim, BOTH, PACS)
    assert store.peers_with_deliveries() == []


def test_G4_results_not_yet_sent_are_withdrawn(store: Store, clock: ManualClock) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    store.add_instance(image(2, identity=Identity("P2")))
    assert state(store) == ("held", "identity_conflict")
    assert store.claim_deliveries("pacs", "d") == []


def test_objects_beside_the_images_do_not_prolong_the_waiting(
    store: Store, clock: ManualClock
) -> None:
    store.add_instance(image())
    clock.advance(11)
    store.add_instance(image(2, role="other"))
    assert [one.study_uid for one in store.studies_to_evaluate(clock.now_s(), 10)] == [STUDY]


def test_what_comes_during_an_evaluation_is_not_forgotten(store: Store, clock: ManualClock) -> None:
    store.add_instance(image())
    (seen,) = store.studies_to_evaluate(clock.now_s() + 10, 10)
    store.add_instance(image(2))
    assert not store.set_plan(seen, Plan(PlanKind.ANALYSE, "k", "{}", 1))
    assert not store.nothing_new(seen)
    assert state(store) == ("receiving", None)
    assert len(store.studies_to_evaluate(clock.now_s() + 10, 10)) == 1


# claims


def test_G3_a_claim_is_given_once(store: Store) -> None:
    for number in range(12):
        store.add_instance(image(study=f"1.2.{number}"))
        make_ready(store, f"1.2.{number}")

    def work(thread: int) -> list[int]:
        mine = []
        for _ in range(30):
            if (claim := store.claim_ready(f"worker-{thread}")) is not None:
                mine.append(claim.revision_id)
        return mine

    taken = in_threads(8, work)
    assert not [one for one in taken if isinstance(one, Exception)]
    flat = sorted(one for some in taken for one in some)  # type: ignore[attr-defined]
    assert flat == sorted(set(flat))
    assert len(flat) == 12


def test_G3_a_late_worker_cannot_commit(store: Store, clock: ManualClock) -> None:
    late = claimed(store)
    clock.advance(61)
    assert store.reap_stale() == 1
    clock.advance(10)
    current = store.claim_ready("worker-1")
    assert current is not None
    assert current.claim_no > late.claim_no
    for use in (store.heartbeat, store.release):
        with pytest.raises(StaleClaim):
            use(late)
    with pytest.raises(StaleClaim):
        store.finish_analysed(late, BOTH, PACS)
    assert store.studies_show(STUDY)[0]["results"] == []
    assert store.finish_analysed(current, BOTH, PACS) == "analysed"


def test_a_heartbeat_keeps_the_claim(store: Store, clock: ManualClock) -> None:
    claim = claimed(store)
    for _ in range(10):
        clock.advance(50)
        store.heartbeat(claim)
        assert store.reap_stale() == 0


def test_the_content_time_is_that_of_the_first_claim(store: Store, clock: ManualClock) -> None:
    first = claimed(store)
    clock.advance(5)
    store.fail_attempt(first, Reason.INTERNAL_ERROR, "x")
    clock.advance(60)
    second = store.claim_ready("worker-0")
    assert second is not None
    assert second.content_time == first.content_time


def test_G2_three_failed_attempts_end_in_a_report(store: Store, clock: ManualClock) -> None:
    claimed_once = claimed(store)
    claim: Claim | None = claimed_once
    for expected in ("ready", "ready", "ready"):
        assert claim is not None
        assert claim.kind is PlanKind.ANALYSE
        assert store.fail_attempt(claim, Reason.INTERNAL_ERROR, "boom") == expected
        clock.advance(60)
        claim = store.claim_ready("worker-0")
    assert claim is not None
    assert (claim.kind, claim.state, claim.reason) == ("report", "failed", "attempts_exhausted")
    done = store.finish_reported(
        claim, RevisionState.FAILED, Reason.ATTEMPTS_EXHAUSTED, "m", [result()], PACS
    )
    assert done == "failed"
    assert store.claim_deliveries("pacs", "d")[0].result.kind == "sr"


def test_G2_a_report_that_cannot_be_written_ends_too(store: Store, clock: ManualClock) -> None:
    store.add_instance(image())
    make_ready(store, kind=PlanKind.REPORT)
    for _ in range(3):
        claim = store.claim_ready("worker-0")
        assert claim is not None
        store.fail_attempt(claim, Reason.INTERNAL_ERROR, "boom")
        clock.advance(60)
    assert state(store) == ("not_analysable", "no_t2w")
    assert "could not be written" in store.studies_show(STUDY)[0]["message"]


def test_the_death_of_the_node_is_no_attempt_and_comes_last_after_three(
    store: Store, clock: ManualClock
) -> None:
    boot = store.start_boot()
    store.add_instance(image())
    make_ready(store)
    for deaths in range(1, 6):
        claim = store.claim_ready("worker-0")
        assert claim is not None
        assert claim.study_uid == STUDY
        assert claim.attempts == 0
        assert store.recover_after_node_death(boot) == 0  # still this boot
        boot = store.start_boot()
        assert store.recover_after_node_death(boot) == 1
        last = deaths
    assert last == 5
    store.add_instance(image(study="1.2.4"))
    clock.advance(5)
    make_ready(store, "1.2.4")
    order = [store.claim_ready("worker-0"), store.claim_ready("worker-0")]
    assert [one.study_uid for one in order if one] == ["1.2.4", STUDY]


def test_the_death_of_a_worker_is_an_attempt(store: Store) -> None:
    claimed(store)
    assert store.recover_worker("worker-1") == 0
    assert store.recover_worker("worker-0") == 1
    assert store.studies_show(STUDY)[0]["attempts"] == 1


def test_an_orderly_stop_counts_nothing(store: Store) -> None:
    store.release(claimed(store))
    again = store.claim_ready("worker-0")
    assert again is not None
    assert (again.attempts, again.node_deaths) == (0, 0)


# finishing and delivering


def test_a_report_is_sent_after_what_it_refers_to(store: Store, clock: ManualClock) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    seg, report = store.claim_deliveries("pacs", "d")
    assert (seg.result.kind, report.result.kind) == ("seg-lesions", "sr")
    store.delivery_retry_later(seg, clock.now_s() + 30, "busy", 0xA700)
    store.delivery_retry_later(report, clock.now_s(), "after the SEG", counts=False)
    assert store.claim_deliveries("pacs", "d") == []  # the report waits for the segmentation
    clock.advance(31)
    seg, report = store.claim_deliveries("pacs", "d")
    assert (seg.attempts, report.attempts) == (2, 1)
    store.delivery_failed(seg, "refused for ever", 0x0122)
    store.delivery_sent(report)
    assert state(store) == ("failed", "delivery_failed")
    assert store.retry(STUDY) == "1 objects are sent again"
    (seg,) = store.claim_deliveries("pacs", "d")
    store.delivery_sent(seg)
    assert state(store) == ("delivered", None)
    clock.advance(FIRST_CHECK_S)
    asked, _ = store.claim_checks("pacs", 300)
    store.judge_sent(asked, Verdict.KEPT, "kept")
    states = [one["deliveries"][0]["state"] for one in store.studies_show(STUDY)[0]["results"]]
    assert states == ["verified", "sent"]


def test_G3_two_senders_never_take_one_object(store: Store) -> None:
    for number in range(6):
        claim = claimed(store, f"1.2.{number}")
        store.finish_analysed(claim, [result("sr", f"9.{number}")], PACS)

    def send(thread: int) -> list[int]:
        return [one.id for _ in range(12) for one in store.claim_deliveries("pacs", f"d{thread}")]

    taken = in_threads(6, send)
    assert not [one for one in taken if isinstance(one, Exception)]
    flat = [one for some in taken for one in some]  # type: ignore[attr-defined]
    assert len(flat) == len(set(flat)) == 6


def test_no_destination_is_said(store: Store) -> None:
    assert store.finish_analysed(claimed(store), BOTH, []) == "failed"
    assert state(store) == ("failed", "no_destination")
    assert store.retry(STUDY) == "the study is looked at anew"
    assert state(store) == ("receiving", None)


def test_a_destination_that_is_down_is_given_up_in_the_end(
    store: Store, clock: ManualClock
) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    store.postpone_peer("pacs", clock.now_s() + 900, "no answer")
    assert store.peers_with_deliveries() == []
    clock.advance(72 * 3600)
    assert store.expire_deliveries(72 * 3600) == 2
    assert state(store) == ("failed", "delivery_failed")


def test_what_was_being_sent_when_the_node_died_is_sent_again(store: Store) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    lost = store.claim_deliveries("pacs", "d")
    assert store.recover_deliveries() == 2
    again = store.claim_deliveries("pacs", "d")
    assert len(again) == 2
    with pytest.raises(StaleClaim):
        store.delivery_sent(lost[0])


def test_a_sender_that_hangs_loses_its_claim(store: Store, clock: ManualClock) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    held = store.claim_deliveries("pacs", "d")
    clock.advance(50)
    store.delivery_heartbeat(held[:1])
    clock.advance(20)
    assert store.reap_stale_deliveries() == 1


def test_the_state_of_a_report_survives_its_delivery(store: Store) -> None:
    store.add_instance(image())
    make_ready(store, kind=PlanKind.REPORT)
    claim = store.claim_ready("worker-0")
    assert claim is not None
    store.finish_reported(
        claim, RevisionState.NOT_ANALYSABLE, Reason.NO_T2W, "words", [result()], PACS
    )
    (one,) = store.claim_deliveries("pacs", "d")
    store.delivery_sent(one)
    assert state(store) == ("not_analysable", "no_t2w")


# revisions


def test_new_inputs_while_running_supersede_the_old_result(store: Store) -> None:
    old = claimed(store)
    store.add_instance(image(2))
    make_ready(store, key="other")
    assert store.claim_ready("worker-1") is None  # one at a time for one study
    assert store.finish_analysed(old, BOTH, PACS) == "superseded"
    assert store.peers_with_deliveries() == []
    new = store.claim_ready("worker-1")
    assert new is not None
    assert new.number == 2


def _node_dies(store: Store, _claim: Claim) -> None:
    assert store.recover_after_node_death(store.start_boot()) == 1


def _worker_dies(store: Store, _claim: Claim) -> None:
    assert store.recover_worker("worker-0") == 1


def _node_stops(store: Store, claim: Claim) -> None:
    store.release(claim)


def _attempt_fails(store: Store, claim: Claim) -> None:
    store.fail_attempt(claim, Reason.INTERNAL_ERROR, "boom")


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "ready"])
@pytest.mark.parametrize("end", [_node_dies, _worker_dies, _node_stops, _attempt_fails])
def test_G2_work_cut_short_after_newer_inputs_is_superseded(
    store: Store, end: Callable[[Store, Claim], None], waits: bool
) -> None:
    """The later revision takes over; the two must not wait side by side."""
    old = claimed(store)
    store.add_instance(image(2))
    if waits:  # what came makes the study incomplete for now: nothing is outdated yet
        (seen,) = store.studies_to_evaluate(store._clock.now_s() + 100, 10)
        later_s = store._clock.now_s() + 50
        assert store.wait_until(seen, later_s, "", new_revision=True, outdates=False)
    else:
        make_ready(store, key="other")
    end(store, old)
    states = [one["state"] for one in store.studies_show(STUDY)]
    assert states == ["receiving" if waits else "ready", "superseded"]


def test_a_newer_result_names_and_supersedes_the_delivered_one(store: Store) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    for one in store.claim_deliveries("pacs", "d"):
        store.delivery_sent(one)
    store.add_instance(image(2))
    (seen,) = store.studies_to_evaluate(store._clock.now_s() + 100, 10)
    assert seen.result_was_sent
    make_ready(store, key="other")
    new = store.claim_ready("worker-0")
    assert new is not None
    (report,) = [sent for sent in new.earlier if sent.kind == "sr"]
    assert report.sop_instance_uid == "9.1"
    store.finish_analysed(new, [result("sr", "9.7")], PACS)
    assert [one["state"] for one in store.studies_show(STUDY)] == ["analysed", "superseded"]


def test_results_that_never_left_are_withdrawn_by_newer_inputs(store: Store) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    store.add_instance(image(2))
    make_ready(store, key="other")
    assert [one["state"] for one in store.studies_show(STUDY)] == ["ready", "superseded"]
    assert store.claim_deliveries("pacs", "d") == []


def test_nothing_to_retry_is_said(store: Store) -> None:
    with pytest.raises(NodeError, match="no study"):
        store.retry("1.9")
    store.add_instance(image())
    with pytest.raises(NodeError, match="nothing to retry"):
        store.retry(STUDY)


def test_G2_nothing_is_stuck_when_the_clock_is_set_back(store: Store, clock: ManualClock) -> None:
    store.add_instance(image(1, study="1.2.7"))  # waits for more
    store.finish_analysed(claimed(store, "1.2.8"), BOTH, PACS)  # waits for its destination
    store.add_instance(image(1))
    make_ready(store)  # waits for the worker
    assert store.pull_back_times(PATIENCE_S) == 0
    clock.step_wall(-10 * 365 * 86_400.0)
    assert store.claim_ready("worker-0") is None
    assert store.claim_deliveries("pacs", "d") == []
    assert store.pull_back_times(PATIENCE_S) > 0
    assert store.pull_back_times(PATIENCE_S) == 0
    claim = store.claim_ready("worker-0")
    assert claim is not None
    assert len(store.claim_deliveries("pacs", "d")) == 2
    clock.advance(20)
    waiting = [one.study_uid for one in store.studies_to_evaluate(clock.now_s(), 10)]
    assert waiting == ["1.2.7"]


def test_the_wall_clock_is_watched(clock: ManualClock) -> None:
    watch = WallWatch(clock)
    clock.advance(3600)
    assert not watch.was_set()
    clock.step_wall(-3600)
    assert watch.was_set()
    assert not watch.was_set()


# neighbours and views


def test_peers_live_in_the_database(store: Store) -> None:
    peer = PeerConfig.model_validate(
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104,
         "receives_results": True, "from": ["10.0.0.0/8"], "objects": ["sr"]}
    )  # fmt: skip
    store.peer_add(peer)
    assert store.peers() == [peer]
    with pytest.raises(ConfigError, match="already"):
        store.peer_add(peer)
    assert store.peer_remove("pacs")
    assert not store.peer_remove("pacs")


def test_G5_refusals_are_counted_and_bounded(store: Store, clock: ManualClock) -> None:
    for _ in range(3):
        store.record_refusal("SCAN\x00NER" * 30, "NODE", "10.0.0.9", "calling_ae_unknown")
    (one,) = store.refusals()
    assert (one["count"], len(one["calling_ae"])) == (3, 64)
    assert "\x00" not in one["calling_ae"]
    with store._engine.begin() as connection:
        rows = [
            {"calling_ae": f"A{n}", "called_ae": "", "address": "", "reason": "", "count": 1,
             "first_at": 0, "last_at": n}
            for n in range(MAX_REFUSALS)
        ]  # fmt: skip
        connection.execute(insert(schema.refusals), rows)
    clock.advance(1)
    store.record_refusal("NEW", "NODE", "10.0.0.9", "x")
    assert len(store.refusals(10 * MAX_REFUSALS)) == MAX_REFUSALS
    assert store.refusals()[0]["calling_ae"] == "NEW"


def test_the_installation_has_one_name(store: Store) -> None:
    names = in_threads(4, lambda _: store.installation_id())
    assert len(set(names)) == 1
    assert store.set_installation_id("other") == names[0]


def test_the_views_are_json_in_the_shape_of_the_contract(store: Store) -> None:
    store.finish_analysed(claimed(store), BOTH, PACS)
    (row,) = json.loads(json.dumps(store.studies_list()))
    keys = ["study_uid", "revision", "state", "reason", "message", "instances", "received_at"]
    assert [key in row for key in keys] == [True] * 7
    assert row["results"][0] == {
        "kind": "sr", "variant": "", "sop_instance_uid": "9.1", "sha256": "f" * 64,
        "deliveries": [
            {"peer": "pacs", "state": "pending", "attempts": 0, "confirmation": None}
        ],
    }  # fmt: skip
    report = json.loads(json.dumps(store.status()))
    assert report["revisions"]["analysed"] == 1
    assert report["deliveries"]["pending"] == 2
    events = [one["event"] for one in store.timeline(STUDY)]
    assert events == ["opened", "complete", "claim", "analysed"]
    assert store.delivery_details(STUDY)[0]["peer"] == "pacs"
    assert store.known_result("9.1")
    assert not store.known_result("9.9")
    store.check_integrity()


def test_G5_a_timeline_has_a_bounded_length(store: Store) -> None:
    store.add_instance(image())
    with store._engine.begin() as connection:
        row = {"study_id": 1, "at": 0, "event": "x", "detail": ""}
        connection.execute(insert(schema.events), [row] * 600)
    store.record_own_object(STUDY, "9.1", "PACS")
    assert "own_object" not in {one["event"] for one in store.timeline(STUDY)}
