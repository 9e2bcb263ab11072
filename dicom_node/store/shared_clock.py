"""One time for all hosts: where they share a PostgreSQL, its clock is the clock of the node.

Leases, due times and the age of a heartbeat compare times that different hosts wrote. A host whose
clock is wrong would take work from those that do it, or never take it back.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.clock import Clock, SystemClock
from dicom_node.store.engine import open_engine, unusable

log = logging.getLogger(__name__)

MEASURE_S = 30.0
LONGEST_LOOK_S = 1.0
"""A look that took longer says too little of the time."""
SKEW_TOLD_S = 2.0
"""A clock that is further off is logged: audit trail and DICOM peers see this host's time too."""


_NOW = select(func.extract("epoch", func.clock_timestamp()))


class DatabaseClock:
    """The clock of this host, corrected by its distance from the database's.

    The distance is measured at once and then, between ``start`` and ``stop``, every 30 s; while the
    database cannot be reached the last one counts.

    Args:
        url: SQLAlchemy URL of a PostgreSQL.
        here: the clock of this host.

    Raises:
        StoreError: the database cannot be used.
    """

    def __init__(self, url: str, here: Clock | None = None) -> None:
        self._here = here or SystemClock()
        self._engine = open_engine(url)
        self._ahead_s = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self.measure()
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise unusable(error) from None

    @property
    def ahead_s(self) -> float:
        """How far the database's clock is ahead of this host's."""
        return self._ahead_s

    def measure(self) -> None:
        """Ask for the time once. The answer belongs to the middle of the time that it took."""
        with self._engine.connect() as db:
            db.execute(select(1))  # connecting is no part of the time that is measured
            before_s, since_s = self._here.now_s(), self._here.monotonic_s()
            there_s = float(db.execute(_NOW).scalar_one())
            took_s = self._here.monotonic_s() - since_s
        if took_s > LONGEST_LOOK_S:
            return
        ahead_s = there_s - (before_s + took_s / 2)
        if abs(ahead_s) > SKEW_TOLD_S and abs(ahead_s - self._ahead_s) > SKEW_TOLD_S:
            log.warning("the clock differs from the database's", extra={"by_s": round(-ahead_s, 1)})
        self._ahead_s = ahead_s

    def start(self) -> DatabaseClock:
        """Measure again and again in a thread."""
        self._thread = threading.Thread(target=self._run, name="database-clock", daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._stop.wait(MEASURE_S):
            try:
                self.measure()
            except SQLAlchemyError:
                log.warning("the time of the database cannot be read")

    def stop(self) -> None:
        """End the thread and the connections."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._engine.dispose()

    def now_s(self) -> float:
        """Wall time of the database in seconds since 1970-01-01 UTC."""
        return self._here.now_s() + self._ahead_s

    def now(self) -> datetime:
        """Wall time of the database as an aware UTC datetime."""
        return datetime.fromtimestamp(self.now_s(), UTC)

    def monotonic_s(self) -> float:
        """Seconds that only grow; for durations within one process."""
        return self._here.monotonic_s()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def clock_of(url: str, *, lasting: bool = True) -> Clock:
    """Return the clock of the node: the database's where hosts can share it.

    ``lasting``: it is measured again and again, for as long as the process lives.

    Raises:
        StoreError: the database cannot be used.
    """
    if url.startswith("sqlite"):
        return SystemClock()
    clock = DatabaseClock(url)
    if lasting:
        return clock.start()
    clock.stop()
    return clock
