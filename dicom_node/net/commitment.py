"""Storage commitment as SCU (N-ACTION out, PS3.4 J.3.2) and reports of the SCP (N-EVENT-REPORT)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.presentation import build_context

from dicom_node.config import TlsSection
from dicom_node.crash_points import fault
from dicom_node.domain.confirmation import PUSH_MODEL, PUSH_MODEL_INSTANCE
from dicom_node.domain.status import (
    INVALID_ARGUMENT,
    NO_SUCH_EVENT_TYPE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
)
from dicom_node.net.contexts import UNCOMPRESSED
from dicom_node.net.limits import SenderLimits
from dicom_node.net.references import (
    ALL_KEPT,
    COMMIT_ACTION,
    SOME_FAILED,
    MalformedReference,
    Report,
    read_report,
    report_dataset,
    request_dataset,
)
from dicom_node.net.sender import Destination, associate

log = logging.getLogger(__name__)

MAX_INFORMATION_BYTES = 4 << 20
LINGER_S = 2.0
"""So long the association of a request stays open for its report; a later one opens its own."""
# PS3.7 C.5: the SOP class, or the operation on it, is not for this requester
_NOT_OFFERED = frozenset({0x0112, 0x0118, 0x0122, 0x0123, 0x0124, 0x0211})

TakeReport = Callable[[Report], bool]
"""Takes a report; False: nobody asked for it."""


@dataclass(frozen=True)
class Asked:
    """What became of a request.

    ``offered`` False: the peer does no storage commitment. ``sent`` False: the request did not go
    out; where it did, a report may follow whatever the answer was.
    """

    accepted: bool
    offered: bool
    sent: bool
    detail: str = ""


def request_commitment(
    peer: Destination,
    transaction_uid: str,
    references: Sequence[tuple[str, str]],
    *,
    calling_ae: str,
    take: TakeReport,
    linger_s: float = LINGER_S,
    tls: TlsSection | None = None,
) -> Asked:
    """Ask a peer to commit to (SOP class, SOP instance) references.

    Its report is taken on this association if it comes within ``linger_s``.
    """
    came = threading.Event()

    def on_report(event: evt.Event) -> tuple[int, None]:
        status = answer_report(event, take)
        came.set()
        return status, None

    context = build_context(PUSH_MODEL, list(UNCOMPRESSED))
    handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, on_report)]
    bounds = SenderLimits()
    opening = associate(peer, [context], calling_ae, bounds, tls=tls, handlers=handlers)
    with opening as (assoc, problem):
        if assoc is None or not assoc.is_established:
            refused = assoc is not None and bool(assoc.rejected_contexts)
            return Asked(False, not refused, False, problem)
        asked = _ask(assoc, request_dataset(transaction_uid, references))
        if asked.accepted:
            came.wait(linger_s)
        return asked


def _ask(assoc: Association, request: Dataset) -> Asked:
    try:
        answer, _ = assoc.send_n_action(request, COMMIT_ACTION, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    except (RuntimeError, ValueError) as error:
        return Asked(False, True, False, f"not asked: {type(error).__name__}")
    fault("commitment-requested")
    status = answer.get("Status")
    if status is None:
        return Asked(False, True, True, "no answer to the request for storage commitment")
    if status == SUCCESS:
        return Asked(True, True, True)
    detail = f"request for storage commitment refused with status 0x{int(status):04X}"
    return Asked(False, int(status) not in _NOT_OFFERED, True, detail)


def answer_report(event: evt.Event, take: TakeReport) -> int:
    """Hand a report over and return the status to answer with (PS3.7 10.1.1.1.8)."""
    request = cast(N_EVENT_REPORT, event.request)
    if request.EventTypeID not in (ALL_KEPT, SOME_FAILED):
        return NO_SUCH_EVENT_TYPE
    if too_long(request.EventInformation):
        return RESOURCE_LIMITATION
    try:
        taken = take(read_report(event.event_information))
        fault("report-taken")
        return SUCCESS if taken else INVALID_ARGUMENT
    except MalformedReference:
        return INVALID_ARGUMENT
    except Exception:  # bytes that are no data set fail in many ways; the peer is told so
        log.exception("report could not be taken")
        return PROCESSING_FAILURE


def too_long(information: BytesIO | None) -> bool:
    """Whether a data set about references is longer than any honest one (G5)."""
    return information is not None and len(information.getbuffer()) > MAX_INFORMATION_BYTES


def send_report(
    peer: Destination, report: Report, *, calling_ae: str, tls: TlsSection | None = None
) -> str:
    """Tell a peer what this node keeps; returns what went wrong, empty where the peer took it."""
    context = build_context(PUSH_MODEL, list(UNCOMPRESSED))
    roles = [build_role(PUSH_MODEL, scp_role=True)]
    with associate(peer, [context], calling_ae, SenderLimits(), tls=tls, roles=roles) as opened:
        assoc, problem = opened
        if assoc is None or not assoc.is_established:
            return problem
        try:
            answer, _ = assoc.send_n_event_report(
                report_dataset(report), report.event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
        except (RuntimeError, ValueError) as error:
            return f"not sent: {type(error).__name__}"
    status = answer.get("Status")
    if status is None:
        return "no answer to the report"
    return "" if status == SUCCESS else f"report refused with status 0x{int(status):04X}"
