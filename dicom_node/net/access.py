"""Who may associate: the called AE title must be ours, the caller a peer that may send.

AE titles are names, not proof; the address is checked with them.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.clock import Clock
from dicom_node.config import PeerConfig

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
    Refusal.TOO_MANY_ASSOCIATIONS: (2, 3, 2),
    Refusal.NODE_UNAVAILABLE: (2, 3, 1),
}


@dataclass(frozen=True)
class Requester:
    """Who asks for an association, as the wire says."""

    calling_ae: str
    called_ae: str
    address: str
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
        from_there = self.identify(who)
        if not from_there:
            return Refusal.ADDRESS_NOT_ALLOWED
        # who gets results reports on their storage, though it may not send images
        if not any(peer.may_send or peer.receives_results for peer in from_there):
            return Refusal.MAY_NOT_SEND
        return None

    def identify(self, who: Requester) -> Sequence[PeerConfig]:
        """Return the peers that ``who`` is, by AE title and address.

        Raises:
            StoreError: the peers cannot be read.
        """
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
        if peer.from_:
            return any(address in network(block) for block in peer.from_)
        return address in self._addresses(peer.host)

    def _addresses(self, host: str) -> tuple[Address, ...]:
        known = self._names.get(host)
        if known is None or self._clock.monotonic_s() - known[0] > NAMES_FRESH_S:
            known = (self._clock.monotonic_s(), resolve(host))
            self._names[host] = known
        return known[1]


def requester_of(assoc: Association) -> Requester:
    """Return who asked for an association."""
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    return Requester(
        calling_ae=str(primitive.calling_ae_title).strip(" "),
        called_ae=str(primitive.called_ae_title).strip(" "),
        address=str(assoc.requestor.address),
        association=assoc,
    )


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
