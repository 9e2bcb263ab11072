"""Decisions about studies, as pure functions: due times, new revisions, retries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.domain.states import RevisionState

MAX_ATTEMPTS = 3
"""Attempts at an analysis (and then at the report that says it failed)."""
NODE_DEATHS_BEFORE_LAST = 3
"""After so many deaths of the node in a row while a study ran, it runs after all others."""
LEASE_S = 60.0
"""A claim without a heartbeat for longer is taken back."""
BACKOFF_CAP_S = 900.0
ATTEMPT_DELAY_S = 2.0


class PlanKind(StrEnum):
    """What the worker does with a revision."""

    ANALYSE = "analyse"
    REPORT = "report"


class Step(StrEnum):
    """What to do with a study now."""

    NOTHING = "nothing"
    WAIT = "wait"
    START = "start"
    REPORT = "report"
    CLOSE = "close"
    HOLD = "hold"


@dataclass(frozen=True)
class Chosen:
    """What the selection says of a study: ``reason`` is None where it can be analysed."""

    input_key: str
    reason: Reason | None
    message: str = ""
    detail_json: str = "{}"


@dataclass(frozen=True)
class Situation:
    """Where a study stands. ``latest`` is its revision of the highest number."""

    last_image_at_s: float
    latest_state: RevisionState
    latest_input_key: str | None
    result_was_sent: bool


@dataclass(frozen=True)
class Decision:
    """A step and, for ``WAIT``, when to look again. ``new_revision``: the step opens one."""

    step: Step
    at_s: float = 0.0
    new_revision: bool = False


def effective_key(input_key: str, reason: Reason | None, demographics: Iterable[str]) -> str:
    """Digest of what decides a result: the chosen inputs, the reason for none, the demographics."""
    parts = [input_key, str(reason or ""), *sorted(set(demographics))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def decide(
    situation: Situation, chosen: Chosen, now_s: float, quiet_s: float, patience_s: float
) -> Decision:
    """Decide what a study with new images needs.

    A study whose needed series are complete starts ``quiet_s`` after its last image; where a
    result was already sent, ``patience_s`` after it, so that late series make one new result.
    A study that cannot be analysed waits ``patience_s`` for what is missing.
    """
    state = situation.latest_state
    if state is RevisionState.HELD:
        return Decision(Step.NOTHING)
    waiting = state is RevisionState.RECEIVING
    if not waiting and situation.latest_input_key == chosen.input_key:
        return Decision(Step.NOTHING)
    patient = chosen.reason is not None or situation.result_was_sent
    due_s = situation.last_image_at_s + (patience_s if patient else min(quiet_s, patience_s))
    # ready: not begun, so the same revision takes the new inputs
    opens = not waiting and state is not RevisionState.READY
    if now_s < due_s:
        return Decision(Step.WAIT, due_s, opens)
    if chosen.reason is None:
        return Decision(Step.START, now_s, opens)
    send = REASONS[chosen.reason].send_report
    return Decision(Step.REPORT if send else Step.CLOSE, now_s, opens)


def backoff_s(attempt: int, jitter: float, base_s: float = 5.0) -> float:
    """Seconds to wait after the n-th failed attempt (from 1): doubling, capped at 15 minutes.

    ``jitter`` is a random number in [0, 1): the wait lies between half and all of the step, so
    that many waiting objects do not come back together.
    """
    step_s = min(BACKOFF_CAP_S, base_s * 2.0 ** min(max(attempt - 1, 0), 20))
    return step_s * (0.5 + 0.5 * jitter)


@dataclass(frozen=True)
class AfterFailure:
    """What follows a failed attempt."""

    again: bool
    report: bool
    delay_s: float = 0.0


def after_failed_attempt(kind: PlanKind, attempts: int) -> AfterFailure:
    """Decide after an attempt that failed; ``attempts`` includes it and counts per kind."""
    if attempts < MAX_ATTEMPTS:
        return AfterFailure(True, False, ATTEMPT_DELAY_S * 2.0 ** (attempts - 1))
    return AfterFailure(False, kind is PlanKind.ANALYSE)
