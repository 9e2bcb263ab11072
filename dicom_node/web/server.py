"""Serves the status pages with uvicorn, in a process of its own."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable

import uvicorn

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.errors import ConfigError
from dicom_node.store.store import Store
from dicom_node.web.app import create_app


def serve(
    config: NodeConfig,
    port: int | None,
    announce: Callable[[dict[str, object]], None],
    stop: threading.Event,
) -> None:
    """Bind, announce the port, serve until ``stop`` is set.

    Raises:
        ConfigError: the pages would be reachable from the network; they have no login.
        OSError: the address or port cannot be used.
    """
    _require_loopback(config.web.bind)
    listener = socket.create_server((config.web.bind, config.web.port if port is None else port))
    bound = listener.getsockname()[1]
    store = Store(config.database_url, clock=SystemClock())
    # outside the main thread uvicorn leaves the signals alone: the process stops it itself
    server = uvicorn.Server(
        uvicorn.Config(create_app(config, store), log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    announce({"port": bound, "describe": f"status pages on http://{config.web.bind}:{bound}/"})
    stop.wait()
    server.should_exit = True
    thread.join(timeout=5)
    store.close()


def _require_loopback(address: str) -> None:
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = address == "localhost"
    if not loopback:
        raise ConfigError(
            f"the status pages have no login and may not be bound to {address}",
            "set web.bind to 127.0.0.1 and use a reverse proxy with a login",
        )
