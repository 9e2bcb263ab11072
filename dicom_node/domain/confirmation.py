"""Whether a destination keeps what it took: storage commitment (PS3.4 J), else a query (PS3.4 C).

Pure: what was asked and answered goes in; what to do with a sent object comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

PUSH_MODEL = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class (PS3.4 J.3)."""
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP Instance (PS3.4 J.3.5)."""
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2)."""

SERVICES: Mapping[str, tuple[str, str]] = {
    PUSH_MODEL: ("Storage Commitment Push Model", "confirmation that results are kept"),
    STUDY_ROOT_FIND: ("Study Root Query/Retrieve - FIND", "check that results are kept"),
}
"""What a destination is asked for beside storage: name in PS3.6, and what it is used for."""

FIRST_CHECK_S = 5.0
"""From the sending of an object to the first question: archives file what they took."""
MAX_CHECKS = 3
"""So often a destination is asked about one sending."""
MAX_LOSSES = 3
"""So often an object is sent again that a destination did not keep."""
_WAITS_S = (60.0, 600.0)


class Check(StrEnum):
    """How a destination confirms (``verify`` of a peer)."""

    AUTO = "auto"
    COMMITMENT = "commitment"
    QUERY = "query"
    OFF = "off"


class Method(StrEnum):
    """How to ask now."""

    COMMITMENT = "commitment"
    QUERY = "query"
    NONE = "none"


class Verdict(StrEnum):
    """What an answer says of one sent object."""

    KEPT = "kept"
    LOST = "lost"
    ASK_AGAIN = "ask_again"
    UNKNOWABLE = "unknowable"
    """asking does not help: the object stays sent"""


FAILURE_REASONS: Mapping[int, tuple[Verdict, str]] = {
    0x0110: (Verdict.LOST, "processing failure"),
    0x0112: (Verdict.LOST, "no such object"),
    0x0119: (Verdict.LOST, "another SOP class under this UID"),
    0x0122: (Verdict.UNKNOWABLE, "the destination commits to no objects of this class"),
    0x0131: (Verdict.ASK_AGAIN, "transaction UID used twice"),
    0x0213: (Verdict.ASK_AGAIN, "resource limitation"),
}
"""Failure Reason (0008,1197) of a commitment, PS3.3 C.14.1.1."""


def judge_failure(reason: int | None) -> tuple[Verdict, str]:
    """Return what a Failure Reason means for the object: total, an unknown one counts as lost."""
    if reason is None:
        return Verdict.LOST, "no reason given"
    known = FAILURE_REASONS.get(reason)
    return known or (Verdict.LOST, f"failure reason 0x{reason:04X}")


def method(check: Check, taken: Mapping[str, bool]) -> Method:
    """Decide how to ask a destination. ``taken``: SOP class to whether it accepts it."""
    if check is Check.OFF:
        return Method.NONE
    if check is not Check.AUTO:
        return Method(check)
    if taken.get(PUSH_MODEL):
        return Method.COMMITMENT
    return Method.QUERY if taken.get(STUDY_ROOT_FIND) else Method.NONE


def next_check_s(checks: int) -> float | None:
    """Seconds until the next question after ``checks`` of them; None: no further one."""
    if checks >= MAX_CHECKS:
        return None
    return _WAITS_S[min(max(checks - 1, 0), len(_WAITS_S) - 1)]


def after_absence(checks: int) -> Verdict:
    """Judge a query that did not show the object: archives may need time to file it."""
    return Verdict.LOST if checks >= MAX_CHECKS else Verdict.ASK_AGAIN
