"""DIMSE status codes that the node answers with: the port and the conformance statement read them.

What the codes of other applications mean to this node stands in ``dicom_node.net.outcomes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.8
INVALID_INSTANCE = 0x0117  # PS3.7 C.5.12
OUT_OF_RESOURCES = 0xA700  # PS3.4 B.2.3
CLASS_MISMATCH = 0xA900  # PS3.4 B.2.3: data set does not match SOP class
CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3
NO_SUCH_INSTANCE = 0x0112  # PS3.7 C.5.9, here and below
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
RESOURCE_LIMITATION = 0x0213


@dataclass(frozen=True)
class Answered:
    """A status that the node returns: its name in the standard, and when it is returned."""

    code: int
    meaning: str
    when: str


ANSWERED: Mapping[str, tuple[Answered, ...]] = {
    "C-ECHO": (Answered(SUCCESS, "Success", "always"),),
    "C-STORE": (
        Answered(
            SUCCESS,
            "Success",
            "the instance is durable; or it was held already; or it is a result of this product, "
            "which is acknowledged and not kept",
        ),
        Answered(
            OUT_OF_RESOURCES,
            "Refused: Out of Resources",
            "the disk is nearly full, or disk or database cannot take the instance now; "
            "send it again later",
        ),
        Answered(
            CLASS_MISMATCH,
            "Error: Data Set Does Not Match SOP Class",
            "SOP Class or SOP Instance UID of the data set differs from the command, or the SOP "
            "Class of the command from the presentation context",
        ),
        Answered(
            CANNOT_UNDERSTAND,
            "Error: Cannot Understand",
            "the data set cannot be read, or its Study or Series Instance UID is no UID",
        ),
        Answered(PROCESSING_FAILURE, "Processing Failure", "a fault of the node; send it again"),
        Answered(
            INVALID_INSTANCE,
            "Invalid Object Instance",
            "the Affected SOP Instance UID is no UID, or there is no data set",
        ),
    ),
    "N-ACTION": (
        Answered(SUCCESS, "Success", "the request is written down and will be answered"),
        Answered(PROCESSING_FAILURE, "Processing Failure", "no port is configured for the answer"),
        Answered(NO_SUCH_INSTANCE, "No Such SOP Instance", "not the well-known instance"),
        Answered(INVALID_ARGUMENT, "Invalid Argument", "the request cannot be read"),
        Answered(NO_SUCH_ACTION, "No Such Action", "an action type other than 1"),
        Answered(NOT_AUTHORISED, "Refused: Not Authorized", "the peer may not send"),
        Answered(RESOURCE_LIMITATION, "Resource Limitation", "too long, or too many wait"),
    ),
    "N-EVENT-REPORT": (
        Answered(SUCCESS, "Success", "the report is taken"),
        Answered(PROCESSING_FAILURE, "Processing Failure", "a fault of the node; report again"),
        Answered(NO_SUCH_EVENT_TYPE, "No Such Event Type", "an event type other than 1 and 2"),
        Answered(INVALID_ARGUMENT, "Invalid Argument", "not readable, or nobody asked for it"),
        Answered(RESOURCE_LIMITATION, "Resource Limitation", "the report is too long"),
    ),
}
"""Every status returned, by DIMSE service."""
