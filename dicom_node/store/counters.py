"""Counters: what happened since the database was made. They only grow, whatever is deleted.

Like the totals of `dicom_node.store.tallies` they are written as the last statements of a
transaction, after those, in the order of their names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from dicom_node.store.monitor_schema import counters

STUDIES_RECEIVED, INSTANCES_RECEIVED = "studies received", "instances received"
REFUSED, DELIVERIES = "refused", "deliveries"
ANALYSES, ANALYSIS_SECONDS, ANALYSIS_LE = "analyses", "analysis seconds", "analysis le"
ANALYSIS_BOUNDS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the classes of the histogram of analysis times."""
Counted = Mapping[tuple[str, str], float]
_PENDING = "counters"
_LABEL = 96


def begin_counters(db: Connection) -> None:
    """Begin to count in a transaction."""
    db.info[_PENDING] = Counter()


def count(db: Connection, name: str, label: str = "", more: float = 1.0) -> None:
    """Count what this transaction does. ``label``: one of few, never a value of a patient."""
    db.info[_PENDING][name, label[:_LABEL]] += more


def count_analysis(db: Connection, seconds: float) -> None:
    """Count an analysis into its classes."""
    count(db, ANALYSES)
    count(db, ANALYSIS_SECONDS, more=seconds)
    for bound_s in ANALYSIS_BOUNDS_S:
        if seconds <= bound_s:
            count(db, ANALYSIS_LE, f"{bound_s:g}")


def write_counters(db: Connection) -> None:
    """Write what was counted; after the totals, as the last thing a transaction does."""
    counted = db.info.pop(_PENDING)
    rows: Sequence[dict[str, Any]] = [
        {"which": name, "of": label, "more": counted[name, label]}
        for name, label in sorted(counted)
        if counted[name, label]
    ]
    if rows:
        db.execute(_add(db.dialect.name), rows)


def read_counters(db: Connection) -> Counted:
    """Return all counters by name and label."""
    return {(row.name, row.label): row.n for row in db.execute(select(counters))}


def _add(dialect: str) -> Insert:
    """Return the statement that adds to a counter, or makes it."""
    values: dict[str, Any] = {
        "name": bindparam("which"),
        "label": bindparam("of"),
        "n": bindparam("more"),
    }
    if dialect == "postgresql":
        upsert = postgresql.insert(counters).values(**values)
        return upsert.on_conflict_do_update(
            index_elements=["name", "label"], set_={"n": counters.c.n + upsert.excluded.n}
        )
    made = sqlite.insert(counters).values(**values)
    return made.on_conflict_do_update(
        index_elements=["name", "label"], set_={"n": counters.c.n + made.excluded.n}
    )
