"""Places where a test can end the process, as if it was killed there.

`tests/faults` hits each of them and looks at what is left; without the environment variable a
point costs one comparison.
"""

from __future__ import annotations

import os
import threading

FAULT_ENV = "DICOM_NODE_FAULT"
FAULT_EXIT_STATUS = 9

FILE_POINTS = ("file-written", "file-synced", "file-renamed", "folder-synced")
RECEIVE_POINTS = (
    "instance-parsed", "record-written", "record-synced", "file-copied", "files-synced",
    "rows-committed", "log-emptied",
)  # fmt: skip
WORK_POINTS = ("claim-committed", "case-analysed", "results-written", "finish-committed")
DELIVERY_POINTS = ("delivery-claimed", "object-sent", "delivery-committed")
ASKING_POINTS = ("checks-claimed", "commitment-opened", "commitment-requested", "report-taken")
"""Storage commitment asked of a destination."""
PLEDGE_POINTS = ("pledge-written", "pledge-claimed", "report-sent", "pledge-answered")
"""Storage commitment that a peer asked of this node."""
REMOVAL_POINTS = ("removal-marked", "file-removed", "files-removed", "removal-forgotten")
"""Deleting what retention lets go."""
FAULT_POINTS = frozenset(
    (
        *FILE_POINTS, *RECEIVE_POINTS, *WORK_POINTS, *DELIVERY_POINTS, *ASKING_POINTS,
        *PLEDGE_POINTS, *REMOVAL_POINTS,
    )
)  # fmt: skip
"""Every place where a test can end the process."""


class _Faults:
    """Counts the hits of the one crash point that the environment names."""

    def __init__(self, setting: str) -> None:
        name, _, count = setting.partition(":")
        if name and name not in FAULT_POINTS:
            raise ValueError(f"unknown crash point '{name}' in {FAULT_ENV}")
        self._name = name
        self._left = int(count or 1)
        self._lock = threading.Lock()

    def hit(self, name: str) -> None:
        if name not in FAULT_POINTS:
            raise ValueError(f"unknown crash point '{name}'")
        if name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os._exit(FAULT_EXIT_STATUS)


_faults = _Faults(os.environ.get(FAULT_ENV, ""))


def fault(name: str) -> None:
    """Mark a crash point. With ``DICOM_NODE_FAULT=name:n`` the n-th hit ends the process.

    Raises:
        ValueError: the name is not in ``FAULT_POINTS``.
    """
    _faults.hit(name)
