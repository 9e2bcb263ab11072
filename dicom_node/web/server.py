"""Serves the console with uvicorn, in a process of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from dicom_node.config import NodeConfig
from dicom_node.flow.messages import Messenger
from dicom_node.flow.watch import Watch
from dicom_node.path_canary import PathCanary
from dicom_node.pulse import Pulse
from dicom_node.store.shared_clock import clock_of
from dicom_node.store.store import Store
from dicom_node.web.app import create_app, create_console
from dicom_node.web.listening import check_listening, web_context
from dicom_node.web.patience import PatientProtocol

CONNECTIONS = 100
"""So many requests and open connections at once; more are answered 503 (G5)."""
KEEP_ALIVE_S = 15


def serve(
    config: NodeConfig,
    port: int | None,
    announce: Callable[[dict[str, object]], None],
    stop: threading.Event,
) -> None:
    """Bind, announce the port, serve until ``stop`` is set.

    Raises:
        WrongUseError: passwords would be readable on the network without the configuration saying
            so, or the certificate cannot be used.
        OSError: the address or port cannot be used.
    """
    check_listening(config)
    listener = socket.create_server((config.web.bind, config.web.port if port is None else port))
    bound = listener.getsockname()[1]
    web = config.web.model_copy(update={"port": bound})
    config = config.model_copy(update={"web": web})
    store = Store(config.database_url, clock=clock_of(config.database_url))
    console = create_console(config, store)
    console.trail.start()
    # outside the main thread uvicorn leaves the signals alone: the process stops it itself
    server = uvicorn.Server(uvicorn.Config(create_app(console), **_options(config)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    pulse = Pulse(store, console.clock, "web", ports={"port": bound})
    pulse.start()
    canary = PathCanary(store, config, console.clock)
    beside = [
        threading.Thread(target=loop.run, args=[stop], name=name, daemon=True)
        for name, loop in (
            ("watch", Watch(store, config, console.clock, canary)),
            ("messenger", Messenger(store, config, console.clock)),
        )
    ]
    for one in beside:
        one.start()
    announce({"port": bound, "describe": _describe(config, store)})
    stop.wait()
    pulse.stop()
    server.should_exit = True
    thread.join(timeout=5)
    for one in beside:
        one.join(timeout=5)
    console.neighbours.close()
    console.rehearsals.close()
    console.trail.close()
    store.close()


def _options(config: NodeConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "log_level": "warning", "lifespan": "off", "access_log": False, "server_header": False,
        "limit_concurrency": CONNECTIONS, "timeout_keep_alive": KEEP_ALIVE_S,
        "proxy_headers": False, "http": PatientProtocol, "h11_max_incomplete_event_size": 32 * 1024,
    }  # fmt: skip
    if config.web.certificate:
        context = web_context(config)
        found |= {
            "ssl_certfile": config.web.certificate, "ssl_keyfile": config.web.key,
            "ssl_context_factory": lambda _config, _default: context,
        }  # fmt: skip
    return found


def _describe(config: NodeConfig, store: Store) -> list[str]:
    lines = [f"web console on {config.web.address}/"]
    if not store.accounts():
        lines.append("nobody can log in there yet: dicom-node users add NAME --role admin")
    return lines
