"""pynetdicom, set up once for the process.

The library knows these options only as module globals. They are set here, at import, by every
module that uses the library, and never changed afterwards.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from pydicom import uid
from pynetdicom import AE, _config
from pynetdicom.transport import T_CONNECT, AssociationSocket

from dicom_node import __version__

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
    """The library's socket wrapper, but it closes its socket also when the peer went first."""

    def _shutdown_socket(self) -> None:
        connection: socket.socket | None = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class _RequestorSocket(ClosingSocket):
    """Bounds the connection after it is open; the library would wait without end."""

    stall_s = 30.0

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect, then wait for the peer ``stall_s`` at most in each read and write."""
        super().connect(primitive)
        if self.socket is not None:
            self.socket.settimeout(self.stall_s)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Entity(AE):
    """An application entity whose outgoing connections are bounded."""

    stall_s = 30.0
    """longest time in which the peer takes, or sends the rest of, not a single byte"""

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> AssociationSocket:
        connection = _RequestorSocket(assoc, address=address)
        connection.tls_args = tls_args
        connection.stall_s = self.stall_s
        return connection


def application_entity(ae_title: str) -> Entity:
    """Return an application entity that names this implementation."""
    entity = Entity(ae_title=ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return entity
