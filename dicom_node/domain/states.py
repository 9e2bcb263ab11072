"""The life of a study revision, a delivery and a release, as tables (state, event) -> state.

Everything that changes a state looks here; a pair that is not listed is a mistake and raises.
The diagrams of the documentation are printed from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RevisionState(StrEnum):
    """Where a study revision stands."""

    RECEIVING = "receiving"
    READY = "ready"
    RUNNING = "running"
    ANALYSED = "analysed"
    DELIVERED = "delivered"
    NOT_ANALYSABLE = "not_analysable"
    FAILED = "failed"
    HELD = "held"
    SUPERSEDED = "superseded"


class RevisionEvent(StrEnum):
    """What happens to a study revision."""

    COMPLETE = "complete"
    REPORT_DUE = "report_due"
    NOT_OURS = "not_ours"
    INPUTS_CHANGED = "inputs_changed"
    CONFLICT = "conflict"
    RESOLVED = "resolved"
    CLAIM = "claim"
    NODE_DIED = "node_died"
    ATTEMPT_FAILED = "attempt_failed"
    ANALYSED = "analysed"
    NOT_ANALYSABLE = "not_analysable"
    GIVEN_UP = "given_up"
    NEWER_INPUTS = "newer_inputs"
    ALL_DELIVERED = "all_delivered"
    DELIVERY_FAILED = "delivery_failed"
    DELIVERY_LOST = "delivery_lost"
    NO_DESTINATION = "no_destination"
    RETRY = "retry"
    DELIVER_AGAIN = "deliver_again"


class DeliveryState(StrEnum):
    """Where one result object stands on its way to one destination."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    VERIFIED = "verified"
    FAILED = "failed"


class DeliveryEvent(StrEnum):
    """What happens to a delivery."""

    CLAIM = "claim"
    ACCEPTED = "accepted"
    TRANSIENT = "transient"
    REJECTED = "rejected"
    NODE_DIED = "node_died"
    GAVE_UP = "gave_up"
    WITHDRAWN = "withdrawn"
    CONFIRMED = "confirmed"
    LOST = "lost"
    RETRY = "retry"
    SEND_AGAIN = "send_again"


