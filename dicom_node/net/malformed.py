"""What the library cannot make sense of ends the association, and nothing else.

It trusts that a request it could decode is whole: a presentation context without its syntaxes, or
with an even ID, raises in the thread that negotiates or in the one that reads. The other thread and
the connection would stay for as long as the peer likes, counted by no cap.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from pynetdicom.association import Association

log = logging.getLogger(__name__)


class Line(Protocol):
    """The connection of an association."""

    def abort(self) -> None:
        """Send an A-ABORT and let nobody wait for a request any longer."""


def end_what_is_malformed(assoc: Association, line: Line) -> None:
    """Let both threads of an association survive whatever the peer sends."""
    acse, machine = assoc.acse, assoc.dul.state_machine
    negotiate, act = acse.negotiate_association, machine.do_action
    acse.negotiate_association = partial(  # type: ignore[method-assign]
        _or_end, assoc, line, negotiate
    )
    machine.do_action = partial(_or_end, assoc, line, act)  # type: ignore[method-assign]


def _or_end(assoc: Association, line: Line, do: Callable[..., None], *given: str) -> None:
    """Do it; whatever it meets ends the association as the library ends one itself."""
    try:
        do(*given)
    except Exception as error:
        log.warning("association ended: malformed", extra={"error": type(error).__name__})
        assoc.is_aborted, assoc.is_established = True, False
        assoc._kill = assoc.dul._kill_thread = True
        with contextlib.suppress(OSError):
            line.abort()
