"""Asking peers from the console: C-ECHO at once, examinations beside the requests.

Few at a time: each holds a thread (G5).
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.domain.probing import Finding
from dicom_node.errors import NodeError
from dicom_node.flow.peers import address_of, find_peer
from dicom_node.flow.probe import Order, examine
from dicom_node.net.sender import EchoResult, echo
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

AT_ONCE = 4
_KEPT = 50
_END_S = 2.0
_BUSY = ("other peers are asked at this moment", "try again in some seconds")


@dataclass
class Run:
    """An examination that runs, or has ended: then its profile is in the store."""

    peer: PeerConfig
    send: bool
    findings: list[Finding] = field(default_factory=list)
    problem: str = ""
    thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether there is no outcome yet."""
        return self.thread is not None and self.thread.is_alive()


class Neighbours:
    """Asks peers for the pages and the API; remembers the last examinations it ran."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._stop = threading.Event()

    def echo(self, store: Store, config: NodeConfig, name: str) -> EchoResult:
        """Send a C-ECHO to a peer.

        Raises:
            NodeError: there is no such peer, or too many are asked at this moment.
        """
        peer = find_peer(store, config, name)
        if not peer.port:
            return EchoResult(False, "no port is given, so it cannot be called; it may still send")
        with self._one_of_few():
            return echo(peer, calling_ae=config.node.ae_title, tls=config.tls)

    def begin(self, store: Store, config: NodeConfig, clock: Clock, order: Order) -> Run:
        """Begin an examination; it runs in a thread, under the name of the caller.

        Raises:
            NodeError: this peer is being examined, or too many are.
        """
        peer = order.peer
        with self._lock:
            before = self._runs.get(peer.name)
            if before is not None and before.running:
                raise NodeError(f"{peer.name} is being examined", "wait until that has ended")
            if not self._slots.acquire(blocking=False):
                raise NodeError(*_BUSY)
            made = self._runs[peer.name] = Run(peer, order.send)
            self._runs.move_to_end(peer.name)
            context = contextvars.copy_context()  # who acts stands in the audit trail
            asked = Order(peer, order.send, made.findings.append, self._stop)
            made.thread = threading.Thread(
                target=context.run, args=[self._run, made, store, config, clock, asked],
                name="examine-peer", daemon=True,
            )  # fmt: skip
            made.thread.start()
            self._forget_old()
        return made

    def find(self, peer: PeerConfig) -> Run | None:
        """Return the examination of a peer that ran last; None where its address has changed."""
        with self._lock:
            found = self._runs.get(peer.name)
        same = found is not None and address_of(found.peer) == address_of(peer)
        return found if same else None

    def close(self) -> None:
        """End what runs after its step; wait for it a moment."""
        self._stop.set()
        with self._lock:
            threads = [run.thread for run in self._runs.values() if run.thread is not None]
        for thread in threads:
            thread.join(_END_S)

    def _run(self, made: Run, store: Store, config: NodeConfig, clock: Clock, order: Order) -> None:
        try:
            examine(store, config, clock, order)
        except NodeError as error:
            made.problem = str(error)
        except Exception:
            log.exception("an examination failed")
            made.problem = "the examination failed; see the log of the web process"
        finally:
            self._slots.release()

    def _forget_old(self) -> None:
        ended = [name for name, run in self._runs.items() if not run.running]
        for name in ended[: max(0, len(self._runs) - _KEPT)]:
            del self._runs[name]

    @contextmanager
    def _one_of_few(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise NodeError(*_BUSY)
        try:
            yield
        finally:
            self._slots.release()
