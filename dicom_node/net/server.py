"""The server class behind the port: pynetdicom's association server with bounds.

Given to the library through its public hook ``AE.make_server(server_class=...)``. Against the
plain server it adds: the TLS handshake beside the accept loop, a deadline for each handshake, PDU
and message (a silent or slow peer cannot hold a thread), enforced lengths, caps on connections
before a thread is made and on what all hold in memory, no reading ahead of the answers, a longer
backlog, TCP_NODELAY and immediate acknowledgements, an idle timer that does not run while an
instance is stored.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from socketserver import TCPServer
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity as AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationServer, RequestHandler

from dicom_node.clock import SystemClock
from dicom_node.net.access import Refusal
from dicom_node.net.connections import (
    TOO_MUCH,
    Connection,
    Connections,
    SharedBounds,
    end_association,
)
from dicom_node.net.library import ClosingSocket
from dicom_node.net.limits import ServerLimits
from dicom_node.net.malformed import end_what_is_malformed
from dicom_node.net.tls import explain

log = logging.getLogger(__name__)

_CLOCK = SystemClock()  # the kernel's timeouts run on real time too
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux only
_CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 6
# the library looks at each socket in a loop: connections that have sent nothing yet, of which an
# attacker can hold many, are looked at less often
_SILENT_POLL_S = 0.02
_BUSY_POLL_S = 0.001
# A-ABORT, source: service provider, reason: invalid PDU parameter value (PS3.8 9.3.8)
_ABORT_PDU = bytes([0x07, 0, 0, 0, 0, 4, 0, 0, 2, 6])


class GuardedSocket(ClosingSocket):
    """The library's socket wrapper with a deadline and a length limit for each PDU."""

    limits = ServerLimits()
    held = False
    """the library reads no more: the connection is about to be taken over"""
    message_since_s = 0.0
    _deadline = 0.0

    @property
    def ready(self) -> bool:
        """Whether the library is to read now.

        Not when the connection is taken over, and not while requests wait for their answer, so
        that none pile up.
        """
        if self.held or self.assoc.dimse.msg_queue.qsize() >= self.limits.waiting_messages:
            return False
        return super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``: first the PDU's header, then in a second call its body.

        Raises:
            OSError: the PDU is too long or took too long; the library then closes.
        """
        if nr_bytes == _HEADER_BYTES:
            self.assoc.dul._run_loop_delay = _BUSY_POLL_S
            established = self.assoc.is_established
            limit_s = self.limits.pdu_s if established else self.limits.associate_s
            self._deadline = _CLOCK.monotonic_s() + limit_s
        try:
            if nr_bytes > self._longest():
                self.send(_ABORT_PDU)
                raise OSError("PDU longer than allowed")
            data = super().recv(nr_bytes)
        except OSError:
            self._wake_waiting()
            raise
        if len(data) < nr_bytes:
            self._wake_waiting()
        return data

    def abort(self) -> None:
        """Send an A-ABORT and let nobody wait for a request any longer.

        Raises:
            OSError: the connection failed.
        """
        try:
            self.send(_ABORT_PDU)
        finally:
            self._wake_waiting()

    def _wake_waiting(self) -> None:
        """Tell the association at once that no request will come; it would wait its full time."""
        if self.assoc.requestor.primitive is None:
            self.assoc.dul.to_user_queue.put(cast(A_ASSOCIATE, None))

    def _longest(self) -> int:
        if self.assoc.is_established:
            return self.limits.pdu_bytes + self.limits.pdu_slack_bytes
        return self.limits.request_bytes

    def _read(self, nr_bytes: int) -> bytearray:
        data = bytearray(nr_bytes)
        view = memoryview(data)
        done = 0
        while done < nr_bytes:
            connection: socket.socket | None = self.socket
            if connection is None:
                raise OSError("connection closed")
            left_s = self._deadline - _CLOCK.monotonic_s()
            if left_s <= 0:
                raise TimeoutError("PDU took too long")
            connection.settimeout(left_s)
            count = connection.recv_into(view[done : done + _CHUNK_BYTES])
            if _QUICKACK is not None:
                # senders write header and body apart and wait for the acknowledgement between
                # them; the kernel clears this option, so it is set after each read
                connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if count == 0:
                return data[:done]
            done += count
        connection = self.socket
        if connection is not None:
            connection.settimeout(self.limits.pdu_s)
        return data


class GuardedRequestHandler(RequestHandler):
    """Makes the association of a connection, on the guarded socket."""

    server: GuardedServer

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        # the plain socket has announced the connection already; the guarded one does it again
        assoc.dul.event_queue.get_nowait()
        guarded = GuardedSocket(assoc, client_socket=self.request)
        guarded.limits = self.server.limits
        assoc.dul.socket = guarded
        connection = self.server.connection_of(self.request)
        assoc.dul.daemon = True
        assoc.dul._run_loop_delay = _SILENT_POLL_S
        # after the handlers of the server: what they reject is offered nothing
        assoc.bind(evt.EVT_REQUESTED, _offer, [self.server.offered])
        assoc.bind(evt.EVT_PDU_RECV, _bound_message, [self.server, connection])
        assoc.bind(evt.EVT_DIMSE_SENT, _forget_message, [self.server, connection])
        end_what_is_malformed(assoc, guarded)
        connection.assoc = assoc
        return assoc


def _offer(event: evt.Event, contexts: list[PresentationContext]) -> None:
    """Give an association the contexts it may negotiate.

    The library copies them for each connection; for strangers that is most of the cost. Contexts
    that a handler before gave the association stay.
    """
    if not event.assoc.is_rejected and not event.assoc.acceptor.supported_contexts:
        event.assoc.acceptor.supported_contexts = deepcopy(contexts)


def _bound_message(event: evt.Event, server: GuardedServer, connection: Connection) -> None:
    """End an association whose message is too long or too slow. Runs after each PDU."""
    limits, guarded = server.limits, cast("GuardedSocket | None", event.assoc.dul.socket)
    message, now_s = event.assoc.dimse.message, _CLOCK.monotonic_s()
    if message is None or guarded is None:
        if guarded is not None:
            guarded.message_since_s = now_s
        return
    data_set_bytes = message.data_set.tell() if message.data_set is not None else 0
    command_bytes = message.encoded_command_set.tell()
    allowed_s = limits.message_s + data_set_bytes / limits.least_bytes_per_s
    if command_bytes > limits.command_bytes or data_set_bytes > limits.instance_bytes:
        end_association(event.assoc, "message longer than allowed; association ended")
    elif now_s - guarded.message_since_s > allowed_s:
        end_association(event.assoc, "message slower than allowed; association ended")
    elif (most := server.connections.hold(connection, data_set_bytes)) and most.assoc:
        end_association(most.assoc, TOO_MUCH)


def _forget_message(_event: evt.Event, server: GuardedServer, connection: Connection) -> None:
    """Note that an answer has gone out: its request is held no longer."""
    server.connections.forget(connection)


def keep_alive(assoc: Association) -> None:
    """Restart the idle timer. To be called when the answer to a request took its time."""
    assoc.dul._idle_timer.restart()


@dataclass(frozen=True)
class Guard:
    """What ports share, and what makes one a TLS port."""

    connections: Connections
    context: ssl.SSLContext | None = None
    refused: Callable[[str, Refusal, str], None] | None = None
    """told of a connection that did not become an association: address, why, detail"""


class GuardedServer(AssociationServer):
    """Association server with bounds: see the module. One thread accepts; it never blocks."""

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        ssl_context: ssl.SSLContext | None = None,
        *,
        evt_handlers: list[evt.EventHandlerType],
        limits: ServerLimits,
        guard: Guard,
    ) -> None:
        self.limits = limits
        self.offered = contexts
        self.request_queue_size = limits.backlog
        self.connections = guard.connections
        self._guard = guard
        self._making = threading.local()
        super().__init__(
            ae,
            address,
            ae_title,
            [],
            ssl_context,  # none: the library would wait for the handshake where it accepts
            evt_handlers=evt_handlers,
            request_handler=GuardedRequestHandler,
        )

    # accepting

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one connection."""
        connection, address = super().get_request()
        self.prepare(connection)
        return connection, address

    def prepare(self, connection: socket.socket) -> None:
        """Set the deadline and options of a connection that was accepted."""
        connection.settimeout(self.limits.associate_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hold the caps, before a thread is made."""
        if self.connections.make_room(client_address[0]):
            return True
        self._tell(client_address[0], Refusal.TOO_MANY_CONNECTIONS, "")
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make the association; with TLS in a thread of its own, after the handshake."""
        if self._guard.context is None:
            self._associate(self.connections.enter(client_address[0], request), client_address)
            return
        try:
            secured = self._guard.context.wrap_socket(
                request, server_side=True, do_handshake_on_connect=False
            )
        except (OSError, ValueError):
            self.shutdown_request(request)  # it is gone already
            return
        connection = self.connections.enter(client_address[0], secured)
        thread = threading.Thread(
            target=self._secure,
            args=(connection, client_address),
            name="dicom-handshake",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._give_up(connection)
            raise

    def _secure(self, connection: Connection, client_address: Any) -> None:
        secured = cast(ssl.SSLSocket, connection.request)
        try:
            secured.settimeout(self.limits.handshake_s)  # for the whole handshake, not each read
            secured.do_handshake()
        except (OSError, ValueError) as error:
            self._give_up(connection)
            # one that says nothing and goes is a probe of its network, and no news
            if not isinstance(error, (ConnectionError, ssl.SSLEOFError)):
                self._tell(connection.address, Refusal.TLS_FAILED, explain(error))
            return
        try:
            self._associate(connection, client_address)
        except Exception:
            self.handle_error(connection.request, client_address)

    def _give_up(self, connection: Connection) -> None:
        self.connections.leave(connection)
        connection.request.close()

    def _associate(self, connection: Connection, client_address: Any) -> None:
        self._making.connection = connection
        try:
            self.finish_request(connection.request, client_address)
        except BaseException:
            self._give_up(connection)
            raise

    def connection_of(self, request: socket.socket) -> Connection:
        """Return the connection that this thread is making an association of."""
        connection: Connection = self._making.connection
        if connection.request is not request:
            raise RuntimeError("not the connection in work")
        return connection

    def watch(self, assoc: Association) -> SharedBounds:
        """Return the bounds of an association that reads its connection itself.

        Raises:
            OSError: its connection is gone.
        """
        for connection in self.connections.living():
            if connection.assoc is assoc:
                return SharedBounds(self.connections, connection, self.limits)
        raise OSError("the connection is gone")

    def _tell(self, address: str, refusal: Refusal, detail: str) -> None:
        if self._guard.refused is not None:
            self._guard.refused(address, refusal, detail)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that could not be set up; its socket is closed by the caller."""
        log.exception("connection could not be set up", extra={"address": client_address[0]})

    # ending

    def shutdown(self) -> None:
        """Stop accepting and close the port. Running associations go on."""
        TCPServer.shutdown(self)
        self.server_close()
