"""What of a study may be deleted, when and why; why the rest stays. Pure: facts in, verdict out.

Images go by the age of their study and, while the disk is short of room, earlier: the oldest
first, never below the least age. Result objects go later, by age alone. What is not final, what
people annotated and a result that a destination still waits for never go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.domain.annotation import AnnotationState
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.domain.states import DeliveryState, RevisionState

CANARY_ISSUER = "PROSTATE-AI-CANARY"
"""Issuer of Patient ID (0010,0021) of the node's own test studies: nobody's images."""
DAY_S = 86_400.0


class Sort(StrEnum):
    """What kind of study it is, as far as its age of deletion goes."""

    ANALYSED = "analysed"
    UNANALYSED = "unanalysed"
    NOT_OURS = "not_ours"
    HELD = "held"
    CANARY = "canary"


class Keep(StrEnum):
    """Why something stays."""

    NOT_FINAL = "not_final"
    NEW_IMAGES = "new_images"
    UNJUDGED = "unjudged"
    ANNOTATED = "annotated"
    IMAGES_STAY = "images_stay"
    UNDELIVERED = "undelivered"
    UNCONFIRMED = "unconfirmed"
    FOR_EVER = "for_ever"
    YOUNG = "young"
    GONE = "gone"


class Go(StrEnum):
    """Why something goes."""

    AGE = "age"
    PRESSED = "pressed"


KEEP_WORDS: Mapping[Keep, str] = {
    Keep.NOT_FINAL: "work on the study goes on",
    Keep.NEW_IMAGES: "something came that was not looked at yet",
    Keep.UNJUDGED: "a second copy of an image was not compared yet",
    Keep.ANNOTATED: "people annotated it: part of the site's own set",
    Keep.IMAGES_STAY: "its images stay",
    Keep.UNDELIVERED: "a destination did not get it",
    Keep.UNCONFIRMED: "a destination is still asked whether it keeps it",
    Keep.FOR_EVER: "the configuration keeps it for ever",
    Keep.YOUNG: "not old enough",
    Keep.GONE: "gone already",
}
GO_WORDS: Mapping[Go, str] = {
    Go.AGE: "older than the configuration keeps it",
    Go.PRESSED: "among the oldest, and the disk is short of room",
}


@dataclass(frozen=True)
class Rules:
    """The configured ages in days, by kind of study; 0: for ever. ``least``: never younger."""

    images: Mapping[Sort, float]
    results: float
    least: float


@dataclass(frozen=True)
class RevisionFacts:
    """A revision: its state and the reason of it."""

    number: int
    state: RevisionState
    reason: str | None
    changed_at_s: float


@dataclass(frozen=True)
class DeliveryFacts:
    """A delivery of the latest revision, or of any while it is open.

    ``awaited``: its destination is one still. ``asked``: it will be asked whether it keeps it.
    """

    state: DeliveryState
    awaited: bool
    asked: bool
    sent_at_s: float | None = None
    latest: bool = True


@dataclass(frozen=True)
class StudyFacts:
    """All that the decision needs of one study. Times are epoch seconds."""

    last_image_at_s: float
    issuer: str
    revisions: tuple[RevisionFacts, ...]
    deliveries: tuple[DeliveryFacts, ...]
    annotations: frozenset[AnnotationState]
    unevaluated: bool
    unjudged: bool
    images_gone: bool
    results_gone: bool

    @property
    def ended_at_s(self) -> float:
        """When the last thing happened to the study."""
        times = [self.last_image_at_s]
        times += [one.changed_at_s for one in self.revisions]
        times += [one.sent_at_s for one in self.deliveries if one.sent_at_s is not None]
        return max(times)

    @property
    def latest(self) -> RevisionFacts | None:
        """The revision of the highest number."""
        return max(self.revisions, key=lambda one: one.number, default=None)


@dataclass(frozen=True)
class Verdict:
    """What may go of a study now (`Go`), or why it stays (`Keep`)."""

    sort: Sort | None
    images: Go | Keep
    results: Go | Keep


_ENDED = frozenset(
    {
        RevisionState.DELIVERED, RevisionState.NOT_ANALYSABLE, RevisionState.FAILED,
        RevisionState.HELD, RevisionState.SUPERSEDED,
    }
)  # fmt: skip
_OPEN_DELIVERY = frozenset({DeliveryState.PENDING, DeliveryState.SENDING})
_UNDELIVERED = frozenset({Reason.DELIVERY_FAILED, Reason.NO_DESTINATION})


def judge(facts: StudyFacts, rules: Rules, now_s: float, *, pressed: bool = False) -> Verdict:
    """Decide what may go of a study. ``pressed``: the disk is short of room."""
    stays = _stays(facts)
    if stays is not None:
        return Verdict(None, stays, stays)
    sort = sort_of(facts)
    images = _images(facts, rules, sort, now_s, pressed)
    return Verdict(sort, images, _results(facts, rules, images, now_s))


def sort_of(facts: StudyFacts) -> Sort:
    """Return what kind a study is whose latest revision ended."""
    if facts.issuer == CANARY_ISSUER:
        return Sort.CANARY
    latest = facts.latest
    if latest is None:
        return Sort.NOT_OURS
    reason = Reason(latest.reason) if latest.reason in set(Reason) else None
    if latest.state is RevisionState.HELD:
        return Sort.HELD
    if latest.state is RevisionState.DELIVERED or reason in _UNDELIVERED:
        return Sort.ANALYSED
    if reason is not None and not REASONS[reason].send_report:
        return Sort.NOT_OURS
    return Sort.UNANALYSED


def _stays(facts: StudyFacts) -> Keep | None:
    """Return why nothing at all of a study may go; None where age decides."""
    latest = facts.latest
    if any(one.state not in _ENDED for one in facts.revisions):
        return Keep.NOT_FINAL
    if latest is not None and latest.state is RevisionState.SUPERSEDED:
        return Keep.NOT_FINAL  # what superseded it is still to come
    if any(one.state in _OPEN_DELIVERY for one in facts.deliveries):
        return Keep.NOT_FINAL
    if facts.unevaluated:
        return Keep.NEW_IMAGES
    if facts.unjudged:
        return Keep.UNJUDGED
    if facts.annotations - {AnnotationState.NO_ANNOTATION}:
        return Keep.ANNOTATED
    return None


def _images(facts: StudyFacts, rules: Rules, sort: Sort, now_s: float, pressed: bool) -> Go | Keep:
    if facts.images_gone:
        return Keep.GONE
    days = rules.images[sort]
    if days <= 0:
        return Keep.FOR_EVER
    least = 0.0 if sort is Sort.CANARY else rules.least
    age_s = now_s - facts.ended_at_s
    if age_s >= max(days, least) * DAY_S:
        return Go.AGE
    return Go.PRESSED if pressed and age_s >= least * DAY_S else Keep.YOUNG


def _results(facts: StudyFacts, rules: Rules, images: Go | Keep, now_s: float) -> Go | Keep:
    if facts.results_gone:
        return Keep.GONE
    if images is not Keep.GONE and not isinstance(images, Go):
        return Keep.IMAGES_STAY
    mine = [one for one in facts.deliveries if one.latest]
    latest = facts.latest
    nowhere = latest is not None and latest.reason == Reason.NO_DESTINATION
    if nowhere or any(one.state is DeliveryState.FAILED and one.awaited for one in mine):
        return Keep.UNDELIVERED
    if any(one.asked for one in facts.deliveries):
        return Keep.UNCONFIRMED
    if rules.results <= 0:
        return Keep.FOR_EVER
    old_enough = now_s - facts.ended_at_s >= max(rules.results, rules.least) * DAY_S
    return Go.AGE if old_enough else Keep.YOUNG
