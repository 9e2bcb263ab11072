"""Who may associate: the called AE title must be ours, the caller a peer that may send.

AE titles are names, not proof; the address is checked with them, and over TLS the certificate.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.clock import Clock
from dicom_node.config import PeerConfig
from dicom_node.net.tls import Certificate, certificate_of

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PEERS_FRESH_S = 0.5
"""A peer added or removed by another process counts after this time at the latest."""
NAMES_FRESH_S = 60.0
"""The addresses of a host name are looked up again after this time."""


class Refusal(StrEnum):
    """Why an association or a SOP class was refused."""

    CALLED_AE_UNKNOWN = "called_ae_unknown"
    CALLING_AE_UNKNOWN = "calling_ae_unknown"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    MAY_NOT_SEND = "may_not_send"
    TLS_REQUIRED = "tls_required"
    CERTIFICATE_NOT_OF_PEER = "certificate_not_of_peer"
    TLS_FAILED = "tls_failed"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_ASSOCIATIONS = "too_many_associations"
    NODE_UNAVAILABLE = "node_unavailable"
    SOP_CLASS_NOT_SUPPORTED = "sop_class_not_supported"
    TRANSFER_SYNTAX_NOT_SUPPORTED = "transfer_syntax_not_supported"


REJECTIONS: dict[Refusal, tuple[int, int, int]] = {
    # result, source, reason of A-ASSOCIATE-RJ (PS3.8 9.3.4)
    Refusal.CALLED_AE_UNKNOWN: (1, 1, 7),
    Refusal.CALLING_AE_UNKNOWN: (1, 1, 3),
    Refusal.ADDRESS_NOT_ALLOWED: (1, 1, 3),
    Refusal.MAY_NOT_SEND: (1, 1, 3),
    Refusal.TLS_REQUIRED: (1, 1, 3),
    Refusal.CERTIFICATE_NOT_OF_PEER: (1, 1, 3),
    Refusal.TOO_MANY_ASSOCIATIONS: (2, 3, 2),
    Refusal.NODE_UNAVAILABLE: (2, 3, 1),
}


@dataclass(frozen=True)
class Requester:
    """Who asks for an association, as the wire says."""

    calling_ae: str
    called_ae: str
    address: str
    certificate: Certificate | None = None
    """verified and shown over TLS; None on the plain port"""
    association: Association | None = field(default=None, compare=False, repr=False)


class AccessList:
    """Decides about requesters from a live list of peers."""

    def __init__(
        self, ae_title: str, read_peers: Callable[[], Sequence[PeerConfig]], clock: Clock
    ) -> None:
        self._ae_title = ae_title
        self._clock = clock
        self._read_peers = read_peers
        self._lock = threading.Lock()
        self._peers: Sequence[PeerConfig] = ()
        self._read_at = float("-inf")
        self._names: dict[str, tuple[float, tuple[Address, ...]]] = {}
        self._sources: tuple[Network, ...] = ()
        self._looked_at = float("-inf")
        self._looking = threading.Lock()

    def check(self, who: Requester) -> Refusal | None:
        """Return why ``who`` is refused, or None where it may associate.

        Raises:
            StoreError: the peers cannot be read.
        """
        if who.called_ae != self._ae_title:
            return Refusal.CALLED_AE_UNKNOWN
        named = [peer for peer in self.peers() if peer.ae_title == who.calling_ae]
        if not named:
            return Refusal.CALLING_AE_UNKNOWN
        from_there = self._addressed(who)
        if not from_there:
            return Refusal.ADDRESS_NOT_ALLOWED
        # who gets results reports on their storage, though it may not send images
        welcome = [peer for peer in from_there if peer.may_send or peer.receives_results]
        if not welcome:
            return Refusal.MAY_NOT_SEND
        return _proven(welcome, who.certificate)

    def is_source(self, text: str) -> bool:
        """Whether a peer sends from this address, as far as is known now. Never waits.

        A peer that was just added, or a name whose address changed, counts a moment later.
        """
        if self._clock.monotonic_s() - self._looked_at > PEERS_FRESH_S:
            self._looked_at = self._clock.monotonic_s()
            threading.Thread(target=self.look, name="dicom-sources", daemon=True).start()
        address = parse_address(text)
        return any(address in block for block in self._sources)

    @property
    def sources(self) -> tuple[Network, ...]:
        """The addresses that peers send from, as far as is known now."""
        return self._sources

    def look(self) -> None:
        """Read the addresses of the peers anew; one at a time, others return at once."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._looked_at = self._clock.monotonic_s()
            self._sources = tuple(block for peer in self.peers() for block in self._blocks(peer))
        except Exception:
            log.exception("peers could not be read")
        finally:
            self._looking.release()

    def identify(self, who: Requester) -> Sequence[PeerConfig]:
        """Return the peers that ``who`` is: AE title, address, and over TLS the certificate.

        Raises:
            StoreError: the peers cannot be read.
        """
        return [peer for peer in self._addressed(who) if _has_proven(peer, who.certificate)]

    def _addressed(self, who: Requester) -> Sequence[PeerConfig]:
        address = parse_address(who.address)
        return [
            peer
            for peer in self.peers()
            if peer.ae_title == who.calling_ae and self._sends_from(peer, address)
        ]

    def peers(self) -> Sequence[PeerConfig]:
        """Return the peers, read anew when the last reading is no longer fresh."""
        with self._lock:
            if self._clock.monotonic_s() - self._read_at > PEERS_FRESH_S:
                self._peers = self._read_peers()
                self._read_at = self._clock.monotonic_s()
            return self._peers

    def _sends_from(self, peer: PeerConfig, address: Address) -> bool:
        return any(address in block for block in self._blocks(peer))

    def _blocks(self, peer: PeerConfig) -> list[Network]:
        if peer.from_:
            return [network(block) for block in peer.from_]
        return [ipaddress.ip_network(address) for address in self._addresses(peer.host)]

    def _addresses(self, host: str) -> tuple[Address, ...]:
        known = self._names.get(host)
        if known is None or self._clock.monotonic_s() - known[0] > NAMES_FRESH_S:
            known = (self._clock.monotonic_s(), resolve(host))
            self._names[host] = known
        return known[1]


