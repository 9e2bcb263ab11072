"""What the node proposes as association requestor, by activity: a table for the statement.

The activities themselves build their contexts where they are; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.domain.profile import SOP_CLASSES
from dicom_node.net.contexts import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
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
            "with each sending, for the classes not sent; `dicom-node peers probe`",
            proposed_contexts((), tuple(SOP_CLASSES)),
        ),
        Proposal(
            "Verify a peer",
            "`dicom-node peers echo`",
            [build_context(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])],
        ),
    ]
