"""Who is connected. Caps hold before a thread is made, over all ports of the node together.

Counted are connections, not associations: a silent one takes room too. At a cap the oldest
connection without an association gives way, so that silent connections lock nobody out, not even
from the same address. Addresses of no peer share a small room of their own; the rest is reserved
for peers.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.clock import SystemClock
from dicom_node.net.limits import ServerLimits

log = logging.getLogger(__name__)

_CLOCK = SystemClock()  # the kernel's timeouts run on real time too
_ABORT_S = 0.5  # for an A-ABORT to go out
_POLL_S = 0.001
TOO_MUCH = "too much in memory at once; an association ended"
_SMALL_BYTES = 1 << 16  # not worth adding up; of all connections together it is a few MiB


@dataclass(eq=False)
class Connection:
    """One TCP connection. Without an association its TLS handshake still goes on."""

    address: str
    is_peer: bool
    request: socket.socket
    assoc: Association | None = None
    held_bytes: int = 0
    """of the message that is coming in or waits for its answer"""
    number: int = 0
    """among those that another process accepted"""

    @property
    def is_alive(self) -> bool:
        """Whether it takes room; an association that was not started yet does."""
        return self.assoc is None or self.assoc.ident is None or self.assoc.is_alive()

    @property
    def is_established(self) -> bool:
        """Whether its association stands."""
        return self.assoc is not None and self.assoc.is_established

    def shut(self) -> None:
        """End the connection; the thread that reads it notices."""
        with contextlib.suppress(OSError):
            # not the method of a TLS socket: that one would first drop the encryption
            socket.socket.shutdown(self.request, socket.SHUT_RDWR)


class Connections:
    """All connections of the node. Safe for many threads.

    Args:
        limits: the caps.
        is_peer: whether an address is one that a peer sends from; must not wait for anything.
    """

    def __init__(self, limits: ServerLimits, is_peer: Callable[[str], bool] = lambda _: True):
        self._limits = limits
        self._is_peer = is_peer
        self._here: list[Connection] = []
        self._lock = threading.Lock()

    def make_room(self, address: str) -> bool:
        """Whether one more connection from ``address`` may come in; closes others for it."""
        is_peer = self._is_peer(address)
        limits = self._limits
        with self._lock:
            self._here = [one for one in self._here if one.is_alive]
            same = [one for one in self._here if one.address == address]
            strangers = [one for one in self._here if not one.is_peer]
            groups = [(same, limits.connections_per_address), (self._here, limits.connections)]
            if not is_peer:
                groups.insert(0, (strangers, limits.strangers))
            return all(len(group) < cap or self._drop_oldest(group) for group, cap in groups)

    def _drop_oldest(self, group: list[Connection]) -> bool:
        for one in group:
            if not one.is_established:
                if one in self._here:
                    self._here.remove(one)
                one.shut()
                return True
        return False

    def enter(self, address: str, request: socket.socket) -> Connection:
        """Count a connection from now on."""
        connection = Connection(address, self._is_peer(address), request)
        with self._lock:
            self._here.append(connection)
        return connection

    def leave(self, connection: Connection) -> None:
        """Count it no longer: no association came of it."""
        with self._lock:
            if connection in self._here:
                self._here.remove(connection)

    def living(self) -> list[Connection]:
        """Return the connections that take room."""
        with self._lock:
            return [one for one in self._here if one.is_alive]

    def associations(self) -> list[Association]:
        """Return the associations that stand."""
        return [one.assoc for one in self.living() if one.assoc and one.assoc.is_established]

    def too_many(self, _assoc: Association, calling_ae: str) -> bool:
        """Whether one more association, with this AE title, would be over the limits."""
        standing = self.associations()
        same = [one for one in standing if _calling_ae(one) == calling_ae]
        limits = self._limits
        return len(standing) >= limits.associations or len(same) >= limits.associations_per_peer

    def hold(self, connection: Connection, held_bytes: int) -> Connection | None:
        """Note what a connection holds in memory.

        Returns the connection to end where all together hold too much: the one that holds most.
        """
        connection.held_bytes = held_bytes
        if held_bytes < _SMALL_BYTES:
            return None
        with self._lock:
            holding = [one for one in self._here if one.is_alive]
            if sum(one.held_bytes for one in holding) <= self._limits.held_bytes:
                return None
            most = max(holding, key=lambda one: one.held_bytes)
            most.held_bytes = 0  # what it holds is freed: nobody else has to go for it
            return most

    def ending(self, connection: Connection) -> None:
        """Note that an association ends in order; its peer may ask for the next at once."""

    def forget(self, connection: Connection) -> None:
        """Note that a connection holds nothing any longer: its request is answered."""
        connection.held_bytes = 0


def _calling_ae(assoc: Association) -> str:
    return str(cast(A_ASSOCIATE, assoc.requestor.primitive).calling_ae_title).strip(" ")


def end_association(assoc: Association, why: str) -> None:
    """Abort an association and free what it takes.

    In a thread of its own: an event handler may only ask for the abort, and the association would
    keep its place until the idle timer ends it.
    """
    if assoc.is_established:
        assoc.is_established = False
        log.warning(why)
        threading.Thread(target=_abort, args=(assoc,), name="dicom-abort", daemon=True).start()


def _abort(assoc: Association) -> None:
    assoc.abort(block=False)
    deadline = _CLOCK.monotonic_s() + _ABORT_S
    # PS3.8 9.2: idle, or the A-ABORT is out and the peer should close
    while assoc.dul.state_machine.current_state not in ("Sta1", "Sta13"):
        if _CLOCK.monotonic_s() > deadline:
            break
        _CLOCK.sleep(_POLL_S)
    assoc.kill()


class SharedBounds:
    """Bounds of messages, and of what all associations hold together, for `StorageStream`.

    Args:
        connections: all of the node.
        connection: the one that is read.
        limits: the bounds.
    """

    def __init__(
        self, connections: Connections, connection: Connection, limits: ServerLimits
    ) -> None:
        self._connections = connections
        self._connection = connection
        self._limits = limits

    def grown(self, data_bytes: int, begun_s: float) -> None:
        """Note the size of a message so far, begun at a monotonic time.

        Raises:
            OSError: it is too slow, or holds most where all hold too much.
        """
        allowed_s = self._limits.message_s + data_bytes / self._limits.least_bytes_per_s
        if _CLOCK.monotonic_s() - begun_s > allowed_s:
            raise OSError("message slower than allowed")
        too_much = self._connections.hold(self._connection, data_bytes)
        if too_much is self._connection:
            raise OSError("too much in memory at once")
        if too_much is not None and too_much.assoc is not None:
            end_association(too_much.assoc, TOO_MUCH)

    def answered(self) -> None:
        """Note that nothing is held any longer."""
        self._connections.forget(self._connection)

    def ending(self) -> None:
        """Note that the association ends in order."""
        self._connections.ending(self._connection)
