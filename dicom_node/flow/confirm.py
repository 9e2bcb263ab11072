"""Asking destinations whether they keep what they took, one of three honest ends for each object.

``verified``: the destination committed to it, or shows it when asked. ``failed``: it did not keep
it, several sendings long. ``sent``: it took it and nobody knows more; plain words say why.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from pydicom.uid import generate_uid

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig, PeerConfig, TlsSection
from dicom_node.crash_points import fault
from dicom_node.domain.confirmation import PUSH_MODEL, Method, Verdict, after_absence, method
from dicom_node.domain.policy import BACKOFF_CAP_S
from dicom_node.flow.peers import address_of
from dicom_node.net.commitment import LINGER_S, Asked, TakeReport, request_commitment
from dicom_node.net.query import Shown, Wanted, find_instances
from dicom_node.net.references import Report
from dicom_node.store.rows import SentRow
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

LEASE_S = 300.0
"""What was taken to be asked about is due again after this time, if the asking died."""
NOT_OFFERED = "not confirmed: the destination offers neither storage commitment nor a query"
SWITCHED_OFF = "not confirmed: verify is off for this destination"
NO_ANSWER = "storage commitment was requested, no answer came"


class Asks(Protocol):
    """The network side of asking."""

    def commitment(
        self, peer: PeerConfig, transaction_uid: str, rows: Sequence[SentRow], take: TakeReport
    ) -> Asked:
        """Request storage commitment."""

    def query(self, peer: PeerConfig, rows: Sequence[SentRow]) -> list[Shown]:
        """Look for each object."""


class DicomAsks:
    """Asks over DICOM associations, under the AE title of the node, with its certificate."""

    def __init__(
        self, calling_ae: str, tls: TlsSection | None = None, linger_s: float = LINGER_S
    ) -> None:
        self._calling_ae = calling_ae
        self._tls = tls
        self._linger_s = linger_s

    def commitment(
        self, peer: PeerConfig, transaction_uid: str, rows: Sequence[SentRow], take: TakeReport
    ) -> Asked:
        """N-ACTION (PS3.4 J.3.2)."""
        references = [(row.sop_class_uid, row.sop_instance_uid) for row in rows]
        return request_commitment(
            peer, transaction_uid, references, calling_ae=self._calling_ae, take=take,
            linger_s=self._linger_s, tls=self._tls,
        )  # fmt: skip

    def query(self, peer: PeerConfig, rows: Sequence[SentRow]) -> list[Shown]:
        """C-FIND (PS3.4 C.4.1)."""
        wanted = [Wanted(row.study_uid, row.series_uid, row.sop_instance_uid) for row in rows]
        return find_instances(peer, wanted, calling_ae=self._calling_ae, tls=self._tls)


class Confirmer:
    """Asks destinations about sent objects. Safe for one thread for each destination."""

    def __init__(
        self, store: Store, config: NodeConfig, clock: Clock, asks: Asks | None = None
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._asks = asks or DicomAsks(config.node.ae_title, config.tls)

    def peers_due(self) -> list[str]:
        """Destinations that have something to be asked about now."""
        return self._store.peers_with_checks()

    def forget(self, peer: str) -> None:
        """Ask a destination that is gone nothing any more."""
        self._store.end_checks(peer, "not confirmed: the destination was removed")

    def ask(self, peer: PeerConfig) -> None:
        """Ask one destination about everything that is due."""
        how = method(peer.verify, self._taken(peer))
        if how is Method.NONE:
            off = peer.verify == "off"
            self._store.end_checks(peer.name, SWITCHED_OFF if off else NOT_OFFERED)
            return
        rows = self._store.claim_checks(peer.name, LEASE_S)
        fault("checks-claimed")
        due = [row for row in rows if not self._asked_enough(row, how)]
        if due and how is Method.COMMITMENT:
            self._commit(peer, due)
        elif due:
            self._query(peer, due)

    def _taken(self, peer: PeerConfig) -> Mapping[str, bool]:
        known = self._store.acceptances(peer.name, address_of(peer))
        return {row["sop_class_uid"]: row["accepted"] for row in known}

    def _asked_enough(self, row: SentRow, how: Method) -> bool:
        """End the questions about an object whose requests were never answered."""
        if how is Method.COMMITMENT and after_absence(row.checks) is Verdict.LOST:
            self._store.judge_sent(row, Verdict.UNKNOWABLE, f"{NO_ANSWER} ({row.checks} times)")
            return True
        return False

    # storage commitment

    def _commit(self, peer: PeerConfig, rows: Sequence[SentRow]) -> None:
        transaction_uid = generate_uid(prefix=None)
        wait_s = self._config.delivery.commitment_wait_h * 3600
        self._store.open_commitment(transaction_uid, peer.name, rows, wait_s)
        fault("commitment-opened")

        def take(report: Report) -> bool:
            return take_report(self._store, [peer.name], report)

        asked = self._asks.commitment(peer, transaction_uid, rows, take)
        log.info(
            "storage commitment requested",
            extra={"peer": peer.name, "objects": len(rows), "accepted": asked.accepted},
        )
        if asked.accepted:
            self._store.count_checks(rows, "storage commitment requested, not answered yet")
            return
        if not asked.sent:
            self._store.drop_commitment(transaction_uid)
        if not asked.offered:
            self._store.learn(peer.name, address_of(peer), (), {PUSH_MODEL})
        for row in rows:
            if not asked.offered and peer.verify != "commitment":
                self._store.ask_at(row, self._clock.now_s(), asked.detail)
            elif asked.sent:
                self._store.count_checks([row], "")
                self._store.judge_sent(row, Verdict.ASK_AGAIN, asked.detail)
            else:
                self._later(row, asked.detail)

    # query

    def _query(self, peer: PeerConfig, rows: Sequence[SentRow]) -> None:
        for row, shown in zip(rows, self._asks.query(peer, rows), strict=True):
            if shown.found is None:
                self._later(row, shown.detail)
                continue
            self._store.count_checks([row], "")
            if shown.found:
                self._store.judge_sent(row, Verdict.KEPT, "kept: the destination shows it")
            else:
                verdict = after_absence(row.checks + 1)
                self._store.judge_sent(row, verdict, "the destination does not show it when asked")

    def _later(self, row: SentRow, detail: str) -> None:
        """Ask again: the destination could not be asked. The patience is that of a delivery."""
        patience_s = self._config.delivery.give_up_h * 3600
        if self._clock.now_s() - row.sent_at_s > patience_s:
            self._store.judge_sent(row, Verdict.UNKNOWABLE, detail)
        else:
            self._store.ask_at(row, self._clock.now_s() + BACKOFF_CAP_S, detail)


def take_report(store: Store, peers: Sequence[str], report: Report) -> bool:
    """Take the report of a destination; False where it was not asked for."""
    failed = {uid: reason for uid, (_, reason) in report.failed.items()}
    known = store.commitment_answered(report.transaction_uid, peers, set(report.kept), failed)
    log.info(
        "storage commitment answered",
        extra={"known": known, "kept": len(report.kept), "failed": len(failed)},
    )
    return known
