"""Associations: parameters, bounds, rejections and status codes, as the code has them."""

from __future__ import annotations

from dataclasses import fields

from pynetdicom._globals import APPLICATION_CONTEXT_NAME
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.config import NodeConfig
from dicom_node.conformance.document import Cell, Table
from dicom_node.conformance.sources import field_words
from dicom_node.domain.policy import BACKOFF_CAP_S
from dicom_node.domain.status import ANSWERED
from dicom_node.flow.deliver import BREAKER_AT, TRIES_OF_UNKNOWN
from dicom_node.net.access import NAMES_FRESH_S, PEERS_FRESH_S, REJECTIONS, Refusal
from dicom_node.net.library import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.net.limits import SenderLimits, ServerLimits
from dicom_node.net.outcomes import CLASS_NOT_TAKEN, STORE_STATUSES, Outcome
from dicom_node.results import equipment

_WHEN = {
    Refusal.CALLED_AE_UNKNOWN: "the called AE title is not that of the node",
    Refusal.CALLING_AE_UNKNOWN: "no peer has the calling AE title",
    Refusal.ADDRESS_NOT_ALLOWED: "the peer does not send from this address",
    Refusal.MAY_NOT_SEND: "the peer is not allowed to associate",
    Refusal.TLS_REQUIRED: "the peer is set to TLS and came over the plain port",
    Refusal.CERTIFICATE_NOT_OF_PEER: "over TLS, with a certificate that is not the peer's",
    Refusal.TOO_MANY_ASSOCIATIONS: "too many associations stand, in all or of one AE title",
    Refusal.NODE_UNAVAILABLE: "the list of peers cannot be read",
}
_NEXT = {
    Outcome.SENT: "counts as delivered; a warning is kept with the delivery",
    Outcome.TRANSIENT: "sent again, the same bytes, until `delivery.give_up_h` is over",
    Outcome.PERMANENT: "not sent again; the delivery has failed",
    Outcome.UNKNOWN: f"sent again; after {TRIES_OF_UNKNOWN} attempts as a permanent failure",
}
_CLASS_REFUSED = (
    "counts for the whole class: another form or object stands in where there is one, "
    "else the delivery has failed"
)


def parameters() -> Table:
    """Return what is the same for every association (Annex N: association parameters)."""
    server, sender = ServerLimits(), SenderLimits()
    rows: list[tuple[Cell, ...]] = [
        ("Application Context Name", str(APPLICATION_CONTEXT_NAME)),
        ("Implementation Class UID", str(IMPLEMENTATION_CLASS_UID)),
        ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
        ("Implementation Class UID in the files of results", equipment.IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name in them", equipment.IMPLEMENTATION_VERSION),
        ("Maximum PDU length received, as acceptor", f"{server.pdu_bytes} bytes"),
        ("Maximum PDU length received, as requestor", f"{sender.pdu_bytes} bytes"),
        ("Associations accepted at a time", server.associations),
        ("Associations opened at a time", "one for each destination, and one for each command"),
        ("Presentation contexts proposed on one association", "at most 128 (PS3.8 9.3.2.2)"),
        ("Asynchronous operations", "not negotiated: one operation at a time"),
        ("SCP/SCU role selection", "see the role of the node in each context accepted"),
        ("Extended negotiation of SOP classes", "none"),
        ("User identity negotiation", "none; an identity in a request is not looked at"),
    ]
    return Table("association_parameters", "Association parameters", ("name", "value"), tuple(rows))


def bounds() -> Table:
    """Return every bound in time and size, of the port and of the sending side."""
    rows: list[tuple[Cell, ...]] = []
    for side, limits in (("acceptor", ServerLimits()), ("requestor", SenderLimits())):
        words = field_words(type(limits))
        rows += [
            (side, entry.name, getattr(limits, entry.name), words[entry.name])
            for entry in fields(limits)
        ]
    return Table("bounds", "Bounds", ("side", "name", "value", "meaning"), tuple(rows))


def rejections() -> Table:
    """Return when an association is rejected, and with what (PS3.8 9.3.4)."""
    rows: list[tuple[Cell, ...]] = []
    for refusal, (result, source, reason) in REJECTIONS.items():
        answer = A_ASSOCIATE()
        answer.result, answer.result_source, answer.diagnostic = result, source, reason
        rows.append(
            (
                _WHEN.get(refusal, refusal.value.replace("_", " ")),
                refusal.value,
                f"{result} {answer.result_str}",
                f"{source} {answer.source_str}",
                f"{reason} {answer.reason_str}",
            )
        )
    columns = ("when", "recorded as", "result", "source", "reason")
    return Table("rejections", "Association rejections", columns, tuple(rows))


def answered() -> Table:
    """Return the status codes that the node returns, by service."""
    rows = tuple(
        (service, f"{status.code:04X}", status.meaning, status.when)
        for service, statuses in ANSWERED.items()
        for status in statuses
    )
    columns = ("service", "status", "meaning", "when")
    return Table("status_returned", "Status codes returned", columns, rows)


def understood() -> Table:
    """Return what a C-STORE response means for the delivery of a result."""
    rows = [
        (
            f"{row.first:04X}" if row.first == row.last else f"{row.first:04X}-{row.last:04X}",
            row.meaning or "success",
            row.outcome.value,
            _CLASS_REFUSED if row.first in CLASS_NOT_TAKEN else _NEXT[row.outcome],
        )
        for row in STORE_STATUSES
    ]
    rows.append(("any other", "not in the standard", Outcome.UNKNOWN.value, _NEXT[Outcome.UNKNOWN]))
    columns = ("status", "meaning", "outcome", "behaviour")
    return Table("status_understood", "Status codes of a C-STORE response", columns, tuple(rows))


def retry_policy(config: NodeConfig) -> Table:
    """Return how results are sent again."""
    limits = SenderLimits()
    rows = (
        ("No connection, rejection, abort, no answer in time", "the destination rests, then again"),
        ("Rest between attempts", f"grows from attempt to attempt, up to {BACKOFF_CAP_S:g} s"),
        (
            "Failures in a row that let the whole destination rest",
            f"{BREAKER_AT}; at once where there was no answer",
        ),
        (
            "Answer to one C-STORE",
            f"{limits.answer_s:g} s, and 1 s for each {limits.least_bytes_per_s} bytes",
        ),
        ("Given up after", f"{config.delivery.give_up_h:g} h"),
        ("Order", "within a revision images first, then the reports that refer to them"),
        ("Bytes", "each object is encoded once and sent from its stored file every time"),
    )
    return Table("delivery_policy", "Delivery of results", ("case", "behaviour"), rows)


def access_rules() -> Table:
    """Return who may associate (Annex N: association level security)."""
    rows = (
        ("Called AE title", "must be that of the node; upper and lower case count"),
        ("Calling AE title", "must be that of a configured peer that is allowed to associate"),
        ("Address", "must be the peer's host, or lie in one of its `from` blocks (IPv4, IPv6)"),
        ("Certificate", "over TLS it must be the peer's; a peer set to TLS may not come without"),
        ("A change of peers counts after", f"{PEERS_FRESH_S:g} s, without a restart"),
        ("Addresses of a host name are looked up again after", f"{NAMES_FRESH_S:g} s"),
        ("Refused requesters", "shown by `dicom-node status` with the reason"),
    )
    return Table("access_rules", "Who may associate", ("check", "rule"), rows)
