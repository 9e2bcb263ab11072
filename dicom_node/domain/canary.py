"""The canary of the path: a test study that must come back. Its UIDs, and when it has. Pure.

Its Study Instance UID says that it is one: whoever sees it, after a rebuild of the database too,
knows that it counts in no statistics.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.domain.states import DeliveryState, RevisionState

_ROOT = uuid.UUID("c9e44f5e-42a3-5b2c-8c4e-6a4d1f6f1a11")
STUDY_ROOT = f"2.25.{_ROOT.int}."
"""Study Instance UIDs of canaries: below a UID derived from a UUID (ITU-T X.667, PS3.5 B.2)."""


class RunState(StrEnum):
    """What became of a canary."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True)
class CanaryRun:
    """One canary. Times in seconds since 1970-01-01 UTC; ``message`` in plain words."""

    id: int
    study_uid: str
    scheduled: bool
    started_at_s: float
    ended_at_s: float | None
    state: RunState
    message: str

    def as_dict(self) -> dict[str, object]:
        """Return the run as plain values."""
        took_s = None if self.ended_at_s is None else round(self.ended_at_s - self.started_at_s, 1)
        return {
            "id": self.id, "study_uid": self.study_uid, "scheduled": self.scheduled,
            "state": str(self.state), "message": self.message, "seconds": took_s,
        }  # fmt: skip


@dataclass(frozen=True)
class CanarySeen:
    """Where the study of a canary stands. ``deliveries``: state, and whether more is asked."""

    state: RevisionState | None
    reason: str = ""
    results: int = 0
    deliveries: Sequence[tuple[DeliveryState, bool]] = ()


@dataclass(frozen=True)
class Judgement:
    """What is known of a canary now."""

    state: RunState
    message: str = ""


def study_uid_of(installation_id: str, run: str) -> str:
    """Return the Study Instance UID of a run; another installation has others."""
    digest = hashlib.sha256(f"{installation_id} {run}".encode()).digest()
    return STUDY_ROOT + str(int.from_bytes(digest[:8]) >> 1)  # 64 characters at most


def derived_uid(study_uid: str, original: str) -> str:
    """Return the UID that takes the place of one of the phantom."""
    return f"2.25.{uuid.uuid5(_ROOT, f'{study_uid} {original}').int}"


def is_canary(study_uid: str) -> bool:
    """Whether a study is a canary."""
    return study_uid.startswith(STUDY_ROOT)


_WAITS = (RevisionState.RECEIVING, RevisionState.READY, RevisionState.RUNNING,
          RevisionState.ANALYSED)  # fmt: skip
_STOPPED_AT = {
    None: "it was not received",
    RevisionState.RECEIVING: "it was received, but is not taken as complete",
    RevisionState.READY: "no worker took it",
    RevisionState.RUNNING: "its analysis did not end",
    RevisionState.ANALYSED: "it was analysed, but its results did not reach the destination",
}


def judge(seen: CanarySeen, *, to: str, in_time: bool) -> Judgement:
    """Say what became of a canary. ``to``: its destination, empty for none."""
    if seen.state is None or seen.state in _WAITS:
        if in_time:
            return Judgement(RunState.RUNNING)
        return Judgement(RunState.FAILED, f"not back in time: {_STOPPED_AT[seen.state]}")
    if seen.state is not RevisionState.DELIVERED:
        why = f" ({seen.reason})" if seen.reason else ""
        return Judgement(RunState.FAILED, f"the study ended as {seen.state}{why}")
    if not seen.results:
        return Judgement(RunState.FAILED, "no result object was made")
    if not to:
        return Judgement(RunState.PASSED, f"{seen.results} objects made, none sent")
    if not seen.deliveries:
        return Judgement(RunState.FAILED, f"nothing was sent: {to} is no peer that gets results")
    return _delivered(seen, to, in_time)


def _delivered(seen: CanarySeen, to: str, in_time: bool) -> Judgement:
    verified = sum(state is DeliveryState.VERIFIED for state, _ in seen.deliveries)
    told = f"{len(seen.deliveries)} objects sent to {to}, {verified} of them verified"
    if any(asked and state is not DeliveryState.VERIFIED for state, asked in seen.deliveries):
        if in_time:
            return Judgement(RunState.RUNNING)
        return Judgement(RunState.FAILED, f"not confirmed in time: {told}")
    return Judgement(RunState.PASSED, told)
