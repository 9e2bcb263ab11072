"""The audit trail in the database: chained, append-only, and every tampering is found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dicom_node.clock import ManualClock
from dicom_node.domain.audit import AuditEvent, AuditMessage, Participant
from dicom_node.store.store import Store


def message(number: int) -> AuditMessage:
    return AuditMessage(
        AuditEvent.NETWORK_CONFIGURATION, 1_700_000_000.0 + number / 7, [Participant("root")],
        subject=f"peer {number}",
    )  # fmt: skip


def fill(store: Store, count: int = 5) -> None:
    for number in range(count):
        store.audit_append([message(number)], "NODE@here")


def run(store: Store, statement: str) -> None:
    with store._engine.begin() as db:
        db.execute(text(statement))


def unlock(store: Store) -> None:
    """Do as somebody would who may change the database."""
    if store._engine.dialect.name == "sqlite":
        run(store, "DROP TRIGGER audit_no_update")
        run(store, "DROP TRIGGER audit_no_delete")
    else:
        run(store, "DROP TRIGGER audit_append_only ON audit")


def test_an_empty_and_a_filled_trail_are_whole(store: Store) -> None:
    assert (store.audit_verify().records, store.audit_verify().problem) == (0, "")
    fill(store)
    check = store.audit_verify()
    assert (check.records, check.problem, check.broken_at) == (5, "", None)
    assert store.audit_head() == (5, check.head)
    rows = store.audit_list()
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert [row.number for row in store.audit_list(after=3)] == [4, 5]


@pytest.mark.parametrize("change", ["UPDATE audit SET subject = 'x'", "DELETE FROM audit"])
def test_the_database_refuses_to_change_a_record(store: Store, change: str) -> None:
    fill(store)
    with pytest.raises(DBAPIError, match="append-only"):
        run(store, change)
    assert store.audit_verify().records == 5


@pytest.mark.parametrize(
    ("change", "problem", "at"),
    [
        ("UPDATE audit SET message = 'x' WHERE id = 3", "record 3 was changed", 3),
        ("UPDATE audit SET at = 1 WHERE id = 2", "record 2 was changed", 2),
        ("UPDATE audit SET subject = 'x' WHERE id = 1", "record 1 was changed", 1),
        ("DELETE FROM audit WHERE id = 3", "record 3 is missing", 4),
        ("DELETE FROM audit WHERE id = 1", "record 1 is missing", 2),
        ("DELETE FROM audit WHERE id > 3", "the trail ends at 3, but 5 records were written", 4),
        ("UPDATE audit SET previous_hash = hash WHERE id = 4", "record 4 does not follow", 4),
    ],
)
def test_what_was_tampered_with_is_found(store: Store, change: str, problem: str, at: int) -> None:
    fill(store)
    unlock(store)
    run(store, change)
    check = store.audit_verify()
    assert problem in check.problem
    assert check.broken_at == at


def test_many_writers_make_one_chain(store: Store) -> None:
    def write(writer: int) -> None:
        for number in range(5):
            store.audit_append([message(number), message(writer)], f"NODE{writer}@here")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert (store.audit_verify().records, store.audit_verify().problem) == (40, "")


def test_how_far_it_was_forwarded_is_kept(store: Store, url: str, clock: ManualClock) -> None:
    fill(store)
    assert store.audit_position() == 0
    store.audit_forwarded(3)
    store.audit_forwarded(2)
    again = Store(url, clock=clock)
    assert again.audit_position() == 3
    assert again.audit_backlog() == 2
    assert again.status()["audit"] == {"records": 5, "not_forwarded": 2}
    again.close()
