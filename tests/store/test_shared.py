"""Several hosts on one database: turns, one time for all, and looks at a study that are too old."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock, SystemClock
from dicom_node.config import NodeConfig
from dicom_node.doctor import _sharing
from dicom_node.domain.policy import PlanKind
from dicom_node.errors import StoreError
from dicom_node.store.rows import Plan, StaleClaim
from dicom_node.store.shared_clock import DatabaseClock, clock_of
from dicom_node.store.store import Store, version_of
from tests.store.test_store import image, make_ready

STUDY = "1.2.3"


@pytest.fixture
def other(url: str, clock: ManualClock) -> Iterator[Store]:
    made = Store(url, clock=clock, host="there")
    yield made
    made.close()


def test_a_turn_belongs_to_one(store: Store, other: Store) -> None:
    shared = store._engine.dialect.name == "postgresql"
    with store.turn("evaluate") as mine:
        assert mine
        with other.turn("evaluate") as theirs:
            assert theirs is not shared
        with other.turn("fill in") as another:
            assert another
    with other.turn("evaluate") as theirs:
        assert theirs


def test_a_turn_falls_with_an_error_in_it(store: Store, other: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.turn("evaluate"):
        raise ZeroDivisionError
    with other.turn("evaluate") as theirs:
        assert theirs


def test_G3_a_look_that_is_too_old_plans_nothing_twice(store: Store, other: Store) -> None:
    store.add_instance(image(study=STUDY))
    store._clock.advance(100)  # type: ignore[attr-defined]
    (mine,) = store.studies_to_evaluate(store._clock.now_s(), 10)
    (theirs,) = other.studies_to_evaluate(store._clock.now_s(), 10)
    plan = Plan(PlanKind.ANALYSE, "key", "{}", through=1, state=None, reason=None, message="")
    assert store.set_plan(mine, plan)
    assert store.claim_ready("worker-0") is not None
    assert not other.set_plan(theirs, plan)
    assert [(row["revision"], row["state"]) for row in store.studies_show(STUDY)] == [
        (1, "running")
    ]
    assert not other.set_plan(replace(theirs, latest_number=2), plan)


def test_G3_a_host_that_was_cut_off_finds_its_claim_gone(
    store: Store, other: Store, clock: ManualClock
) -> None:
    store.add_instance(image(study=STUDY))
    make_ready(store, STUDY)
    lost = store.claim_ready("worker-0")
    assert lost is not None
    assert other.reap_stale() == 0
    clock.advance(61)
    assert other.reap_stale() == 1
    taken = other.claim_ready("worker-0")
    assert taken is not None
    for act in (lambda: store.heartbeat(lost), lambda: store.finish_analysed(lost, [], [])):
        with pytest.raises(StaleClaim):
            act()
    other.heartbeat(taken)


def test_a_part_that_starts_takes_back_its_own_claims_and_no_others(
    store: Store, other: Store
) -> None:
    for uid in ("1.2.3", "1.2.4"):
        store.add_instance(image(study=uid))
        make_ready(store, uid)
    assert store.claim_ready("worker-0") is not None
    kept = other.claim_ready("worker-0")
    assert kept is not None
    assert store.recover_after_node_death("") == 1
    assert store.recover_worker("worker-0") == 0
    other.heartbeat(kept)


@pytest.mark.interop
def test_a_host_whose_clock_is_wrong_has_the_time_of_the_database(postgresql_template: str) -> None:
    late = ManualClock(SystemClock().now_s() - 7200)
    clock = DatabaseClock(postgresql_template, late)
    try:
        assert abs(clock.ahead_s - 7200) < 60
        before_s = clock.now_s()
        late.advance(5)
        assert clock.now_s() - before_s == pytest.approx(5)
        late.step_wall(600)
        clock.measure()
        assert abs(clock.now_s() - SystemClock().now_s()) < 60
        assert clock.now().timestamp() == pytest.approx(clock.now_s())
    finally:
        clock.stop()


@pytest.mark.interop
def test_only_where_hosts_share_is_the_clock_the_databases(postgresql_template: str) -> None:
    assert isinstance(clock_of("sqlite:///x"), SystemClock)
    clock = clock_of(postgresql_template)
    assert isinstance(clock, DatabaseClock)
    clock.stop()
    brief = clock_of(postgresql_template, lasting=False)
    assert abs(brief.now_s() - SystemClock().now_s()) < 60


def test_without_the_database_there_is_no_time() -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        DatabaseClock("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_the_version_of_a_schema_can_be_asked_for(url: str, empty_url: str) -> None:
    assert version_of(url) is not None
    assert version_of(empty_url) is None


@pytest.mark.interop
def test_the_doctor_looks_at_what_hosts_share(postgresql_template: str, tmp_path: Path) -> None:
    node = {"database": postgresql_template, "data_dir": tmp_path}
    found = {check.name: check for check in _sharing(NodeConfig.model_validate({"node": node}))}
    assert found["clock"].state == "ok"
    assert found["shared folder"].state in ("note", "ok")
    assert list(_sharing(NodeConfig())) == []
