"""Storage commitment that peers ask of this node, and what the node holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.store.base import Database
from dicom_node.store.rows import HeldRow, PledgeRow
from dicom_node.store.schema import instances, pledges, results

FIRST_ANSWER_S = 2.0
"""From a request to its answer: what was just received is being filed."""
MAX_PENDING = 200
"""So many requests of one peer wait for their answer; more are refused (G5)."""
KEPT_S = 30 * 86_400.0
"""So long a settled request is remembered."""


class PledgeStore(Database):
    """Transactions of the commitment SCP."""

    def add_pledge(
        self, peer: str, transaction_uid: str, references: Sequence[tuple[str, str]]
    ) -> bool:
        """Take a request: (SOP class, SOP instance) in order. False: too many wait already.

        A request that comes again under its transaction UID is answered once more.
        """
        now_s = self._clock.now_s()
        pending = (pledges.c.peer == peer) & (pledges.c.state == "pending")
        waiting = select(func.count()).select_from(pledges).where(pending)
        old = (pledges.c.state != "pending") & (pledges.c.requested_at < now_s - KEPT_S)
        values = {
            "references_json": json.dumps([list(pair) for pair in references]),
            "state": "pending", "attempts": 0, "next_at": now_s + FIRST_ANSWER_S,
            "requested_at": now_s, "answered_at": None, "message": None,
        }  # fmt: skip
        same = (pledges.c.peer == peer) & (pledges.c.transaction_uid == transaction_uid)
        with self._write() as db:
            db.execute(delete(pledges).where(old))
            if db.execute(waiting).scalar_one() >= MAX_PENDING:
                return False
            if db.execute(update(pledges).where(same).values(**values)).rowcount:
                return True
            try:
                with db.begin_nested():
                    db.execute(
                        insert(pledges).values(peer=peer, transaction_uid=transaction_uid, **values)
                    )
            except IntegrityError:
                pass  # the same request came twice at once
            return True

    def claim_pledges(self, lease_s: float, limit: int = 20) -> list[PledgeRow]:
        """Take requests that wait for their answer; they are due again after ``lease_s``."""
        now_s = self._clock.now_s()
        due = (pledges.c.state == "pending") & (pledges.c.next_at <= now_s)
        with self._read() as db:  # an idle look must not hold up the receiver
            if db.execute(select(pledges.c.id).where(due).limit(1)).first() is None:
                return []
        query = select(pledges).where(due).order_by(pledges.c.next_at, pledges.c.id).limit(limit)
        with self._write() as db:
            rows = db.execute(query.with_for_update(skip_locked=True)).all()
            taken = pledges.c.id.in_([row.id for row in rows])
            db.execute(
                update(pledges)
                .where(taken)
                .values(next_at=now_s + lease_s, attempts=pledges.c.attempts + 1)
            )
        return [_pledge(row) for row in rows]

    def pledge_answered(self, row: PledgeRow) -> None:
        """Note that the peer took the answer."""
        self._settle_pledge(
            row, state="answered", answered_at=self._clock.now_s(), message=None,
            references_json="[]",
        )  # fmt: skip

    def pledge_retry(self, row: PledgeRow, next_at_s: float, message: str) -> None:
        """Answer again at a time."""
        self._settle_pledge(row, next_at=next_at_s, message=message[:500])

    def pledge_failed(self, row: PledgeRow, message: str) -> None:
        """Note that the peer never took the answer."""
        self._settle_pledge(row, state="failed", message=message[:500], references_json="[]")

    def _settle_pledge(self, row: PledgeRow, **values: Any) -> None:
        with self._write() as db:
            # a request that came again meanwhile has another time and stays pending
            mine = (pledges.c.id == row.id) & (pledges.c.requested_at == row.requested_at_s)
            db.execute(update(pledges).where(mine).values(**values))

    def held(self, sop_instance_uid: str) -> list[HeldRow]:
        """Return every copy that this node holds of an instance: received, or made by it."""
        received = select(
            instances.c.sop_class_uid, instances.c.path, instances.c.dataset_digest.label("digest")
        ).where(instances.c.sop_instance_uid == sop_instance_uid, instances.c.removed_at.is_(None))
        made = select(
            results.c.sop_class_uid, results.c.path, results.c.sha256.label("digest")
        ).where(results.c.sop_instance_uid == sop_instance_uid, results.c.removed_at.is_(None))
        with self._read() as db:
            return [
                HeldRow(row.sop_class_uid, row.path, row.digest, whole_file=whole)
                for query, whole in ((received, False), (made, True))
                for row in db.execute(query)
            ]


def _pledge(row: Row[Any]) -> PledgeRow:
    references = tuple((str(one), str(other)) for one, other in json.loads(row.references_json))
    return PledgeRow(
        row.id, row.peer, row.transaction_uid, references, row.attempts + 1, row.requested_at
    )
