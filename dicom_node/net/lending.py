"""What the process that accepts and those that receive tell each other: short messages, in order.

The line is a pair of Unix sockets that keep messages apart (SOCK_SEQPACKET); a message can carry a
connection (SCM_RIGHTS). Its end is the end of the process at the other side.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

_MOST_BYTES = 1 << 18
_SEND_S = 10.0


class What(StrEnum):
    """What a message says; to a receiver, then from it."""

    TAKE = "take"
    """a connection; ``items``: its address, ``value``: whether it came in on the TLS port"""
    SHUT = "shut"
    """close a connection, somebody needs its room"""
    END = "end"
    """end an association, it holds too much memory"""
    ANSWER = "answer"
    """``value``: whether an association may stand"""
    REFUSED = "refused"
    """a connection was; ``items``: address, why"""

    READY = "ready"
    FAILED = "failed"
    """it cannot start; ``items``: why"""
    SOURCES = "sources"
    """``items``: the addresses that peers send from"""
    ASK = "ask"
    """may an association stand; ``items``: the calling AE title"""
    OVER = "over"
    """an association has ended, its connection not yet"""
    GONE = "gone"
    """a connection is closed"""
    HELD = "held"
    """``value``: bytes of the message that comes in on a connection"""


@dataclass(frozen=True)
class Message:
    """One message; ``number`` names the connection."""

    what: What
    number: int = 0
    value: int = 0
    items: tuple[str, ...] = ()


def new_line() -> tuple[Line, Line]:
    """Return the two ends of a new line."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Line(one), Line(other)


class Line:
    """One end of a line. Sending is safe for many threads, receiving is for one."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unsent: deque[bytes] = deque()
        end.settimeout(_SEND_S)

    def fileno(self) -> int:
        """Return the descriptor, to wait for it."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def send(self, message: Message) -> None:
        """Send a message; waits where the other side is slow.

        Raises:
            OSError: the other side is gone, or reads nothing.
        """
        self._end.send(_encoded(message))

    def receive(self) -> tuple[Message, socket.socket | None] | None:
        """Return the next message and the connection it carries; None where the line has ended."""
        try:
            data, handles, _, _ = socket.recv_fds(self._end, _MOST_BYTES, 1)
        except ConnectionError:
            return None
        if not data:
            return None
        what, number, value, items = json.loads(data)
        carried = socket.socket(fileno=handles[0]) if handles else None
        return Message(What(what), number, value, tuple(items)), carried

    # without waiting: for who serves many lines

    def wait_for_nothing(self) -> None:
        """Use ``post`` and ``lend`` from now on, not ``send``."""
        self._end.setblocking(False)

    @property
    def has_unsent(self) -> bool:
        """Whether posted messages wait for the other side to read."""
        return bool(self._unsent)

    def post(self, message: Message) -> None:
        """Send a message, or keep it until the other side reads; nothing where it is gone."""
        self._unsent.append(_encoded(message))
        self.flush()

    def flush(self) -> None:
        """Send what was posted, as far as the other side reads."""
        while self._unsent:
            try:
                self._end.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()  # it is gone; who reads the line learns it
                return
            self._unsent.popleft()

    def lend(self, message: Message, connection: socket.socket) -> bool:
        """Send a message with a connection; False where the other side does not take it now."""
        if self._unsent:
            return False
        try:
            socket.send_fds(self._end, [_encoded(message)], [connection.fileno()])
        except OSError:
            return False
        return True


def _encoded(message: Message) -> bytes:
    return json.dumps([message.what, message.number, message.value, message.items]).encode()
