"""pynetdicom, set up once for the process.

The library knows these options only as module globals. They are set here, at import, by every
module that uses the library, and never changed afterwards.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from typing import Any, cast

from pydicom import uid
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from dicom_node import __version__
from dicom_node.net.tls import SecurePeer, explain

# Its own event handlers write AE data and identifiers to the log, and cost time
_config.LOG_HANDLER_LEVEL = "none"
# A file is sent as its stored bytes; without this it is decoded and encoded again
_config.STORE_SEND_CHUNKED_DATASET = True
# Its messages and tracebacks can quote what the peer sent: nothing of it reaches a log
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)

IMPLEMENTATION_CLASS_UID = uid.UID("2.25.318044128690466021157316254712063741523")
"""PS3.7 D.3.3.2.1: names this implementation to its peers (UUID-derived, PS3.5 B.2)."""
IMPLEMENTATION_VERSION_NAME = f"PROSTATE_{__version__}"[:16]


class ClosingSocket(AssociationSocket):
    """The library's socket wrapper, but it closes its socket also when the peer went first.

    Over TLS, bytes on the wire need not hold data: a ticket, an alert, half a record. There is
    something to read only when the first byte of it is decrypted; the library would block.
    """

    _ahead = b""
    _failed: OSError | None = None

    @property
    def ready(self) -> bool:
        """Whether there is data, the end, or an error to be read."""
        if self._ahead or self._failed:
            return True
        ready: bool = super().ready
        connection: socket.socket | None = self.socket
        if not ready or not isinstance(connection, ssl.SSLSocket):
            return ready
        timeout_s = connection.gettimeout()
        try:
            connection.settimeout(0)
            self._ahead = connection.recv(1)
            connection.settimeout(timeout_s)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            connection.settimeout(timeout_s)
            return False
        except OSError as error:
            self._failed = error
        return True

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, fewer where the peer closed.

        Raises:
            OSError: the connection failed.
        """
        if self._failed is not None:
            raise self._failed
        if not self._ahead:
            return self._read(nr_bytes)
        ahead, self._ahead = bytearray(self._ahead), b""
        return ahead + self._read(nr_bytes - len(ahead))

    def _read(self, nr_bytes: int) -> bytearray:
        data: bytearray = super().recv(nr_bytes)
        return data

    def _shutdown_socket(self) -> None:
        connection: socket.socket | None = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class _RequestorSocket(ClosingSocket):
    """Bounds every wait of an outgoing connection, and opens TLS where the peer wants it."""

    entity: Entity

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect; then wait for the peer ``stall_s`` at most in each read and write."""
        try:
            self._open(primitive.address_info.as_tuple)
        except (OSError, ValueError) as error:
            self.entity.problem = explain(error)
            if self.socket is not None:
                self._shutdown_socket()
                self.socket = None
            primitive.result = "Evt17"  # PS3.8 9.2: no connection
        else:
            self._is_connected = True
            evt.trigger(self.assoc, evt.EVT_CONN_OPEN, {"address": primitive.address_info.as_tuple})
            primitive.result = "Evt2"  # connected
        self.provider_queue.put(primitive)
        self._ready.set()

    def _open(self, address: tuple[Any, ...]) -> None:
        plain = cast(socket.socket, self.socket)
        plain.settimeout(self.assoc.connection_timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.connect(address)
        self.assoc.requestor.address_info = AddressInformation.from_tuple(plain.getsockname())
        if (secure := self.entity.secure) is not None:
            # the deadline set above holds for the whole handshake
            wrapped = secure.context.wrap_socket(
                plain, server_hostname=secure.host, do_handshake_on_connect=False
            )
            self.socket = wrapped
            wrapped.do_handshake()
            secure.check(wrapped)
        cast(socket.socket, self.socket).settimeout(self.entity.stall_s)

    def recv(self, nr_bytes: int) -> bytearray:
        """As the base class; keeps why TLS failed: the peer may refuse us after the handshake."""
        try:
            return super().recv(nr_bytes)
        except ssl.SSLError as error:
            self.entity.problem = explain(error)
            raise


class Entity(AE):
    """An application entity whose outgoing connections are bounded."""

    stall_s = 30.0
    """longest time in which the peer takes, or sends the rest of, not a single byte"""
    secure: SecurePeer | None = None
    """how to open TLS; None: plain"""
    problem = ""
    """why its connection failed, in plain words"""
    rejection = ""
    """the reason of an A-ASSOCIATE-RJ that came"""

    def _create_socket(self, assoc: Any, address: Any, _tls_args: Any) -> AssociationSocket:
        connection = _RequestorSocket(assoc, address=address)
        connection.entity = self
        return connection

    def _keep_rejection(self, event: evt.Event) -> None:
        """Keep the reason: one that comes at once the library takes for a failed connection."""
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejection = event.pdu.reason_str

    def associate(self, *arguments: Any, **settings: Any) -> Association:
        """As the base class; answers reach who waits for them, and a release overtakes nothing."""
        handlers = settings.get("evt_handlers") or []
        settings["evt_handlers"] = [*handlers, (evt.EVT_PDU_RECV, self._keep_rejection)]
        assoc = super().associate(*arguments, **settings)
        mend(assoc, self.stall_s)
        return assoc


class Inbox:
    """What an association's loop takes of the messages that came: requests, until it is closed.

    The library pauses the loop of an association before it sends a request. Between the loop's
    look at the pause and its look at the queue there is a gap: a peer that answers within it loses
    its answer to the loop, which drops it, and the request is waited for until its time is over.
    Where nothing is there yet, nothing is taken: what comes a moment later can be an answer, or
    the word that the association has ended.
    """

    def __init__(self, dimse: DIMSEServiceProvider) -> None:
        self._dimse, self._take = dimse, dimse.get_msg
        self._closed = False
        self._idle = threading.Event()

    def get_msg(self, block: bool = False) -> Any:
        """As the library's, for who sent a request (``block``) and for the loop."""
        if not block:
            if self._closed:
                self._idle.set()
                return None, None
            _, first = self._dimse.peek_msg()
            if first is None or getattr(first, "MessageIDBeingRespondedTo", None) is not None:
                return None, None
        return self._take(block)

    def close(self, limit_s: float) -> bool:
        """Let the loop take nothing more; return whether what it had taken is answered in time."""
        self._closed = True
        return self._idle.wait(limit_s)


def mend(assoc: Association, limit_s: float) -> None:
    """Cure two races between an association that was opened here and its own loop.

    An answer reaches who waits for it (`Inbox`). A request of the peer that is being served is
    answered before the association is released: nothing may follow a release (PS3.8 9.2.3, state
    7), and the library's thread would end on what does.
    """
    inbox = Inbox(assoc.dimse)
    release = assoc.release

    def release_after_answers() -> None:
        if not assoc.is_established:
            return
        if inbox.close(limit_s):
            release()
        else:
            assoc.abort()

    assoc.dimse.get_msg = inbox.get_msg  # type: ignore[method-assign]
    assoc.release = release_after_answers  # type: ignore[method-assign]


def application_entity(ae_title: str) -> Entity:
    """Return an application entity that names this implementation."""
    entity = Entity(ae_title=ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return entity
