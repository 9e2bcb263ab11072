"""The receiver as one of several processes: its connections were accepted by another.

That process (`dicom_node.net.acceptor`) keeps the caps over all of them: it is asked whether an
association may stand, and told when one has ended, a connection is closed, and how much of a
message is in memory. TLS handshakes happen here, with their deadline, because a TLS session
cannot be handed over; the connection is counted there all the while.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.association import Association

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.net.access import Refusal
from dicom_node.net.connections import TOO_MUCH, Connection, Connections, end_association
from dicom_node.net.lending import Line, Message, What
from dicom_node.net.limits import ServerLimits
from dicom_node.net.listening import listeners
from dicom_node.net.receiver import Accepts, Audits, Receiver
from dicom_node.net.server import GuardedServer
from dicom_node.net.serving import drain
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

_POLL_S = 0.1
_ANSWER_S = 5.0
_STEP_BYTES = 1 << 18
"""Growth of a message that is worth telling: 48 associations can hold 12 MiB untold."""


class LentServer(GuardedServer):
    """The guarded server without a port: connections are handed to it."""

    def server_bind(self) -> None:
        """Bind nothing."""
        cast(socket.socket, self.socket).close()

    def server_activate(self) -> None:
        """Listen to nothing."""

    def take(self, request: socket.socket, address: Any) -> None:
        """Make an association of a connection; with TLS after its handshake, in a thread."""
        try:
            self.prepare(request)
            self.process_request(request, address)
        except Exception:
            self.handle_error(request, address)
            self.shutdown_request(request)


@dataclass
class _Lent:
    connection: Connection
    told_bytes: int = 0
    stood: bool = False
    over: bool = False
    may_stand: bool = False
    answered: threading.Event = field(default_factory=threading.Event)


class LentConnections(Connections):
    """The connections of one receiver of several; the caps are kept where they were accepted."""

    def __init__(self, limits: ServerLimits, line: Line) -> None:
        super().__init__(limits)
        self._line = line
        self._lent: dict[int, _Lent] = {}
        self._telling = threading.Lock()
        self._number = 0

    def expect(self, number: int) -> None:
        """Name the connection that is entered next."""
        self._number = number

    def enter(self, address: str, request: socket.socket) -> Connection:
        """Count a connection from now on."""
        connection = super().enter(address, request)
        connection.number = self._number
        with self._telling:
            self._lent[connection.number] = _Lent(connection)
        return connection

    def leave(self, connection: Connection) -> None:
        """Count it no longer: no association came of it."""
        super().leave(connection)
        with self._telling:
            if self._lent.pop(connection.number, None) is not None:
                self._line.send(Message(What.GONE, connection.number))

    def not_entered(self, number: int) -> None:
        """Tell that nothing came of a connection, where nothing did."""
        with self._telling:
            if number not in self._lent:
                self._line.send(Message(What.GONE, number))

    def lent(self, number: int) -> _Lent | None:
        """Return a connection that is here."""
        with self._telling:
            return self._lent.get(number)

    def too_many(self, assoc: Association, calling_ae: str) -> bool:
        """Ask whether one more association, with this AE title, would be over the limits."""
        with self._telling:
            found = [one for one in self._lent.values() if one.connection.assoc is assoc]
        if not found:
            return True  # its connection had to give way
        asking = found[0]
        self._line.send(Message(What.ASK, asking.connection.number, items=(calling_ae,)))
        return not (asking.answered.wait(_ANSWER_S) and asking.may_stand)

    def hold(self, connection: Connection, held_bytes: int) -> Connection | None:
        """Note what a connection holds; whom it is too much of is told from there."""
        connection.held_bytes = held_bytes
        self._tell_held(connection, held_bytes // _STEP_BYTES * _STEP_BYTES)
        return None

    def ending(self, connection: Connection) -> None:
        """Tell that an association ends, before its peer is answered and asks for the next."""
        lent = self.lent(connection.number)
        if lent is not None and not lent.over:
            lent.over = True
            self._line.send(Message(What.OVER, connection.number))

    def forget(self, connection: Connection) -> None:
        """Note that a connection holds nothing any longer."""
        super().forget(connection)
        self._tell_held(connection, 0)

    def _tell_held(self, connection: Connection, held_bytes: int) -> None:
        lent = self._lent.get(connection.number)
        if lent is not None and lent.told_bytes != held_bytes:
            lent.told_bytes = held_bytes
            self._line.send(Message(What.HELD, connection.number, held_bytes))

    def tell_changes(self) -> None:
        """Tell which associations have ended and which connections are closed."""
        with self._telling:
            for number, lent in list(self._lent.items()):
                if lent.connection.is_established:
                    lent.stood = True
                elif lent.stood and not lent.over:
                    lent.over = True
                    self._line.send(Message(What.OVER, number))
                if not lent.connection.is_alive:
                    del self._lent[number]
                    self._line.send(Message(What.GONE, number))


class LentReceiver(Receiver):
    """Receives on the connections that come over a line. See ``Receiver`` for the rest."""

    server_class = LentServer

    def __init__(
        self,
        config: NodeConfig,
        store: Store,
        ingest: Accepts,
        clock: Clock,
        limits: ServerLimits | None = None,
        audit: Audits | None = None,
        *,
        line: Line,
        broken: Callable[[], None] | None = None,
    ) -> None:
        """As the base class; ``broken`` is called where the line ends before ``stop``."""
        super().__init__(config, store, ingest, clock, limits, audit)
        self._line = line
        self._broken = broken or (lambda: None)
        self._here = LentConnections(self._limits, line)
        self._connections = self._here
        self._servers: dict[bool, LentServer] = {}
        self._told_sources: object = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicom-line", daemon=True)

    def start(self) -> int:
        """Say that connections can come, and take them. Returns 0: there is no port here."""
        for listener in listeners(self._config):
            server = cast(LentServer, self._open(listener))
            # its end counts at once, not at the next look
            for event in (evt.EVT_RELEASED, evt.EVT_ABORTED):
                server.bind(event, self._on_end)
            self._servers[listener.context is not None] = server
        self._access.look()
        self._refusals.start()
        self._tell_sources()
        self._line.send(Message(What.READY))
        self._thread.start()
        return 0

    def stop(self, drain_s: float = 5.0) -> None:
        """Let running associations finish, ``drain_s`` at most, then end them."""
        drain(self._connections, drain_s)
        self._stopping.set()
        self._thread.join()
        self._refusals.close()

    def _on_end(self, _event: evt.Event) -> None:
        self._here.tell_changes()

    def _tell_sources(self) -> None:
        sources = self._access.sources
        if sources is not self._told_sources:
            self._told_sources = sources
            self._line.send(Message(What.SOURCES, items=tuple(map(str, sources))))

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if select.select([self._line], [], [], _POLL_S)[0]:
                    received = self._line.receive()
                    if received is None:
                        return  # who accepts is gone
                    self._do(*received)
                self._here.tell_changes()
                self._tell_sources()
                for server in self._servers.values():
                    server.service_actions()
        except Exception:
            log.exception("the line to the accepting process broke")
        finally:
            if not self._stopping.is_set():
                self._broken()

    def _do(self, message: Message, carried: socket.socket | None) -> None:
        if message.what is What.TAKE:
            if carried is not None:  # or there are no descriptors left
                self._take(message, carried)
            self._here.not_entered(message.number)
        elif message.what is What.REFUSED:
            address, why = message.items
            self._scp.on_refused_connection(address, Refusal(why), "")
        elif (lent := self._here.lent(message.number)) is None:
            return
        elif message.what is What.ANSWER:
            lent.may_stand = bool(message.value)
            lent.answered.set()
        elif message.what is What.END and lent.connection.assoc is not None:
            end_association(lent.connection.assoc, TOO_MUCH)
        else:
            lent.connection.shut()

    def _take(self, message: Message, request: socket.socket) -> None:
        host, *rest = message.items
        self._access.is_source(host)  # looks at the peers again, where it is time to
        self._here.expect(message.number)
        self._servers[bool(message.value)].take(request, (host, *map(int, rest)))
