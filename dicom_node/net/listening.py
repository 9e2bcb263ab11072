"""Which ports the node opens: plain DICOM, DICOM over TLS, or both, each on its own port."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from dicom_node.config import NodeConfig, Plaintext
from dicom_node.errors import ConfigError, WrongUseError
from dicom_node.net.access import resolve
from dicom_node.net.tls import server_context


@dataclass(frozen=True)
class Listener:
    """An address to listen on; ``context`` is None for plain DICOM."""

    address: str
    port: int
    context: ssl.SSLContext | None = None


def listeners(config: NodeConfig) -> list[Listener]:
    """Return the ports to open, the plain one first.

    Raises:
        WrongUseError: no port is left, plain DICOM would be reachable from the network without
            the configuration saying so, or the files of TLS cannot be used.
    """
    node, tls = config.node, config.tls
    found = []
    if node.plaintext is not Plaintext.OFF:
        if node.plaintext is Plaintext.LOOPBACK and not is_loopback(node.bind):
            raise WrongUseError(
                f"node.bind is {node.bind}, where plain DICOM can be read on the way",
                'use TLS ([tls], node.plaintext = "off"), or say node.plaintext = "network"',
            )
        found.append(Listener(node.bind, node.port))
    if tls.enabled:
        found.append(Listener(tls.bind or node.bind, tls.port, server_context(tls)))
    if not found:
        raise WrongUseError(
            "no DICOM port is open: node.plaintext is off and tls.enabled is false",
            "set tls.enabled = true",
        )
    return found


def cannot_listen(listener: Listener, error: OSError) -> ConfigError:
    """Turn an address that cannot be bound into words."""
    return ConfigError(
        f"cannot listen on {listener.address}:{listener.port}: {error.strerror or error}",
        "choose another address or port, or stop the program that uses it",
    )


def is_loopback(host: str) -> bool:
    """Whether every address of a host is this machine's loopback."""
    addresses = resolve(host) if host else ()
    return bool(addresses) and all(address.is_loopback for address in addresses)
