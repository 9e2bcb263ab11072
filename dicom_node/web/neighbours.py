"""Asking peers: C-ECHO, and what they take. Few at a time: each holds a thread (G5)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dicom_node.domain.confirmation import SERVICES
from dicom_node.domain.profile import SOP_CLASSES
from dicom_node.errors import NodeError
from dicom_node.flow.peers import address_of, find_peer
from dicom_node.net.sender import EchoResult, echo
from dicom_node.net.sender import probe as ask
from dicom_node.web.console import Console

_AT_ONCE = threading.BoundedSemaphore(4)


@dataclass(frozen=True)
class Answer:
    """What a peer said of a SOP class. ``answer``: taken, not taken, or refused without reason."""

    sop_class_uid: str
    name: str
    used_for: str
    answer: str


def echo_peer(console: Console, name: str) -> EchoResult:
    """Send a C-ECHO to a peer.

    Raises:
        NodeError: there is no such peer, or too many are asked at this moment.
    """
    peer = find_peer(console.store, console.config, name)
    if not peer.port:
        return EchoResult(False, "no port is given, so it cannot be called; it may still send")
    with _one_of_few():
        return echo(peer, calling_ae=console.config.node.ae_title, tls=console.config.tls)


def probe_peer(console: Console, name: str) -> list[Answer]:
    """Ask a peer what it takes; the answer decides what it is sent.

    Raises:
        NodeError: there is no such peer, it does not answer, or too many are asked.
    """
    peer = find_peer(console.store, console.config, name)
    if not peer.port:
        raise NodeError("no port is given, so it cannot be called", "edit the peer")
    classes = {**SOP_CLASSES, **SERVICES}
    with _one_of_few():
        told = ask(
            peer, tuple(classes), calling_ae=console.config.node.ae_title, tls=console.config.tls
        )
    console.store.learn(peer.name, address_of(peer), told.accepted, told.refused)
    return [
        Answer(
            uid, words, use,
            "taken" if uid in told.accepted
            else "not taken" if uid in told.refused else "refused without a reason",
        )
        for uid, (words, use) in classes.items()
    ]  # fmt: skip


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _AT_ONCE.acquire(blocking=False):
        raise NodeError("other peers are asked at this moment", "try again in some seconds")
    try:
        yield
    finally:
        _AT_ONCE.release()
