"""What a running node asks the database costs no more the more there is: plans and totals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from dicom_node.clock import ManualClock
from dicom_node.store.base import make_study
from dicom_node.store.engine import migrate
from dicom_node.store.store import Store
from tests.store.life import counted, live, told

SMALL = {
    "acceptances", "accounts", "alarms", "assignments", "audit_state", "boots", "canaries",
    "counters", "leases", "node", "notices", "peers", "probes", "processes", "refusals",
    "releases", "removals", "scanners", "sessions", "shadow_runs", "tallies", "tokens",
}  # fmt: skip
"""Tables whose size does not follow from what was received; every other grows for years."""
OPEN_WORK = {"ix_deliveries_check_at", "ix_revisions_manifest_due", "ix_studies_changed"}
"""Partial indexes: they hold what is under way, so that to read one whole is no scan."""
PASSING = {"pending", "sending", "ready", "running", "receiving", "analysed", "unjudged"}
"""States that rows leave again. How many are in any other state grows with the years."""
BY_STATE = {"ix_deliveries_due", "ix_revisions_state", "ix_conflicts_verdict", "ix_pledges_due"}
NEWEST = re.compile(r"FROM (\w+) JOIN .* ORDER BY \1\.id DESC\s+LIMIT \? ", re.S)
"""Read from the end of the table, as many rows as are asked for."""

OUTSIDE = {
    "result_paths": "a backup takes everything",
    "result_folders": "a backup takes everything",
    "image_paths": "a backup takes everything",
    "forget_files": "once after a restore",
    "audit_verify": "reads the whole trail, on demand",
    "check_integrity": "reads everything, on demand",
    "clock": "no statement",
    "close": "no statement",
    "turn": "no table",
    "instances_of": "headers_of",
    "add_instance": "add_instances",
    "peer_add": "peers are few",
    "peer_change": "peers are few",
    "peer_remove": "peers are few",
    "probe_keep": "peers are few",
    "probe_of": "peers are few",
    "restore_revision": "dicom-node recover",
    "set_installation_id": "once",
    "release_add": "a person decides",
    "rule_before": "a person decides",
    "assign": "a person decides",
    "rollback": "a person decides",
    "unassign": "a person decides",
    "unobserved": "once at each start",
    "observe": "once after an upgrade",
    "set_shadow": "a person decides",
    "reject": "a person decides",
    "account_code": "a person decides",
    "account_role": "a person decides",
    "account_remove": "a person decides",
    "token_remove": "a person decides",
}
"""Methods that a running node does not call, or not again and again."""


@contextmanager
def statements(store: Store) -> Iterator[dict[str, Any]]:
    """Collect each different statement with parameters that it was called with."""
    found: dict[str, Any] = {}

    def note(_db: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        found.setdefault(statement, parameters[0] if isinstance(parameters, list) else parameters)

    event.listen(store._engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(store._engine, "before_cursor_execute", note)


def costly(statement: str, parameters: Any, steps: list[str]) -> list[str]:
    """Steps of a plan that read rows in proportion to all that the node ever received."""
    found = []
    growing = {str(one) for one in parameters} - PASSING
    for step in steps:
        words = re.match(r"(SCAN|SEARCH) (\w+)(?: USING (?:COVERING )?INDEX (\w+) ?(.*))?", step)
        if words is None:
            continue
        how, table, index, condition = words.groups()
        if how == "SCAN" and not (table in SMALL or index in OPEN_WORK):
            found.append(step)
        if index in BY_STATE and condition in ("(state=?)", "(verdict=?)") and growing & STATES:
            found.append(step)
    newest = NEWEST.search(statement)
    return [] if newest and found == [f"SCAN {newest[1]}"] else found


STATES = {
    "sent", "verified", "failed", "delivered", "not_analysable", "held", "superseded", "answered",
    "same", "metadata", "demographics", "other", "settled",
}  # fmt: skip


def plan_of(db: Connection, statement: str, parameters: Any) -> list[str]:
    rows = db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return [str(row[3]) for row in rows]


@pytest.fixture
def sqlite(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/n.sqlite3", clock=clock, create=True, host="here")
    yield store
    store.close()


def test_every_statement_of_a_running_node_finds_its_rows_by_an_index(
    sqlite: Store, clock: ManualClock
) -> None:
    with statements(sqlite) as found:
        for _ in live(sqlite, clock):
            pass
    asked = 0
    wrong = {}
    with sqlite._engine.connect() as db:
        for statement, parameters in found.items():
            if not statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
                continue
            asked += 1
            if steps := costly(statement, parameters, plan_of(db, statement, parameters)):
                wrong[statement] = steps
    assert wrong == {}
    assert asked > 100


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM instances",
        "SELECT sum(size) FROM instances",
        "SELECT id FROM revisions WHERE message = 'x' ORDER BY id",
        "SELECT path FROM instances WHERE called_ae = 'x'",
        "SELECT study_id, count(*) FROM instances GROUP BY study_id",
        "SELECT id FROM deliveries WHERE state = 'sent'",
    ],
)
def test_the_check_sees_what_grows(sqlite: Store, statement: str) -> None:
    parameters = re.findall(r"'(\w+)'", statement)
    with sqlite._engine.connect() as db:
        assert costly(statement, parameters, plan_of(db, statement, ()))


def test_no_method_is_left_out(
    sqlite: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: set[str] = set()
    names = {name for name in dir(Store) if not name.startswith("_")}
    for name in names:
        real = getattr(Store, name)

        def told(*arguments: Any, _name: str = name, _real: Any = real, **named: Any) -> Any:
            called.add(_name)
            return _real(*arguments, **named)

        monkeypatch.setattr(Store, name, told)
    for _ in live(sqlite, clock):
        pass
    assert names - called == set(OUTSIDE) - called


def test_the_totals_are_what_there_is_at_every_step(store: Store, clock: ManualClock) -> None:
    for step in live(store, clock):
        assert told(store) == counted(store), step
    for row in store.studies_list():
        assert row["instances"] == len(store.headers_of(row["study_uid"]))


def test_a_transaction_that_fails_leaves_the_totals_alone(store: Store) -> None:
    before = told(store)
    with pytest.raises(ZeroDivisionError), store._write() as db:
        make_study(db, "1.2.3", 1.0)
        raise ZeroDivisionError
    assert told(store) == before == counted(store)


def test_a_database_of_the_version_before_gets_its_totals(store: Store, clock: ManualClock) -> None:
    for _ in live(store, clock):
        pass
    added = ("instances_received_at", "conflicts_received_at", "pledges_requested_at",
             "revisions_manifest_due", "studies_patient_id", "revisions_changed",
             "instances_calling_ae", "studies_images", "studies_results")  # fmt: skip
    removed = {"studies": ("images_removed_at", "results_removed_at"),
               "instances": ("removed_at",), "results": ("removed_at",)}  # fmt: skip
    tables = ("removals", "tallies", "shadow_runs", "assignments", "releases",
              "annotations",
              "observations", "scanners", "sessions", "accounts", "tokens", "processes", "leases",
              "alarms", "notices", "canaries", "counters", "probes")  # fmt: skip
    with store._engine.begin() as db:
        for later in tables:
            db.execute(text(f"DROP TABLE {later}"))
        db.execute(text("ALTER TABLE studies DROP COLUMN instances"))
        db.execute(text("ALTER TABLE commitments DROP COLUMN lost"))
        for name in added:
            db.execute(text(f"DROP INDEX ix_{name}"))
        for table, columns in removed.items():
            for column in columns:
                db.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        db.execute(text("UPDATE alembic_version SET version_num = '0004'"))
    migrate(store._engine)
    assert told(store) == counted(store)
    for row in store.studies_list():
        assert row["instances"] == len(store.headers_of(row["study_uid"]))
