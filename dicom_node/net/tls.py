"""TLS for DICOM: the BCP 195 profile (PS3.15 B.12; RFC 8996, RFC 9325), mutual, bound to a peer.

Both sides show a certificate. An authority of ``tls.ca`` must have signed the other one, and it
must be the certificate of the peer: it bears one of the peer's names, or has its fingerprint.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.config import NO_CERTIFICATE, TlsSection
from dicom_node.errors import WrongUseError

# RFC 9325 4.2: authenticated encryption with forward secrecy; TLS 1.3 has no other suites.
# Level 2 refuses keys below 112 bits of strength (RSA below 2048)
TLS12_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:@SECLEVEL=2"
)
_FAILURES = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no certificate",
    "UNSUPPORTED_PROTOCOL": "TLS version too old",
    "NO_SHARED_CIPHER": "no cipher suite in common",
    "HTTP_REQUEST": "not TLS",
    "WRONG_VERSION_NUMBER": "not TLS",
    "RECORD_LAYER_FAILURE": "not TLS",
    "PACKET_LENGTH_TOO_LONG": "not TLS",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not know the authority of our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other side wants a certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side does not speak TLS 1.2 or newer",
}


@dataclass(frozen=True)
class Certificate:
    """What identifies the other side: names and addresses of its certificate, and its SHA-256."""

    names: frozenset[str]
    sha256: str

    def belongs_to(self, identities: Iterable[str]) -> bool:
        """Whether it bears one of ``identities``: names, addresses, or ``sha256:FINGERPRINT``."""
        own = self.names | {f"sha256:{self.sha256}"}
        return any(_same_form(identity) in own for identity in identities)


@dataclass(frozen=True)
class SecurePeer:
    """How to open TLS to one peer."""

    context: ssl.SSLContext
    host: str
    """named to the peer in the handshake (RFC 6066 3)"""
    identities: tuple[str, ...]

    def check(self, connection: ssl.SSLSocket) -> None:
        """Raise ``SSLError`` where the certificate shown is not the peer's."""
        if not certificate_of(connection).belongs_to(self.identities):
            wanted = ", ".join(self.identities)
            raise ssl.SSLError(f"the certificate shown is not of this peer (wanted: {wanted})")


def server_context(settings: TlsSection) -> ssl.SSLContext:
    """Return the context of the port: TLS 1.2 or newer, the other side must show a certificate.

    Raises:
        WrongUseError: a file is absent, is no PEM file, or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # no tickets: nothing to read or steal between connections. TLS 1.2 can still resume a session
    # from this process's memory, a few minutes long and with the certificate it began with
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return _prepared(context, settings)


def client_context(settings: TlsSection) -> ssl.SSLContext:
    """Return the context of an outgoing connection; the name is checked by ``SecurePeer``.

    Raises:
        WrongUseError: as ``server_context``; also where no certificate is set.
    """
    if not settings.has_certificate:
        raise WrongUseError("TLS is wanted, but the node has no certificate", NO_CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a fingerprint may stand for the name
    return _prepared(context, settings)


def secure_peer(settings: TlsSection | None, host: str, identities: Sequence[str]) -> SecurePeer:
    """Return how to open TLS to a peer. The files are read anew: a renewed certificate counts.

    Raises:
        WrongUseError: as ``client_context``.
    """
    return SecurePeer(client_context(settings or TlsSection()), host, tuple(identities))


def _prepared(context: ssl.SSLContext, settings: TlsSection) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # PS3.15 B.12; RFC 8996
    context.set_ciphers(TLS12_SUITES)
    context.verify_mode = ssl.CERT_REQUIRED
    for name in ("certificate", "key", "ca", "crl"):
        _require_file(f"tls.{name}", getattr(settings, name))
    _load_own(context, settings)
    _load_authorities(context, "tls.ca", settings.ca)
    if settings.crl:
        _load_authorities(context, "tls.crl", settings.crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _require_file(setting: str, path: str) -> None:
    try:
        if path:
            Path(path).read_bytes()
    except OSError as error:
        raise WrongUseError(
            f"{setting}: cannot read {path} ({error.strerror})", "check the path and its rights"
        ) from None


def _load_own(context: ssl.SSLContext, settings: TlsSection) -> None:
    def refuse() -> str:
        raise WrongUseError(
            "tls.key is encrypted and nobody is there to type its passphrase",
            "store it without one, readable by the user of the node alone",
        )

    try:
        context.load_cert_chain(settings.certificate, settings.key, password=refuse)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        raise WrongUseError(
            "tls.key does not belong to tls.certificate"
            if mismatch
            else "tls.certificate or tls.key is not a usable PEM file",
            "name the certificate of this node and its own private key",
        ) from None


def _load_authorities(context: ssl.SSLContext, setting: str, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise WrongUseError(
            f"{setting}: {path} holds nothing in PEM form that can be used",
            "give it as PEM (BEGIN ... END)",
        ) from None


def certificate_of(connection: ssl.SSLSocket) -> Certificate:
    """Return the certificate that the other side has shown; the handshake has verified it."""
    shown: dict[str, Any] = connection.getpeercert() or {}
    encoded = connection.getpeercert(binary_form=True) or b""
    return Certificate(_names(shown), hashlib.sha256(encoded).hexdigest())


def _names(shown: dict[str, Any]) -> frozenset[str]:
    alternative = [
        value for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "IP Address")
    ]
    if alternative:
        return frozenset(_same_form(name) for name in alternative)
    # RFC 6125 6.4.4: the common name counts only where there is no alternative name
    subject = [pair for group in shown.get("subject", ()) for pair in group]
    return frozenset(_same_form(value) for key, value in subject if key == "commonName")


def _same_form(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")


def explain(error: Exception) -> str:
    """Say in a few plain words why a connection failed; nothing in it comes from the other side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""
        return _FAILURES.get(reason, reason.replace("_", " ").lower() or str(error.args[-1]))
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__


def own_certificate(settings: TlsSection) -> dict[str, Any]:
    """Return the node's own certificate as ``getpeercert`` does, found valid today.

    It is shown in a handshake of the node with itself, in memory.

    Raises:
        WrongUseError: a file cannot be used, or the certificate is not valid; says why.
    """
    server = server_context(settings)
    server.verify_mode = ssl.CERT_NONE
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trusted as it is
    client.load_verify_locations(cafile=settings.certificate)
    try:
        return _handshake_in_memory(server, client)
    except ssl.SSLError as error:
        raise WrongUseError(
            f"tls.certificate: {explain(error)}", "have a new certificate made"
        ) from None


def _handshake_in_memory(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides: Sequence[ssl.SSLObject] = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    open_sides = list(sides)
    while open_sides:
        for side in tuple(open_sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            open_sides.remove(side)
    return sides[0].getpeercert() or {}
