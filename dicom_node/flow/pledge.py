"""Answering peers that ask this node for storage commitment: truthfully, from spool and database.

An instance is committed to when its row is there and the stored bytes have the digest that was
written down when they came. What retention removed is not held (0112H); it may be sent again.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.crash_points import fault
from dicom_node.domain.policy import backoff_s
from dicom_node.flow.peers import all_peers
from dicom_node.flow.spool import read_stored
from dicom_node.net.commitment import send_report
from dicom_node.net.references import Report
from dicom_node.store.rows import HeldRow, PledgeRow
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

TICK_S = 0.5
LEASE_S = 600.0
SETTLE_S = 30.0
"""So long after a request something that is missing may still come."""
LOOK_AGAIN_S = 10.0
# Failure Reason (0008,1197), PS3.3 C.14.1.1
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_CONFLICT = 0x0119

SendReport = Callable[[PeerConfig, Report], str]


class PledgeLoop:
    """Answers what peers asked. ``run`` goes on until told to stop; ``answer_once`` does a round.

    Args:
        store: the requests.
        config: data folder, AE title, peers of the file, patience.
        clock: the time.
        send: sends a report and returns what went wrong; None: N-EVENT-REPORT.
    """

    def __init__(
        self, store: Store, config: NodeConfig, clock: Clock, send: SendReport | None = None
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._send = send or self._n_event_report

    def run(self, stop: threading.Event) -> None:
        """Answer until ``stop`` is set."""
        while not stop.is_set():
            try:
                self.answer_once()
            except Exception:  # nobody would start this thread again
                log.exception("commitment round failed; it is tried again")
            stop.wait(TICK_S)

    def answer_once(self) -> None:
        """Answer everything that is due."""
        for row in self._store.claim_pledges(LEASE_S):
            fault("pledge-claimed")
            known = {entry.peer.name: entry.peer for entry in all_peers(self._store, self._config)}
            peer = known.get(row.peer)
            if peer is None or not peer.port:
                self._store.pledge_failed(row, "the peer was removed, or has no port")
            else:
                self._answer(peer, row)

    def _answer(self, peer: PeerConfig, row: PledgeRow) -> None:
        report = what_is_held(self._store, self._config.node.data_dir, row)
        now_s = self._clock.now_s()
        missing = any(reason == NO_SUCH_INSTANCE for _, reason in report.failed.values())
        if missing and now_s - row.requested_at_s < SETTLE_S:
            # an instance is acknowledged before its row is there; do not deny what is on its way
            self._store.pledge_retry(row, now_s + LOOK_AGAIN_S, "waits for what is being filed")
            return
        problem = self._send(peer, report)
        log.info(
            "storage commitment reported",
            extra={
                "peer": peer.name, "kept": len(report.kept), "failed": len(report.failed),
                "problem": problem,
            },
        )  # fmt: skip
        if not problem:
            fault("report-sent")
            self._store.pledge_answered(row)
            fault("pledge-answered")
        elif now_s - row.requested_at_s > self._config.delivery.give_up_h * 3600:
            self._store.pledge_failed(row, problem)
        else:
            self._store.pledge_retry(row, now_s + backoff_s(row.attempts, 0.0), problem)

    def _n_event_report(self, peer: PeerConfig, report: Report) -> str:
        config = self._config
        return send_report(peer, report, calling_ae=config.node.ae_title, tls=config.tls)


def what_is_held(store: Store, data_dir: Path, asked: PledgeRow) -> Report:
    """Look at every instance asked about, bytes included."""
    kept: dict[str, str] = {}
    failed: dict[str, tuple[str, int | None]] = {}
    for sop_class, uid in asked.references:
        reason = _failure(store.held(uid), data_dir, sop_class)
        if reason is None:
            kept[uid] = sop_class
        else:
            failed[uid] = (sop_class, reason)
    return Report(asked.transaction_uid, kept, failed)


def _failure(copies: list[HeldRow], data_dir: Path, sop_class: str) -> int | None:
    """Return the Failure Reason of an instance; None where its bytes are there and right."""
    if not copies:
        return NO_SUCH_INSTANCE
    right = [copy for copy in copies if copy.sop_class_uid == sop_class]
    if not right:
        return CLASS_CONFLICT
    return None if all(_intact(copy, data_dir) for copy in right) else PROCESSING_FAILURE


def _intact(copy: HeldRow, data_dir: Path) -> bool:
    path = data_dir / copy.path
    try:
        data = path.read_bytes()
        offset = 0 if copy.whole_file else read_stored(path).dataset_offset
    except (OSError, ValueError):
        return False
    return hashlib.sha256(memoryview(data)[offset:]).hexdigest() == copy.digest