class ReleaseState(StrEnum):
    """Where a release of the model stands."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    ACTIVE = "active"
    RETIRED = "retired"


class ReleaseEvent(StrEnum):
    """What happens to a release of the model."""

    SHADOW_BEGUN = "shadow_begun"
    SHADOW_ENDED = "shadow_ended"
    ACTIVATED = "activated"
    REPLACED = "replaced"
    REJECTED = "rejected"


_R, _E = RevisionState, RevisionEvent

REVISION_TRANSITIONS: Mapping[tuple[RevisionState, RevisionEvent], RevisionState] = {
    (_R.RECEIVING, _E.COMPLETE): _R.READY,
    (_R.RECEIVING, _E.REPORT_DUE): _R.READY,
    (_R.RECEIVING, _E.NOT_OURS): _R.NOT_ANALYSABLE,
    (_R.RECEIVING, _E.CONFLICT): _R.HELD,
    (_R.READY, _E.INPUTS_CHANGED): _R.RECEIVING,
    (_R.READY, _E.CONFLICT): _R.HELD,
    (_R.READY, _E.CLAIM): _R.RUNNING,
    (_R.RUNNING, _E.NODE_DIED): _R.READY,
    (_R.RUNNING, _E.ATTEMPT_FAILED): _R.READY,
    (_R.RUNNING, _E.ANALYSED): _R.ANALYSED,
    (_R.RUNNING, _E.NOT_ANALYSABLE): _R.NOT_ANALYSABLE,
    (_R.RUNNING, _E.GIVEN_UP): _R.FAILED,
    (_R.RUNNING, _E.CONFLICT): _R.HELD,
    (_R.RUNNING, _E.NEWER_INPUTS): _R.SUPERSEDED,
    (_R.ANALYSED, _E.ALL_DELIVERED): _R.DELIVERED,
    (_R.ANALYSED, _E.DELIVERY_FAILED): _R.FAILED,
    (_R.ANALYSED, _E.NO_DESTINATION): _R.FAILED,
    (_R.ANALYSED, _E.CONFLICT): _R.HELD,
    (_R.ANALYSED, _E.NEWER_INPUTS): _R.SUPERSEDED,
    (_R.DELIVERED, _E.DELIVERY_LOST): _R.ANALYSED,
    (_R.DELIVERED, _E.NEWER_INPUTS): _R.SUPERSEDED,
    (_R.NOT_ANALYSABLE, _E.NEWER_INPUTS): _R.SUPERSEDED,
    (_R.FAILED, _E.NEWER_INPUTS): _R.SUPERSEDED,
    (_R.HELD, _E.RESOLVED): _R.RECEIVING,
    (_R.HELD, _E.RETRY): _R.RECEIVING,
    (_R.FAILED, _E.RETRY): _R.RECEIVING,
    (_R.NOT_ANALYSABLE, _E.RETRY): _R.RECEIVING,
    (_R.FAILED, _E.DELIVER_AGAIN): _R.ANALYSED,
    (_R.DELIVERED, _E.DELIVER_AGAIN): _R.ANALYSED,
}

FINAL_REVISION_STATES = frozenset(
    {_R.DELIVERED, _R.NOT_ANALYSABLE, _R.FAILED, _R.HELD, _R.SUPERSEDED}
)
OPEN_REVISION_STATES = (_R.RECEIVING, _R.READY)

_D, _V = DeliveryState, DeliveryEvent

DELIVERY_TRANSITIONS: Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (_D.PENDING, _V.CLAIM): _D.SENDING,
    (_D.PENDING, _V.GAVE_UP): _D.FAILED,
    (_D.PENDING, _V.WITHDRAWN): _D.FAILED,
    (_D.SENDING, _V.ACCEPTED): _D.SENT,
    (_D.SENDING, _V.TRANSIENT): _D.PENDING,
    (_D.SENDING, _V.REJECTED): _D.FAILED,
    (_D.SENDING, _V.NODE_DIED): _D.PENDING,
    (_D.SENT, _V.CONFIRMED): _D.VERIFIED,
    (_D.SENT, _V.LOST): _D.PENDING,
    (_D.SENT, _V.GAVE_UP): _D.FAILED,
    (_D.FAILED, _V.RETRY): _D.PENDING,
    (_D.SENT, _V.SEND_AGAIN): _D.PENDING,
    (_D.VERIFIED, _V.SEND_AGAIN): _D.PENDING,
}

FINAL_DELIVERY_STATES = frozenset({_D.SENT, _D.VERIFIED, _D.FAILED})

_M, _N = ReleaseState, ReleaseEvent

RELEASE_TRANSITIONS: Mapping[tuple[ReleaseState, ReleaseEvent], ReleaseState] = {
    (_M.CANDIDATE, _N.SHADOW_BEGUN): _M.SHADOW,
    (_M.CANDIDATE, _N.ACTIVATED): _M.ACTIVE,
    (_M.CANDIDATE, _N.REJECTED): _M.RETIRED,
    (_M.SHADOW, _N.SHADOW_ENDED): _M.CANDIDATE,
    (_M.SHADOW, _N.ACTIVATED): _M.ACTIVE,
    (_M.SHADOW, _N.REJECTED): _M.RETIRED,
    (_M.ACTIVE, _N.REPLACED): _M.RETIRED,
    (_M.RETIRED, _N.ACTIVATED): _M.ACTIVE,
    (_M.RETIRED, _N.SHADOW_BEGUN): _M.SHADOW,
}
"""Every state may last for ever: only a person moves a release."""

REVISION_TIMED_EXITS: Mapping[RevisionState, tuple[RevisionEvent, str]] = {
    _R.RECEIVING: (_E.REPORT_DUE, "study.patience_s after the last image"),
    _R.READY: (_E.CLAIM, "the next free worker"),
    _R.RUNNING: (_E.ATTEMPT_FAILED, "model.case_limit_s, or a heartbeat older than the lease"),
    _R.ANALYSED: (_E.DELIVERY_FAILED, "delivery.give_up_h"),
}
DELIVERY_TIMED_EXITS: Mapping[DeliveryState, tuple[DeliveryEvent, str]] = {
    _D.PENDING: (_V.GAVE_UP, "delivery.give_up_h"),
    _D.SENDING: (_V.NODE_DIED, "a heartbeat older than the lease"),
}
TIMED_EXITS: Mapping[str, str] = {
    **{f"revision {state}": limit for state, (_, limit) in REVISION_TIMED_EXITS.items()},
    **{f"delivery {state}": limit for state, (_, limit) in DELIVERY_TIMED_EXITS.items()},
}
"""What ends each state that is not final, whatever else happens (G2)."""


class IllegalTransition(Exception):
    """An event that the table does not know in this state: a mistake in the program."""


def next_revision_state(state: RevisionState, event: RevisionEvent) -> RevisionState:
    """Return the state after an event.

    Raises:
        IllegalTransition: the table does not list the pair.
    """
    try:
        return REVISION_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"revision: no '{event}' in state '{state}'") from None


def next_delivery_state(state: DeliveryState, event: DeliveryEvent) -> DeliveryState:
    """Return the state after an event.

    Raises:
        IllegalTransition: the table does not list the pair.
    """
    try:
        return DELIVERY_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"delivery: no '{event}' in state '{state}'") from None


def next_release_state(state: ReleaseState, event: ReleaseEvent) -> ReleaseState:
    """Return the state after an event.

    Raises:
        IllegalTransition: the table does not list the pair.
    """
    try:
        return RELEASE_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"release: no '{event}' in state '{state}'") from None


def mermaid(which: str) -> str:
    """Draw one of the tables, ``revision``, ``delivery`` or ``release``, as a mermaid diagram.

    Raises:
        ValueError: another name.
    """
    if which == "revision":
        edges = [(str(s), str(e), str(t)) for (s, e), t in REVISION_TRANSITIONS.items()]
        start, finals = str(_R.RECEIVING), [str(state) for state in FINAL_REVISION_STATES]
    elif which == "delivery":
        edges = [(str(s), str(e), str(t)) for (s, e), t in DELIVERY_TRANSITIONS.items()]
        start, finals = str(_D.PENDING), [str(state) for state in FINAL_DELIVERY_STATES]
    elif which == "release":
        edges = [(str(s), str(e), str(t)) for (s, e), t in RELEASE_TRANSITIONS.items()]
        start, finals = str(_M.CANDIDATE), []
    else:
        raise ValueError(f"no state table '{which}'; choose revision, delivery or release")
    lines = ["stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {source} --> {target}: {event}" for source, event, target in edges]
    lines += [f"    {state} --> [*]" for state in sorted(finals)]
    return "\n".join(lines) + "\n"
