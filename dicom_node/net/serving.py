"""The life of a port: bind it, accept in a thread, wait at the end for what still runs."""

from __future__ import annotations

import threading
from typing import cast

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity as AE
from pynetdicom.presentation import PresentationContext

from dicom_node.clock import SystemClock
from dicom_node.net.connections import Connections
from dicom_node.net.contexts import supported_contexts
from dicom_node.net.limits import ServerLimits
from dicom_node.net.server import Guard, GuardedServer

_CLOCK = SystemClock()  # the kernel's timeouts run on real time too
_ABORT_S = 0.5  # for an A-ABORT to go out
_CLOSE_S = 2.0  # for a thread to see that its connection is closed


def open_server(
    entity: AE,
    address: tuple[str, int],
    handlers: list[evt.EventHandlerType],
    limits: ServerLimits,
    contexts: list[PresentationContext] | None = None,
    guard: Guard | None = None,
    kind: type[GuardedServer] = GuardedServer,
) -> GuardedServer:
    """Bind a port through the library's hook. Nothing is accepted before it is served.

    ``guard``: None for a plain port that shares its caps with no other. ``kind``: the class.

    Raises:
        OSError: the address cannot be used.
    """
    server = entity.make_server(
        address,
        contexts=contexts or supported_contexts(),
        evt_handlers=handlers,
        server_class=kind,
        limits=limits,
        guard=guard or Guard(Connections(limits)),
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


def drain(connections: Connections, drain_s: float) -> None:
    """Wait until the running associations have ended; end those left after ``drain_s``."""
    deadline = _CLOCK.monotonic_s() + drain_s
    while connections.associations() and _CLOCK.monotonic_s() < deadline:
        _CLOCK.sleep(0.02)
    left = connections.living()
    standing = [one.assoc for one in left if one.assoc and one.assoc.is_established]
    for assoc in standing:
        assoc.abort(block=False)
    for assoc in standing:
        assoc.join(timeout=_ABORT_S)
    for one in left:
        one.shut()
    for one in left:
        if one.assoc is not None and one.assoc.ident is not None:
            one.assoc.join(timeout=_CLOSE_S)
