"""Running totals of what the node holds. To count a million rows would cost more each year.

Every transaction that adds rows or changes a state says so with ``tally``; the sums are written as
its last statements, in the order of their names: two transactions can wait for each other's
totals, but never in a circle, and only for the time of a commit.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import BigInteger, Column, Connection, String, Table, bindparam, select, update

from dicom_node.domain.states import DeliveryState, RevisionState
from dicom_node.store.columns import metadata

tallies = Table(
    "tallies",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("n", BigInteger, nullable=False),
)

STUDIES, INSTANCES, BYTES, COPIES, RESULTS = "studies", "instances", "bytes", "copies", "results"
_PENDING = "tallies"
_ADD = (
    update(tallies)
    .where(tallies.c.name == bindparam("which"))
    .values(n=tallies.c.n + bindparam("more"))
)


def of_revisions(state: str) -> str:
    """Name of the total of revisions in a state."""
    return f"revision {RevisionState(state)}"


def of_deliveries(state: str) -> str:
    """Name of the total of deliveries in a state."""
    return f"delivery {DeliveryState(state)}"


NAMES = (
    STUDIES, INSTANCES, BYTES, COPIES, RESULTS, *map(of_revisions, RevisionState),
    *map(of_deliveries, DeliveryState),
)  # fmt: skip


def begin_tallies(db: Connection) -> None:
    """Begin to count in a transaction."""
    db.info[_PENDING] = Counter()


def tally(db: Connection, name: str, more: int = 1) -> None:
    """Count rows that this transaction adds (or takes away, where ``more`` is negative)."""
    db.info[_PENDING][name] += more


def write_tallies(db: Connection) -> None:
    """Write what was counted; the last thing a transaction does."""
    changed = db.info.pop(_PENDING)
    rows = [{"which": name, "more": changed[name]} for name in sorted(changed) if changed[name]]
    if rows:
        db.execute(_ADD, rows)


def read_tallies(db: Connection) -> dict[str, int]:
    """Return all totals."""
    return {row.name: row.n for row in db.execute(select(tallies))}
