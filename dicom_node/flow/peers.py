"""The peers of the node: those of the configuration file and those made while it runs.

Peers of the file are read-only here. A name stands in one place only. What is read is what is
valid now: a peer that was just added counts from the next question on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dicom_node.clock import SystemClock
from dicom_node.config import NO_CERTIFICATE, NodeConfig, PeerConfig, Plaintext
from dicom_node.domain.profile import DEFAULT_KINDS, kinds_to_encode
from dicom_node.errors import ConfigError, WrongUseError
from dicom_node.flow.audit import AuditTrail
from dicom_node.net.access import Address, resolve
from dicom_node.store.rows import Destination
from dicom_node.store.store import Store

FILE = "file"
_LOOPBACK = ("127.0.0.0/8", "::1")
DATABASE = "database"


@dataclass(frozen=True)
class PeerEntry:
    """A peer and where it is configured: ``file`` (read-only) or ``database``."""

    peer: PeerConfig
    origin: str


def all_peers(store: Store, config: NodeConfig) -> list[PeerEntry]:
    """Every peer, those of the file first; a name of the file hides the same name elsewhere."""
    entries = [PeerEntry(peer, FILE) for peer in config.peers]
    named = {entry.peer.name for entry in entries}
    live = [PeerEntry(peer, DATABASE) for peer in store.peers() if peer.name not in named]
    return entries + live


def find_peer(store: Store, config: NodeConfig, name: str) -> PeerConfig:
    """Return the peer of a name.

    Raises:
        ConfigError: there is none.
    """
    for entry in all_peers(store, config):
        if entry.peer.name == name:
            return entry.peer
    raise ConfigError(f"there is no peer '{name}'", "see dicom-node peers list")


def add_peer(store: Store, config: NodeConfig, peer: PeerConfig) -> None:
    """Add a peer to the database.

    Raises:
        ConfigError: the name is taken, in the file or the database, or the peer uses TLS and
            the node has no certificate.
    """
    _speaks_tls(config, peer)
    if any(entry.peer.name == peer.name for entry in all_peers(store, config)):
        raise ConfigError(
            f"there is a peer '{peer.name}' already",
            "change it (peers edit), remove it, or choose another name",
        )
    store.peer_add(peer)
    _record(store, config, "added", peer.name, _told(peer))


def change_peer(store: Store, config: NodeConfig, peer: PeerConfig) -> None:
    """Change the peer of this name in the database.

    Raises:
        ConfigError: there is none of that name, it stands in the configuration file, or it uses
            TLS and the node has no certificate.
    """
    _speaks_tls(config, peer)
    _not_of_file(config, peer.name)
    if not store.peer_change(peer):
        raise ConfigError(f"there is no peer '{peer.name}'", "see dicom-node peers list")
    _record(store, config, "changed", peer.name, _told(peer))


def remove_peer(store: Store, config: NodeConfig, name: str) -> None:
    """Remove a peer of the database.

    Raises:
        ConfigError: there is none of that name, or it stands in the configuration file.
    """
    _not_of_file(config, name)
    if not store.peer_remove(name):
        raise ConfigError(f"there is no peer '{name}'", "see dicom-node peers list")
    _record(store, config, "removed", name, name)


def _speaks_tls(config: NodeConfig, peer: PeerConfig) -> None:
    if peer.tls and not config.tls.has_certificate:
        raise WrongUseError("the node has no certificate to speak TLS with", NO_CERTIFICATE)


def _not_of_file(config: NodeConfig, name: str) -> None:
    if any(peer.name == name for peer in config.peers):
        raise ConfigError(
            f"peer '{name}' stands in the configuration file", "change it there, then restart"
        )


def _told(peer: PeerConfig) -> str:
    return f"{address_of(peer)}, may_send {peer.may_send}, gets results {peer.receives_results}"


def _record(store: Store, config: NodeConfig, what: str, name: str, detail: str) -> None:
    trail = AuditTrail(store, config, SystemClock())
    trail.peer_changed(what, name, detail)
    trail.flush()


def senders(store: Store, config: NodeConfig) -> list[PeerConfig]:
    """Every peer, for the decision who may associate.

    While a canary is on its way its sender is one of them, unless a peer has its AE title.
    """
    found = [entry.peer for entry in all_peers(store, config)]
    own = config.canary.ae_title
    if not any(peer.ae_title == own for peer in found) and store.canary_going_on() is not None:
        found.append(canary_peer(config))
    return found


def canary_peer(config: NodeConfig) -> PeerConfig:
    """Return who sends canaries: this machine, with the node's certificate where it shows one."""
    from dicom_node.net.pem import fingerprint  # the receiver needs it for this alone

    tls = config.node.plaintext is Plaintext.OFF
    certificate = config.tls.certificate
    addresses = {config.node.bind, config.tls.bind} - {"", "0.0.0.0", "::"}  # noqa: S104 - left out
    return PeerConfig(
        name="canary", ae_title=config.canary.ae_title, host="127.0.0.1",
        from_=(*_LOOPBACK, *sorted(map(str, _addresses(addresses)))), tls=tls,
        certificate=(fingerprint(certificate),) if certificate else (),
    )  # fmt: skip


def _addresses(hosts: set[str]) -> Iterator[Address]:
    for host in hosts:
        yield from resolve(host)


def destinations(store: Store, config: NodeConfig) -> list[Destination]:
    """Where results go, and which kinds each destination gets."""
    return [
        destination_of(store, entry.peer)
        for entry in all_peers(store, config)
        if entry.peer.receives_results
    ]


def destination_of(store: Store, peer: PeerConfig) -> Destination:
    """Return what a peer wants, and what it is known not to take."""
    return Destination(
        peer.name,
        tuple(str(kind) for kind in peer.result_kinds),
        store.refused_by(peer.name, address_of(peer)),
    )


def address_of(peer: PeerConfig) -> str:
    """Return where a peer answers; what it takes is known of this address only."""
    return f"{peer.ae_title}@{peer.host}:{peer.port}"


def encoding_wanted(to: Sequence[Destination]) -> tuple[frozenset[str], bool]:
    """Return the kinds to encode, and whether in every form that a refusal could call for.

    It follows from what the destinations want alone, so that a repeated run makes the same files.
    """
    if not to:
        return frozenset(str(kind) for kind in DEFAULT_KINDS), False
    return kinds_to_encode(kind for destination in to for kind in destination.kinds), True
