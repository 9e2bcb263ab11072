"""What the node proposes as association requestor, by activity: a table for the statement.

The activities themselves build their contexts where they are; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.domain.confirmation import PUSH_MODEL, SERVICES, STUDY_ROOT_FIND
from dicom_node.domain.profile import SOP_CLASSES
from dicom_node.net.contexts import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    MR_IMAGE,
    UNCOMPRESSED,
    VERIFICATION,
    examined_contexts,
    proposed_contexts,
)


@dataclass(frozen=True)
class Proposal:
    """What the node proposes on the associations that it opens for one activity."""

    activity: str
    when: str
    contexts: list[PresentationContext]


def proposals() -> list[Proposal]:
    """Return what the node proposes, by activity.

    For results: with an object of every class to send, stored in Explicit VR Little Endian.
    """
    results = [(sop_class, EXPLICIT_VR_LITTLE_ENDIAN) for sop_class in SOP_CLASSES]
    return [
        Proposal("Send results", "result objects are due", proposed_contexts(results, [])),
        Proposal(
            "Ask what a peer takes",
            "with each sending, for the classes not sent",
            proposed_contexts((), (*SOP_CLASSES, *SERVICES)),
        ),
        Proposal("Examine a peer", "`dicom-node peers probe`", examined_contexts()),
        Proposal(
            "Send the test study",
            "`dicom-node peers probe --send`; of the results what the peer would get",
            proposed_contexts([(MR_IMAGE, EXPLICIT_VR_LITTLE_ENDIAN), *results], []),
        ),
        Proposal(
            "Ask for storage commitment",
            "after a sending, where the peer offers it",
            [build_context(PUSH_MODEL, list(UNCOMPRESSED))],
        ),
        Proposal(
            "Answer a request for storage commitment",
            "a peer that may send has asked; the node takes the SCP role by role selection",
            [build_context(PUSH_MODEL, list(UNCOMPRESSED))],
        ),
        Proposal(
            "Look for a sent object",
            "after a sending, where the peer offers queries and no storage commitment",
            [build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))],
        ),
        Proposal(
            "Verify a peer",
            "`dicom-node peers echo`, `dicom-node peers probe`",
            [build_context(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])],
        ),
    ]
