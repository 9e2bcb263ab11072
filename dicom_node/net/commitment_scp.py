"""Storage commitment at the port: requests of peers (N-ACTION) and reports on our own requests.

Who asks is written down and answered later from another process, on an association to the address
configured for the peer (PS3.4 J.3.3 leaves the choice to the SCP).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_ACTION

from dicom_node.config import PeerConfig
from dicom_node.crash_points import fault
from dicom_node.domain.confirmation import PUSH_MODEL_INSTANCE
from dicom_node.domain.status import (
    INVALID_ARGUMENT,
    NO_SUCH_ACTION,
    NO_SUCH_INSTANCE,
    NOT_AUTHORISED,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
)
from dicom_node.net.access import AccessList, requester_of
from dicom_node.net.commitment import answer_report, too_long
from dicom_node.net.references import COMMIT_ACTION, MalformedReference, Report, read_request

log = logging.getLogger(__name__)


class Commitments(Protocol):
    """What the port writes down: ``dicom_node.store.store.Store``."""

    def add_pledge(
        self, peer: str, transaction_uid: str, references: Sequence[tuple[str, str]]
    ) -> bool:
        """Take a request; False: too many wait."""

    def commitment_answered(
        self, transaction_uid: str, peers: Collection[str], kept: Collection[str],
        failed: Mapping[str, int | None],
    ) -> bool:  # fmt: skip
        """Take a report; False: nobody asked for it."""


class CommitmentScp:
    """Answers the commitment events of the associations of the port."""

    def __init__(self, access: AccessList, store: Commitments) -> None:
        self._access = access
        self._store = store

    def handlers(self) -> list[evt.EventHandlerType]:
        """Return the handlers for the library's events."""
        return [(evt.EVT_N_ACTION, self.on_action), (evt.EVT_N_EVENT_REPORT, self.on_report)]

    def on_action(self, event: evt.Event) -> tuple[Dataset, None]:
        """Take a peer's request for commitment: success means that it will be answered."""
        try:
            status, comment = self._take(event)
        except MalformedReference as error:
            status, comment = INVALID_ARGUMENT, str(error)
        except Exception:  # bytes that are no data set fail in many ways; the peer is told so
            log.exception("commitment request could not be taken")
            status, comment = PROCESSING_FAILURE, "cannot be processed"
        if status != SUCCESS:
            log.warning("commitment request refused", extra={"status": status, "why": comment})
        return _response(status, comment), None

    def _take(self, event: evt.Event) -> tuple[int, str]:
        request = cast(N_ACTION, event.request)
        if request.ActionTypeID != COMMIT_ACTION:
            return NO_SUCH_ACTION, "no such action"
        if str(request.RequestedSOPInstanceUID) != PUSH_MODEL_INSTANCE:
            return NO_SUCH_INSTANCE, "not the well-known instance"
        if too_long(request.ActionInformation):
            return RESOURCE_LIMITATION, "request too long"
        asking = [peer for peer in self._peers(event) if peer.may_send]
        if not asking:
            return NOT_AUTHORISED, "this peer may not send"
        reachable = [peer for peer in asking if peer.port]
        if not reachable:
            return PROCESSING_FAILURE, "no port is configured here for the answer"
        transaction_uid, references = read_request(event.action_information)
        if not self._store.add_pledge(reachable[0].name, transaction_uid, references):
            return RESOURCE_LIMITATION, "too many requests wait"
        fault("pledge-written")
        return SUCCESS, ""

    def on_report(self, event: evt.Event) -> tuple[int, None]:
        """Take the report of a destination on what this node asked for."""

        def take(report: Report) -> bool:
            names = [peer.name for peer in self._peers(event)]
            failed = {uid: reason for uid, (_, reason) in report.failed.items()}
            return self._store.commitment_answered(
                report.transaction_uid, names, set(report.kept), failed
            )

        return answer_report(event, take), None

    def _peers(self, event: evt.Event) -> Sequence[PeerConfig]:
        return self._access.identify(requester_of(event.assoc))


def _response(status: int, comment: str) -> Dataset:
    response = Dataset()
    response.Status = status
    if comment:
        response.ErrorComment = comment[:64]  # VR LO
    return response