def _proven(peers: Sequence[PeerConfig], certificate: Certificate | None) -> Refusal | None:
    """Hold a peer to its word: TLS where it was agreed, and then only with its own certificate."""
    if any(_has_proven(peer, certificate) for peer in peers):
        return None
    return Refusal.TLS_REQUIRED if certificate is None else Refusal.CERTIFICATE_NOT_OF_PEER


def _has_proven(peer: PeerConfig, certificate: Certificate | None) -> bool:
    return not peer.tls if certificate is None else certificate.belongs_to(peer.identities)


def requester_of(assoc: Association) -> Requester:
    """Return who asked for an association."""
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    return Requester(
        calling_ae=str(primitive.calling_ae_title).strip(" "),
        called_ae=str(primitive.called_ae_title).strip(" "),
        address=str(assoc.requestor.address),
        certificate=_certificate(assoc),
        association=assoc,
    )


def _certificate(assoc: Association) -> Certificate | None:
    wrapper = assoc.dul.socket
    connection = wrapper.socket if wrapper is not None else None
    return certificate_of(connection) if isinstance(connection, ssl.SSLSocket) else None


def parse_address(text: str) -> Address:
    """Return an address; IPv4 written as IPv6 (``::ffff:10.1.2.3``) becomes IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def network(block: str) -> Network:
    """Return an address block; host bits may be set."""
    return ipaddress.ip_network(block, strict=False)


def resolve(host: str) -> tuple[Address, ...]:
    """Return the addresses of a host; none where its name cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        log.warning("host name of a peer cannot be resolved", extra={"host": host})
        return ()
    return tuple({parse_address(str(entry[4][0])) for entry in found})
