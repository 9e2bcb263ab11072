"""What the rules of the alarms and the metrics measure in the database.

Nothing here reads in proportion to all that was received. Test studies (canaries) do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import func, select

from dicom_node.domain.canary import STUDY_ROOT
from dicom_node.domain.states import DeliveryState, RevisionState
from dicom_node.store.base import Database
from dicom_node.store.counters import Counted, count_analysis, read_counters
from dicom_node.store.schema import deliveries, node, revisions, studies

_WAITING = (RevisionState.RECEIVING, RevisionState.READY, RevisionState.RUNNING)


class WatchStore(Database):
    """Figures about the node as it runs. Times in seconds since 1970-01-01 UTC."""

    def set_up_s(self) -> float | None:
        """When the node was set up; None where it has no name yet."""
        with self._read() as db:
            found: float | None = db.execute(select(node.c.created_at)).scalar_one_or_none()
        return found

    def oldest_waiting_s(self) -> float | None:
        """Since when the oldest study waits that is not analysed yet."""
        oldest = select(func.min(revisions.c.created_at)).where(revisions.c.state.in_(_WAITING))
        with self._read() as db:
            found: float | None = db.execute(oldest).scalar_one()
        return found

    def ended_badly(self, since_s: float) -> tuple[int, int]:
        """Count the studies that failed and that are held since a time."""
        query = (
            select(revisions.c.state, func.count())
            .join(studies, studies.c.id == revisions.c.study_id)
            .where(
                revisions.c.state.in_((RevisionState.FAILED, RevisionState.HELD)),
                revisions.c.changed_at >= since_s, ~studies.c.study_uid.startswith(STUDY_ROOT),
            )
            .group_by(revisions.c.state)
        )  # fmt: skip
        with self._read() as db:
            found = {row[0]: int(row[1]) for row in db.execute(query)}
        return found.get(RevisionState.FAILED, 0), found.get(RevisionState.HELD, 0)

    def oldest_deliveries_s(self, peers: Iterable[str]) -> Mapping[str, float]:
        """Since when the oldest object waits for each peer; peers without one are left out."""
        waits = deliveries.c.state.in_((DeliveryState.PENDING, DeliveryState.SENDING))
        found = {}
        with self._read() as db:
            for peer in peers:
                oldest = select(func.min(deliveries.c.created_at))
                since_s = db.execute(oldest.where(waits, deliveries.c.peer == peer)).scalar_one()
                if since_s is not None:
                    found[peer] = float(since_s)
        return found

    def counters(self) -> Counted:
        """Return all counters by name and label."""
        with self._read() as db:
            return read_counters(db)

    def analysed_in(self, seconds: float) -> None:
        """Count an analysis and how long it took."""
        with self._write() as db:
            count_analysis(db, seconds)
