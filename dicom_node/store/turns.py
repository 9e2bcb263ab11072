"""Turns: what one process of the node at a time does, on however many hosts they run."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, select

from dicom_node.store.base import Database

_NODE = 0x70726F73
"""First half of the key: other applications may lock in the same database."""


class TurnStore(Database):
    """Locks of PostgreSQL that fall with the connection of their holder."""

    @contextmanager
    def turn(self, what: str) -> Iterator[bool]:
        """Say whether this process may do ``what`` now; nobody else does until the block ends.

        SQLite belongs to one node with one worker: always True. A holder that is cut off loses its
        turn when PostgreSQL notices (`engine._postgresql`), so the work itself must bear that
        another one has begun it.
        """
        if self._engine.dialect.name != "postgresql":
            yield True
            return
        number = zlib.crc32(what.encode()) & 0x7FFFFFFF
        with self._read() as db:
            mine = db.execute(select(func.pg_try_advisory_xact_lock(_NODE, number))).scalar_one()
            yield bool(mine)
