"""The registry of releases, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from dicom_node.domain.assignment import Scope
from dicom_node.domain.states import IllegalTransition
from dicom_node.errors import ConfigError, StoreError
from dicom_node.store import release_schema, releases
from dicom_node.store.rows import ShadowRow
from dicom_node.store.store import Store
from tests.store.test_store import claimed, image, in_threads, make_ready

DEFAULT = Scope()
MR1 = Scope(sender="MR1")


def add(store: Store, letter: str) -> int:
    return store.release_add(letter * 64, letter, "1", None).id


def states(store: Store) -> dict[str, str]:
    return {row.name: str(row.state) for row in store.releases()}


def switch(store: Store, release_id: int, scope: Scope = DEFAULT) -> None:
    there = {rule.scope: rule.id for rule in store.rules()}
    store.assign(scope, release_id, there.get(scope))


def active(store: Store, scope: Scope = DEFAULT) -> str:
    names = {row.id: row.name for row in store.releases()}
    return {rule.scope: names[rule.release_id] for rule in store.rules()}[scope]


def test_at_first_the_packaged_release_is_the_default(store: Store) -> None:
    (row,) = store.releases()
    assert (row.name, row.sha256, row.state) == ("packaged", None, "active")
    (rule,) = store.rules()
    assert (rule.scope, rule.release_id) == (DEFAULT, row.id)
    with pytest.raises(ConfigError, match="nothing was active before"):
        store.rollback(DEFAULT, rule.id)


def test_activation_and_rollback_step_by_step(store: Store) -> None:
    a, b = add(store, "a"), add(store, "b")
    switch(store, a)
    assert states(store) == {"packaged": "retired", "a": "active", "b": "candidate"}
    switch(store, b)
    for expected in ("a", "packaged"):
        rule, before = store.rule_before(DEFAULT)
        assert before is not None
        store.rollback(DEFAULT, rule.id)
        assert active(store) == expected
    assert states(store) == {"packaged": "active", "a": "retired", "b": "retired"}
    switch(store, b)
    rule, before = store.rule_before(DEFAULT)
    assert before is not None
    assert before.release_id == store.releases()[0].id, "history goes on from where it stands"


def test_one_release_serves_while_any_rule_names_it(store: Store) -> None:
    a = add(store, "a")
    switch(store, a, MR1)
    assert states(store) == {"packaged": "active", "a": "active"}
    switch(store, a)
    assert states(store) == {"packaged": "retired", "a": "active"}
    rule, before = store.rule_before(MR1)
    assert before is None
    store.rollback(MR1, rule.id)
    assert [rule.scope for rule in store.rules()] == [DEFAULT], "the first rule of a scope goes"
    switch(store, a, MR1)
    store.unassign(MR1)
    with pytest.raises(ConfigError, match="no rule for sender MR1"):
        store.unassign(MR1)
    with pytest.raises(ConfigError, match="the default rule stays"):
        store.unassign(DEFAULT)


def test_a_decision_on_what_changed_meanwhile_is_refused(store: Store) -> None:
    a, b = add(store, "a"), add(store, "b")
    seen = store.rules()[0].id
    store.assign(DEFAULT, a, seen)
    before = states(store)
    with pytest.raises(StoreError, match="changed meanwhile"):
        store.assign(DEFAULT, b, seen)
    with pytest.raises(StoreError, match="changed meanwhile"):
        store.rollback(DEFAULT, seen)
    with pytest.raises(ConfigError, match="already"):
        store.assign(DEFAULT, a, store.rules()[0].id)
    assert states(store) == before


def test_of_many_that_activate_at_once_one_succeeds(store: Store) -> None:
    ids = [add(store, letter) for letter in "abcd"]
    seen = store.rules()[0].id
    done = in_threads(4, lambda n: store.assign(DEFAULT, ids[n], seen))
    assert sum(outcome is None for outcome in done) == 1
    assert sum(isinstance(outcome, StoreError) for outcome in done) == 3
    assert sorted(states(store).values()) == ["active", "candidate", "candidate", "candidate",
                                              "retired"]  # fmt: skip


def test_one_release_shadows_and_never_an_active_one(store: Store) -> None:
    a, b = add(store, "a"), add(store, "b")
    store.set_shadow(a)
    store.set_shadow(b)
    assert states(store) == {"packaged": "active", "a": "candidate", "b": "shadow"}
    with pytest.raises(IllegalTransition):
        store.set_shadow(store.releases()[0].id)
    assert states(store)["b"] == "shadow", "a refused change changes nothing"
    switch(store, b)
    store.set_shadow(store.releases()[0].id)
    assert states(store) == {"packaged": "shadow", "a": "candidate", "b": "active"}
    store.set_shadow(None)
    assert states(store)["packaged"] == "candidate"
    store.reject(a)
    with pytest.raises(IllegalTransition):
        store.reject(b)
    assert states(store) == {"packaged": "candidate", "a": "retired", "b": "active"}


def test_states_that_must_not_exist_cannot_be_written(store: Store) -> None:
    a, b = add(store, "a"), add(store, "b")
    with pytest.raises(ConfigError, match="registered"):
        add(store, "a")
    del a, b
    rows = [
        {"sha256": "c" * 64, "name": "c", "version": "", "state": "running", "added_at": 0.0,
         "changed_at": 0.0},
        {"sha256": "a" * 64, "name": "c", "version": "", "state": "active", "added_at": 0.0,
         "changed_at": 0.0},
    ]  # fmt: skip
    for row in rows:
        with pytest.raises(IntegrityError), store._engine.begin() as db:
            db.execute(insert(release_schema.releases).values(**row))
    second = {"sender": "", "station": "", "protocol": "", "release_id": 1, "current": True,
              "made_at": 0.0}  # fmt: skip
    with pytest.raises(IntegrityError), store._engine.begin() as db:
        db.execute(insert(release_schema.assignments).values(**second))


def test_G5_shadow_runs_are_bounded_and_a_repeated_run_replaces(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "MAX_SHADOW_RUNS", 3)
    one, other = "a" * 64, "b" * 64
    for number in range(4):
        store.shadow_add(ShadowRow(f"1.{number}", 1, one, other, "{}"))
    store.shadow_add(ShadowRow("1.3", 1, one, other, '{"again": 1}'))
    store.shadow_add(ShadowRow("1.3", 1, other, one, "{}"))
    assert [(row.study_uid, row.active_sha256) for row in store.shadow_list(one, other)] == [
        ("1.2", one), ("1.3", one), ("1.3", other),
    ]  # fmt: skip
    assert store.shadow_list(one, other)[1].pair_json == '{"again": 1}'
    assert store.shadow_list(one, "c" * 64) == []


def test_work_waits_while_a_study_is_ready(store: Store) -> None:
    assert not store.work_waits()
    store.add_instance(image(study="1.2.9"))
    make_ready(store, "1.2.9")
    assert store.work_waits()
    assert store.claim_ready("worker-0") is not None
    assert not store.work_waits()
    claimed(store, "1.2.10")
    assert not store.work_waits()
