"""What every page and every answer of the API works with."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property, partial

from fastapi import Request

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.flow.accounts import Accounts
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.bounded import Bounded
from dicom_node.flow.health import StorageState, storage_state
from dicom_node.store.store import Store
from dicom_node.web.neighbours import Neighbours
from dicom_node.web.rehearsals import Rehearsals
from dicom_node.web.throttle import LoginThrottle

_NOTES = 1000


class Notes:
    """What to tell a person on the next page; bounded, and forgotten with the process."""

    def __init__(self) -> None:
        self._notes: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def leave(self, session: str, kind: str, text: str) -> None:
        """Leave a note of a kind (good, bad) for a session."""
        with self._lock:
            self._notes[session] = (kind, text)
            while len(self._notes) > _NOTES:
                self._notes.popitem(last=False)

    def take(self, session: str) -> tuple[str, str] | None:
        """Return the note for a session, once."""
        with self._lock:
            return self._notes.pop(session, None)


@dataclass(frozen=True)
class Console:
    """The parts of the web process."""

    config: NodeConfig
    store: Store
    clock: Clock
    accounts: Accounts
    trail: AuditTrail
    throttle: LoginThrottle
    rehearsals: Rehearsals
    notes: Notes = field(default_factory=Notes)
    neighbours: Neighbours = field(default_factory=Neighbours)

    @cached_property
    def storage(self) -> Bounded[StorageState]:
        """Looks at the storage, which may hang."""
        return Bounded(partial(storage_state, self.config.node.data_dir))


def console_of(request: Request) -> Console:
    """Return the console that answers a request."""
    found: Console = request.app.state.console
    return found
