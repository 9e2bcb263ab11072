"""What came from a peer, and what was refused of it: the other direction of a connection."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import Any

from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.domain.probing import StepOutcome, last_heard
from dicom_node.flow.peers import all_peers
from dicom_node.net.access import Refusal
from dicom_node.net.refusal_words import WORDS
from dicom_node.store.store import Store
from dicom_node.store.times import seconds_of

_REFUSALS = 1000
_OF_ONE_CLASS = ("sop_class_not_supported", "transfer_syntax_not_supported")
"""Refusals that leave the association standing."""


def heard_from(
    store: Store, config: NodeConfig, peer: PeerConfig, now_s: float
) -> tuple[StepOutcome, str, str]:
    """Say whether anything ever came from a peer, and what was refused of it lately.

    Returns:
        The outcome, what was found, and what to do.
    """
    if not peer.may_send:
        return StepOutcome.SKIPPED, "it may not send here by its settings", ""
    (seen,) = store.senders_seen([peer.ae_title])
    received = None
    if seen.address is not None and seen.received_at_s is not None:
        received = (seen.address, seen.received_at_s)
    return last_heard(received, _refusals(store, config, peer), now_s)


def _refusals(store: Store, config: NodeConfig, peer: PeerConfig) -> list[dict[str, Any]]:
    """Refusals of its AE title, and of unknown ones from its addresses."""
    addresses = _addresses(peer)
    others = {entry.peer.ae_title for entry in all_peers(store, config)} - {peer.ae_title}
    return [
        {
            **one, "words": _words(one["reason"]), "last_at_s": seconds_of(one["last_at"]),
            "same_ae": one["calling_ae"] == peer.ae_title,
        }
        for one in store.refusals(_REFUSALS)
        if (one["calling_ae"] == peer.ae_title or one["address"] in addresses)
        and one["calling_ae"] not in others
        and not one["reason"].startswith(_OF_ONE_CLASS)
    ]  # fmt: skip


def _words(reason: str) -> str:
    kind = reason.partition(":")[0]
    known = Refusal(kind) if kind in set(Refusal) else None
    return WORDS.get(known, reason).rstrip(".")


def _addresses(peer: PeerConfig) -> frozenset[str]:
    """Single addresses that are this peer's: of its host, and those it sends from."""
    found = set()
    for text in (peer.host, *peer.from_):
        with suppress(ValueError):
            network = ipaddress.ip_network(text)
            if network.num_addresses == 1:
                found.add(str(network.network_address))
    with suppress(OSError, UnicodeError):
        found |= {str(one[4][0]) for one in socket.getaddrinfo(peer.host, None)}
    return frozenset(found)
