"""What stands between this node and a port: name, network, TLS; each failure told from the others.

Nothing here speaks DICOM. To learn what listens on a port it is greeted in TLS, which says
nothing of this node: every kind of listener answers that in its own way.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.config import TlsSection
from dicom_node.errors import NodeError
from dicom_node.net.tls import Certificate, certificate_of, explain, secure_peer

CONNECT_S = 5.0
LISTEN_S = 3.0
LATE_ALERT_S = 0.3
"""TLS 1.3 ends the handshake before the peer has judged our certificate (RFC 8446 4.4.2.4)."""
_NAMES_SHOWN = 5


class Listener(StrEnum):
    """What listens on a port, by its first words."""

    TLS = "tls"
    DICOM = "dicom"
    WEB = "web"
    OTHER = "other"
    CLOSES = "closes"
    SILENT = "silent"
    ABSENT = "absent"


@dataclass(frozen=True)
class Reached:
    """Whether a step of the way was made, and in plain words what was found and what to do."""

    ok: bool
    found: str
    advice: str = ""


def resolve(host: str) -> Reached:
    """Look a name up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return Reached(True, f"{host} is an address")
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return Reached(
            False, f"the name {host} is not known here",
            "check the spelling and the name server of this machine, or give the address",
        )  # fmt: skip
    return Reached(True, f"{host} is {', '.join(sorted(found))}")


def connect(host: str, port: int, limit_s: float = CONNECT_S) -> Reached:
    """Try a TCP connection and say what stands in the way."""
    try:
        socket.create_connection((host, port), timeout=limit_s).close()
    except ConnectionRefusedError:
        return Reached(
            False, f"{host} is there, but nothing listens on port {port}",
            "check the port, and that the DICOM service there runs",
        )  # fmt: skip
    except TimeoutError:
        return Reached(
            False, f"{host} does not answer on port {port} within {limit_s:g} s",
            "check the address; a firewall on the way or at the peer may drop what this node sends",
        )  # fmt: skip
    except socket.gaierror:
        return Reached(False, f"the name {host} is not known here", "check it, or give the address")
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return Reached(
                False, f"there is no way to {host} in the network",
                "check the address, and the route and gateway of this machine",
            )  # fmt: skip
        return Reached(False, f"{host} cannot be reached ({error.strerror})", "check the network")
    return Reached(True, f"port {port} is open")


def listener(host: str, port: int, limit_s: float = LISTEN_S) -> Listener:
    """Greet a port in TLS and tell from the first bytes of the answer what listens there."""
    try:
        with socket.create_connection((host, port), timeout=limit_s) as connection:
            connection.sendall(_client_hello())
            first = connection.recv(8)
    except TimeoutError:
        return Listener.SILENT
    except ConnectionResetError:
        return Listener.CLOSES
    except OSError:
        return Listener.ABSENT
    if not first:
        return Listener.CLOSES
    if first[0] in (0x15, 0x16):  # alert, handshake (RFC 8446 5.1)
        return Listener.TLS
    if first[0] in (0x03, 0x07) and len(first) > 1 and first[1] == 0:  # A-ASSOCIATE-RJ, A-ABORT
        return Listener.DICOM
    return Listener.WEB if first.startswith(b"HTTP") else Listener.OTHER


def _client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent and nothing believed
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


# SSL_get_verify_result of OpenSSL (x509_vfy.h): found, advice
_NOT_TRUSTED = (
    "its certificate is signed by an authority that this node does not trust",
    "add the certificate of that authority to the file of tls.ca",
)
_CERTIFICATE_FAILURES = {
    9: ("its certificate is not valid yet", "check the clocks of both machines"),
    10: ("its certificate has expired", "have it renewed at the peer; check the clock here"),
    18: _NOT_TRUSTED, 19: _NOT_TRUSTED, 20: _NOT_TRUSTED, 21: _NOT_TRUSTED,
    23: ("its certificate was revoked", "have a new one issued for the peer"),
    26: ("its certificate may not be used by a server", "have one issued for server use"),
}  # fmt: skip
_OURS = "have the authority of this node's certificate (tls.certificate) trusted at the peer"
# reason words of OpenSSL as `explain` tells them: advice
_TLS_ADVICE = {
    "the other side does not know the authority of our certificate": _OURS,
    "the other side wants a certificate": "set tls.certificate and tls.key of this node",
    "the other side does not speak TLS 1.2 or newer": "have TLS 1.2 or newer switched on there",
    "TLS version too old": "have TLS 1.2 or newer switched on at the peer",
    "no cipher suite in common": "have the BCP 195 profile (PS3.15 B.12) switched on at the peer",
}
_UNTICK = "take TLS off for this peer, or give the port on which it speaks TLS (often 2762)"
_PLAIN = {
    Listener.DICOM: ("the peer speaks DICOM without TLS on this port", _UNTICK),
    Listener.WEB: ("a web server listens on this port", "give its DICOM port"),
    Listener.OTHER: ("what listens on this port does not speak TLS", _UNTICK),
    Listener.CLOSES: ("the peer closes the connection when greeted in TLS", _UNTICK),
    Listener.SILENT: ("the peer does not answer when greeted in TLS", _UNTICK),
}


def secure(host: str, port: int, identities: tuple[str, ...], tls: TlsSection | None) -> Reached:
    """Open TLS as a delivery would, and say what stands in the way."""
    try:
        how = secure_peer(tls, host, identities)
    except NodeError as error:
        return Reached(False, error.message, error.advice)
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_S) as plain,
            closing(how.context.wrap_socket(plain, server_hostname=how.host)) as connection,
        ):
            shown = certificate_of(connection)
            if not shown.belongs_to(identities):
                return _other_name(identities, shown)
            _await_alert(connection)
            return Reached(True, f"{connection.version()}, both certificates accepted")
    except ssl.SSLCertVerificationError as error:
        words = _CERTIFICATE_FAILURES.get(error.verify_code)
        return Reached(False, *(words or (explain(error), "look at its certificate")))
    except OSError as error:
        return _no_handshake(host, port, error)


def _await_alert(connection: ssl.SSLSocket) -> None:
    """Wait a moment for what the peer says of our certificate."""
    connection.settimeout(LATE_ALERT_S)
    try:
        if not connection.recv(1):
            raise ConnectionResetError("closed after the handshake")
    except TimeoutError:
        return  # it waits for us, as a DICOM port does


def _other_name(wanted: tuple[str, ...], shown: Certificate) -> Reached:
    names = ", ".join(sorted(_printable(name) for name in shown.names)[:_NAMES_SHOWN])
    return Reached(
        False,
        f"its certificate is for {names or 'no name'}, not for {', '.join(wanted)}",
        "if that is the right machine, set Certificate of this peer to one of these names, or to "
        f"sha256:{shown.sha256}",
    )


def _no_handshake(host: str, port: int, error: OSError) -> Reached:
    words = explain(error)
    if words in _TLS_ADVICE:
        return Reached(False, words, _TLS_ADVICE[words])
    spoken = listener(host, port)
    if spoken in _PLAIN:
        return Reached(False, *_PLAIN[spoken])
    return Reached(False, f"no TLS connection: {words}", _OURS)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:100]
