"""What a receiver acknowledged and could not file any more, another one files.

Every receiver locks its own logs of the journal. A lock falls when its process ends, and with the
host when the file system notices; what is unlocked belongs to nobody, and any receiver may file it.
To file a record twice changes nothing, so it does no harm if an old owner comes back.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.flow.filing import Filing
from dicom_node.flow.journal import Journal, JournalLimits
from dicom_node.flow.spool import JOURNAL
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Shorter than `study.quiet_s` as delivered: a study waits for what another receiver had."""


class Adoption:
    """Files what receivers that are gone left in the journal of a data folder."""

    def __init__(self, store: Store, data_dir: Path, clock: Clock) -> None:
        self._store = store
        self._data_dir = data_dir
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Look every 5 s until ``stop`` is set."""
        while not stop.wait(LOOK_S):
            try:
                if count := self.adopt():
                    log.warning("instances of another receiver filed", extra={"instances": count})
            except Exception as error:  # nobody would start this thread again
                log.error("journal cannot be adopted", extra={"problem": str(error)})

    def adopt(self) -> int:
        """File what is left now; returns how many instances that were. The logs are deleted.

        Raises:
            StoreError: disk or database refused; the logs stay.
        """
        journal = Journal(self._data_dir / JOURNAL, JournalLimits(kept_logs=0))
        try:
            return Filing(self._store, self._data_dir, self._clock, journal).file_leftovers()
        finally:
            journal.close()
