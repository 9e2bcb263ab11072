"""Serves the console with uvicorn, in a process of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, Plaintext
from dicom_node.errors import WrongUseError
from dicom_node.net.listening import is_loopback
from dicom_node.store.store import Store
from dicom_node.web.app import create_app, create_console

CONNECTIONS = 100
"""So many requests and open connections at once; more are answered 503 (G5)."""
KEEP_ALIVE_S = 15
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


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
    store = Store(config.database_url, clock=SystemClock())
    console = create_console(config, store)
    console.trail.start()
    server = _Server(uvicorn.Config(create_app(console), **_options(config)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    announce({"port": bound, "describe": _describe(config, store)})
    stop.wait()
    server.should_exit = True
    thread.join(timeout=5)
    console.rehearsals.close()
    console.trail.close()
    store.close()


def check_listening(config: NodeConfig) -> None:
    """Check that the console may be served as configured.

    Raises:
        WrongUseError: it may not; says why and what to set.
    """
    web = config.web
    if web.certificate:
        _context(config)
        return
    if web.plaintext is Plaintext.OFF:
        raise WrongUseError(
            "web.plaintext is off and there is no certificate", "set web.certificate and web.key"
        )
    if web.plaintext is Plaintext.LOOPBACK and not is_loopback(web.bind):
        raise WrongUseError(
            f"web.bind is {web.bind}, where passwords sent without TLS can be read on the way",
            'set web.certificate and web.key, or say web.plaintext = "network"',
        )


def _context(config: NodeConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    try:
        context.load_cert_chain(config.web.certificate, config.web.key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise WrongUseError(
            f"web.certificate and web.key cannot be used: {error}",
            "check both files; the key has no passphrase",
        ) from None
    return context


def _options(config: NodeConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "log_level": "warning", "lifespan": "off", "access_log": False, "server_header": False,
        "limit_concurrency": CONNECTIONS, "timeout_keep_alive": KEEP_ALIVE_S,
        "proxy_headers": False, "h11_max_incomplete_event_size": 32 * 1024,
    }  # fmt: skip
    if config.web.certificate:
        context = _context(config)
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


class _Server(uvicorn.Server):
    """Leaves the signals to the process, which stops the server itself."""

    def install_signal_handlers(self) -> None:
        """Install none."""
