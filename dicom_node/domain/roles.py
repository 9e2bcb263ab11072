"""The processes of a node as they are seen by their heart-beats, on whatever hosts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

NEEDED = ("receiver", "worker", "delivery")
"""Without one of each no study comes back."""
BEAT_S = 5.0
ALIVE_S = 30.0
"""A process that was not seen for longer does not count as alive."""
FORGET_S = 86_400.0
"""One that was not seen for longer is no longer expected."""


@dataclass(frozen=True)
class ProcessRow:
    """A process that said that it lives. Times in seconds since 1970-01-01 UTC.

    ``ports``: those it opened, by name (``port``, ``tls_port``).
    """

    id: str
    role: str
    host: str
    pid: int
    version: str
    started_at_s: float
    seen_at_s: float
    ports: dict[str, int] = field(default_factory=dict)

    def age_s(self, now_s: float) -> float:
        """Seconds since it was seen; hosts whose clocks differ a little are not in the future."""
        return max(0.0, now_s - self.seen_at_s)


def alive(rows: Sequence[ProcessRow], now_s: float) -> dict[str, int]:
    """Return how many processes of each role live; the needed roles always stand in it."""
    found = dict.fromkeys(NEEDED, 0)
    for row in rows:
        found[row.role] = found.get(row.role, 0) + (row.age_s(now_s) <= ALIVE_S)
    return found


def missing(rows: Sequence[ProcessRow], now_s: float, after_s: float) -> list[str]:
    """Name what is missing: a needed role, or a process that went without a word on its host."""
    lost = [row for row in rows if row.age_s(now_s) > after_s]
    gone = {f"{row.role} on {row.host}" for row in lost if not _replaced(row, rows)}
    lives = {row.role for row in rows if row.age_s(now_s) <= after_s}
    known = {row.role for row in lost}
    return sorted(gone | {role for role in NEEDED if role not in lives | known})


def _replaced(lost: ProcessRow, rows: Sequence[ProcessRow]) -> bool:
    """Whether a later process took its place on its host."""
    return any(
        (row.role, row.host) == (lost.role, lost.host) and row.started_at_s > lost.seen_at_s - 1
        for row in rows
        if row.id != lost.id
    )
