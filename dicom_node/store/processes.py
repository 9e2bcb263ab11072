"""Processes that live, on whatever hosts; and what only one of them does at a time."""

from __future__ import annotations

import json
from dataclasses import replace

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from dicom_node.domain.roles import FORGET_S, ProcessRow
from dicom_node.store.base import Database
from dicom_node.store.monitor_schema import leases, processes

_CLOCKS_DIFFER_S = 5.0
"""At most, as each host measures the clock of the database by itself."""


class ProcessStore(Database):
    """Transactions about the processes of the node."""

    def host_name(self) -> str:
        """Return the name of this machine, as it stands in rows."""
        return self._host

    def process_beat(self, row: ProcessRow) -> ProcessRow:
        """Say that a process lives; returns its row as it stands now."""
        seen = replace(row, host=self._host, seen_at_s=self._clock.now_s())
        mine = processes.c.id == row.id
        with self._write() as db:
            again = update(processes).where(mine).values(seen_at=seen.seen_at_s)
            if not db.execute(again).rowcount:
                forgotten = processes.c.seen_at < seen.seen_at_s - FORGET_S
                db.execute(delete(processes).where(forgotten))
                db.execute(
                    insert(processes).values(
                        id=row.id, role=row.role, host=self._host, pid=row.pid,
                        version=row.version[:32], started_at=row.started_at_s,
                        seen_at=seen.seen_at_s, ports_json=json.dumps(row.ports),
                    )
                )  # fmt: skip
        return seen

    def process_gone(self, process_id: str) -> None:
        """Take the row of a process away that ends in order."""
        with self._write() as db:
            db.execute(delete(processes).where(processes.c.id == process_id))

    def processes(self) -> list[ProcessRow]:
        """Return the processes that live, or went without a word within a day, by role."""
        since_s = self._clock.now_s() - FORGET_S
        query = select(processes).where(processes.c.seen_at >= since_s)
        with self._read() as db:
            rows = db.execute(query.order_by(processes.c.role, processes.c.host, processes.c.id))
            return [
                ProcessRow(
                    row.id, row.role, row.host, row.pid, row.version, row.started_at, row.seen_at,
                    json.loads(row.ports_json),
                )
                for row in rows
            ]  # fmt: skip

    def lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or keep what only one does; False where another process does it.

        Who holds it keeps it by asking again within ``ttl_s``. It looks without a write lock.
        """
        now_s = self._clock.now_s()
        with self._read() as db:
            row = db.execute(select(leases).where(leases.c.name == name)).one_or_none()
        # a time further ahead was written by a clock that was set back since
        if row is not None and now_s < row.until <= now_s + ttl_s + _CLOCKS_DIFFER_S:
            if row.holder != holder:
                return False
            if row.until > now_s + ttl_s / 2:
                return True
        with self._write() as db:
            if row is None:
                try:
                    with db.begin_nested():
                        made = insert(leases).values(name=name, holder=holder, until=now_s + ttl_s)
                        db.execute(made)
                except IntegrityError:
                    return False  # another process was first
                return True
            same = (leases.c.name == name, leases.c.holder == row.holder,
                    leases.c.until == row.until)  # fmt: skip
            taken = update(leases).where(*same).values(holder=holder, until=now_s + ttl_s)
            return db.execute(taken).rowcount == 1

    def end_lease(self, name: str, holder: str) -> None:
        """Let others have it."""
        mine = (leases.c.name == name) & (leases.c.holder == holder)
        with self._write() as db:
            db.execute(delete(leases).where(mine))
