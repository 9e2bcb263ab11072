"""Why senders are refused, in plain words, with what to do."""

from __future__ import annotations

from dicom_node.net.access import Refusal

UNKNOWN, ADDRESS = Refusal.CALLING_AE_UNKNOWN, Refusal.ADDRESS_NOT_ALLOWED

WORDS: dict[Refusal | None, str] = {
    Refusal.CALLING_AE_UNKNOWN: "No peer has this AE title. Is it one of your senders? Allow it.",
    Refusal.ADDRESS_NOT_ALLOWED: (
        "The AE title is known, but it came from another address than agreed."
    ),
    Refusal.CALLED_AE_UNKNOWN: (
        "It called this node by another AE title. Correct the called AE title at the sender."
    ),
    Refusal.MAY_NOT_SEND: "This peer is known, but it may not send. Edit it to allow that.",
    Refusal.TLS_REQUIRED: "It came without TLS, which was agreed with this peer.",
    Refusal.CERTIFICATE_NOT_OF_PEER: "Its certificate is a good one, but not that of this peer.",
    Refusal.TLS_FAILED: "The TLS connection could not be made. See the reason.",
    Refusal.TOO_MANY_CONNECTIONS: "It opened too many connections at once.",
    Refusal.TOO_MANY_ASSOCIATIONS: "It opened too many associations at once.",
    Refusal.NODE_UNAVAILABLE: "The node could not take it at that moment.",
    Refusal.SOP_CLASS_NOT_SUPPORTED: "It offered a kind of object that this node does not take.",
    Refusal.TRANSFER_SYNTAX_NOT_SUPPORTED: "It offered no transfer syntax that this node takes.",
}
