"""What a C-STORE response means for delivery: one table, a total function over all codes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What becomes of one object after an attempt."""

    SENT = "sent"
    TRANSIENT = "transient"
    """the same bytes may be taken later"""
    PERMANENT = "permanent"
    """the peer will never take this object as it is"""
    UNKNOWN = "unknown"
    """a code outside the standard: tried a few times, then permanent"""


@dataclass(frozen=True)
class InstanceStatus:
    """Outcome of one object in one attempt."""

    sop_instance_uid: str
    outcome: Outcome
    code: int | None
    """status of the C-STORE response; None where there was none"""
    detail: str
    """plain words; empty when sent without remark"""
    not_taken: bool = False
    """the peer does not take objects of this SOP class at all"""


@dataclass(frozen=True)
class CodeRange:
    """Status codes from ``first`` to ``last``, and what they mean for delivery."""

    first: int
    last: int
    outcome: Outcome
    meaning: str


# PS3.4 B.2.3 and PS3.7 Annex C; the first row that holds a code decides
STORE_STATUSES = (
    CodeRange(0x0000, 0x0000, Outcome.SENT, ""),
    CodeRange(0xB000, 0xBFFF, Outcome.SENT, "stored with a warning"),
    CodeRange(0x0001, 0x0001, Outcome.SENT, "stored with a warning"),
    CodeRange(0x0107, 0x0107, Outcome.SENT, "stored with a warning: attribute list"),
    CodeRange(0x0116, 0x0116, Outcome.SENT, "stored with a warning: value out of range"),
    # the UID is derived from the content, so what the peer holds under it is this object
    CodeRange(0x0111, 0x0111, Outcome.SENT, "the peer holds this object already"),
    CodeRange(0xA700, 0xA7FF, Outcome.TRANSIENT, "refused: out of resources"),
    CodeRange(0x0110, 0x0110, Outcome.TRANSIENT, "processing failure"),
    CodeRange(0x0210, 0x0210, Outcome.TRANSIENT, "duplicate invocation"),
    CodeRange(0x0213, 0x0213, Outcome.TRANSIENT, "resource limitation"),
    CodeRange(0xFE00, 0xFE00, Outcome.TRANSIENT, "cancelled by the peer"),
    CodeRange(0x0122, 0x0122, Outcome.PERMANENT, "refused: SOP class not supported"),
    # PS3.2 prints this code for the same meaning
    CodeRange(0x0112, 0x0112, Outcome.PERMANENT, "refused: SOP class not supported"),
    CodeRange(0x0118, 0x0118, Outcome.PERMANENT, "no such SOP class"),
    CodeRange(0x0117, 0x0117, Outcome.PERMANENT, "invalid object instance"),
    CodeRange(0x0119, 0x0119, Outcome.PERMANENT, "class-instance conflict"),
    CodeRange(0x0124, 0x0124, Outcome.PERMANENT, "refused: not authorised"),
    CodeRange(0x0214, 0x0214, Outcome.PERMANENT, "refused: not authorised"),
    CodeRange(0x0211, 0x0212, Outcome.PERMANENT, "operation not understood"),
    CodeRange(0x0105, 0x0106, Outcome.PERMANENT, "invalid attribute"),
    CodeRange(0x0115, 0x0115, Outcome.PERMANENT, "invalid argument"),
    CodeRange(0x0120, 0x0121, Outcome.PERMANENT, "missing attribute"),
    CodeRange(0xA900, 0xA9FF, Outcome.PERMANENT, "data set does not match SOP class"),
    CodeRange(0xC000, 0xCFFF, Outcome.PERMANENT, "cannot understand"),
)


CLASS_NOT_TAKEN = frozenset({0x0112, 0x0118, 0x0122})
"""Statuses that say the SOP class, not the object, is refused."""


def classify(code: int) -> tuple[Outcome, str]:
    """Return what a C-STORE status code means: outcome and plain words. Total over 0-0xFFFF."""
    for row in STORE_STATUSES:
        if row.first <= code <= row.last:
            meaning = f"{row.meaning} (0x{code:04X})" if row.meaning else ""
            return row.outcome, meaning
    return Outcome.UNKNOWN, f"status 0x{code:04X} is not in the standard"
