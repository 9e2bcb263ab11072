"""The server class behind the port: pynetdicom's association server with bounds.

Given to the library through its public hook ``AE.make_server(server_class=...)``. Against the
plain server it adds: a deadline for each PDU (a silent or slow peer cannot hold a thread), an
enforced PDU length, caps on connections before a thread is made, a longer backlog, TCP_NODELAY
and immediate acknowledgements, an idle timer that does not run while an instance is stored.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
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
from dicom_node.net.contexts import supported_contexts
from dicom_node.net.library import ClosingSocket
from dicom_node.net.limits import ServerLimits

log = logging.getLogger(__name__)

_CLOCK = SystemClock()  # the kernel's timeouts run on real time too
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux only
_CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 6
# the library looks at each socket in a loop: connections that have sent nothing yet, of which an
# attacker can hold many, are looked at less often
_SILENT_POLL_S = 0.02
_BUSY_POLL_S = 0.001
_ABORT_S = 0.5  # for an A-ABORT to go out
_CLOSE_S = 2.0  # for a thread to see that its connection is closed
# A-ABORT, source: service provider, reason: invalid PDU parameter value (PS3.8 9.3.8)
_ABORT_PDU = bytes([0x07, 0, 0, 0, 0, 4, 0, 0, 2, 6])


class GuardedSocket(ClosingSocket):
    """The library's socket wrapper with a deadline and a length limit for each PDU."""

    limits = ServerLimits()
    _deadline = 0.0

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
            data = self._read(nr_bytes)
        except OSError:
            self._wake_waiting()
            raise
        if len(data) < nr_bytes:
            self._wake_waiting()
        return data

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
        assoc.dul.daemon = True
        assoc.dul._run_loop_delay = _SILENT_POLL_S
        # after the handlers of the server: what they reject is offered nothing
        assoc.bind(evt.EVT_REQUESTED, _offer, [self.server.offered])
        assoc.bind(evt.EVT_PDU_RECV, _bound_message, [self.server.limits])
        self.server.register(self.client_address[0], self.request, assoc)
        return assoc


def _offer(event: evt.Event, contexts: list[PresentationContext]) -> None:
    """Give an association the contexts it may negotiate.

    The library copies them for each connection; for strangers that is most of the cost. Contexts
    that a handler before gave the association stay.
    """
    if not event.assoc.is_rejected and not event.assoc.acceptor.supported_contexts:
        event.assoc.acceptor.supported_contexts = deepcopy(contexts)


def _bound_message(event: evt.Event, limits: ServerLimits) -> None:
    """End an association whose message outgrows its limit. Runs after each PDU."""
    message = event.assoc.dimse.message
    if message is None:
        return
    data_set_bytes = message.data_set.tell() if message.data_set is not None else 0
    command_bytes = message.encoded_command_set.tell()
    if command_bytes > limits.command_bytes or data_set_bytes > limits.instance_bytes:
        log.warning("message longer than allowed; association ended")
        event.assoc.abort()


def keep_alive(assoc: Association) -> None:
    """Restart the idle timer. To be called when the answer to a request took its time."""
    assoc.dul._idle_timer.restart()


@dataclass
class _Connection:
    address: str
    request: socket.socket
    assoc: Association


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
    ) -> None:
        self.limits = limits
        self.offered = contexts
        self.request_queue_size = limits.backlog
        self._connections: list[_Connection] = []
        self._lock = threading.Lock()
        super().__init__(
            ae,
            address,
            ae_title,
            [],
            ssl_context,
            evt_handlers=evt_handlers,
            request_handler=GuardedRequestHandler,
        )

    # accepting

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one connection."""
        connection, address = super().get_request()
        connection.settimeout(self.limits.associate_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Hold the caps, before a thread is made.

        At a cap the oldest connection without an association gives way, so that silent
        connections cannot lock out a peer.
        """
        address = client_address[0]
        with self._lock:
            self._connections = [c for c in self._connections if c.assoc.is_alive()]
            same = [c for c in self._connections if c.address == address]
            for group, cap in (
                (same, self.limits.connections_per_address),
                (self._connections, self.limits.connections),
            ):
                if len(group) >= cap and not self._drop_oldest(group):
                    log.warning("connection refused: too many", extra={"address": address})
                    return False
        return True

    def _drop_oldest(self, group: list[_Connection]) -> bool:
        for connection in group:
            if not connection.assoc.is_established:
                self._connections.remove(connection)
                _shut(connection.request)
                return True
        return False

    def register(self, address: str, request: socket.socket, assoc: Association) -> None:
        """Count a connection; the handler calls this before the association starts."""
        with self._lock:
            self._connections.append(_Connection(address, request, assoc))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a connection that could not be set up; its socket is closed by the caller."""
        log.exception("connection could not be set up", extra={"address": client_address[0]})

    # counting and ending

    def associations(self) -> list[Association]:
        """Return the associations that stand."""
        with self._lock:
            return [c.assoc for c in self._connections if c.assoc.is_established]

    def shutdown(self) -> None:
        """Stop accepting and close the port. Running associations go on."""
        TCPServer.shutdown(self)
        self.server_close()

    def drain(self, drain_s: float) -> None:
        """Wait until the running associations have ended; end those left after ``drain_s``."""
        deadline = _CLOCK.monotonic_s() + drain_s
        while self.associations() and _CLOCK.monotonic_s() < deadline:
            _CLOCK.sleep(0.02)
        with self._lock:
            left = [c for c in self._connections if c.assoc.is_alive()]
        standing = [c for c in left if c.assoc.is_established]
        for connection in standing:
            connection.assoc.abort(block=False)
        for connection in standing:
            connection.assoc.join(timeout=_ABORT_S)
        for connection in left:
            _shut(connection.request)
        for connection in left:
            connection.assoc.join(timeout=_CLOSE_S)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def open_server(
    entity: AE,
    address: tuple[str, int],
    handlers: list[evt.EventHandlerType],
    limits: ServerLimits,
    contexts: list[PresentationContext] | None = None,
) -> GuardedServer:
    """Bind a port through the library's hook. Nothing is accepted before it is served.

    Raises:
        OSError: the address cannot be used.
    """
    server = entity.make_server(
        address,
        contexts=contexts or supported_contexts(),
        evt_handlers=handlers,
        server_class=GuardedServer,
        limits=limits,
    )
    return cast(GuardedServer, server)


def serve_in_thread(server: GuardedServer) -> threading.Thread:
    """Start the accept loop of ``server`` in a daemon thread."""
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="dicom-accept", daemon=True
    )
    thread.start()
    return thread


def bound_port(server: GuardedServer) -> int:
    """Return the port the server listens on."""
    return server.server_address[1]
