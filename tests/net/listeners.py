"""Ports that answer as told: what a wrong address may lead to."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Talk = Callable[[socket.socket], None]
_LIMIT_S = 60.0
_DRAIN_S = 0.5


@contextmanager
def port_that(talk: Talk) -> Iterator[int]:
    """Open a port on loopback; each connection is handed to ``talk``, then closed."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connection.settimeout(_LIMIT_S)
            with connection:
                try:
                    talk(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        ended.set()
        thread.join(_LIMIT_S)
        server.close()


def says(answer: bytes) -> Talk:
    """Wait for some bytes, answer, and read until the other side goes, for a moment.

    Not for longer: the next connection waits, and some only go when this side has gone.
    """

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_DRAIN_S)
        while connection.recv(4096):
            pass

    return talk


def silent(connection: socket.socket) -> None:
    """Take everything and say nothing."""
    while connection.recv(4096):
        pass


def over_tls(context: ssl.SSLContext, then: Talk = silent) -> Talk:
    """Speak TLS."""

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            then(secured)

    return talk
