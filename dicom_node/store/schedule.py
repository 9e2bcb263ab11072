"""Times in the database that lie too far ahead: the wall clock was set back."""

from __future__ import annotations

from sqlalchemy import select, true, update

from dicom_node.domain.policy import BACKOFF_CAP_S, LEASE_S
from dicom_node.store.base import Database
from dicom_node.store.schema import deliveries, pledges, revisions, studies

_SKEW_S = 5.0  # hosts on one database may differ by so much


class ScheduleStore(Database):
    """Housekeeping of due times."""

    def pull_back_times(self, patience_s: float, longest_check_s: float = 0.0) -> int:
        """Let nothing wait longer than its rule says, though the clock was set back (G2).

        Every stored time has a latest value that it can have by its rule, seen from now; what
        lies beyond was written by a clock that ran ahead, and becomes now. Returns how many rows
        were changed.
        """
        now_s = self._clock.now_s()
        ready, running = (revisions.c.state == state for state in ("ready", "running"))
        pending, sending = (deliveries.c.state == state for state in ("pending", "sending"))
        check_s = max(longest_check_s, BACKOFF_CAP_S)
        # the last says which rows a time of theirs can still hold up: what is done is not looked at
        limits = (
            (studies.c.last_image_at, _SKEW_S, studies.c.change_no > studies.c.evaluated_no),
            (studies.c.last_image_at, _SKEW_S, studies.c.evaluate_at > 0),
            (studies.c.evaluate_at, patience_s + _SKEW_S, true()),
            (revisions.c.run_after, LEASE_S, ready),
            (revisions.c.heartbeat_at, _SKEW_S, running),
            (deliveries.c.next_at, BACKOFF_CAP_S + _SKEW_S, pending),
            (deliveries.c.created_at, _SKEW_S, pending),
            (deliveries.c.heartbeat_at, _SKEW_S, sending),
            (deliveries.c.check_at, check_s + _SKEW_S, deliveries.c.check_at.is_not(None)),
            (pledges.c.next_at, BACKOFF_CAP_S + _SKEW_S, pledges.c.state == "pending"),
        )
        late = [(column, (column > now_s + ahead_s) & rows) for column, ahead_s, rows in limits]
        with self._read() as db:  # an idle look must not hold up the receiver
            found = [
                (column, condition)
                for column, condition in late
                if db.execute(select(column).where(condition).limit(1)).first() is not None
            ]
        if not found:
            return 0
        with self._write() as db:
            return sum(
                db.execute(
                    update(column.table).where(condition).values({column.name: now_s})
                ).rowcount
                for column, condition in found
            )
