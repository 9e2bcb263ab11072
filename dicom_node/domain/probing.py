"""The examination of a connection to a peer: its steps, what each found, and the whole report.

Pure: values only, and their form as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from dicom_node.domain.confirmation import SERVICES
from dicom_node.domain.profile import (
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    SEGMENTATION,
    SOP_CLASSES,
    DeliveryPlan,
    Encoded,
    ResultKind,
    Variant,
    plan_delivery,
)

_K, _V = ResultKind, Variant
RESULT_FORMS = (
    Encoded(_K.SEG_LESIONS, _V.PLAIN, SEGMENTATION),
    Encoded(_K.SEG_GLAND, _V.PLAIN, SEGMENTATION),
    Encoded(_K.SEG_ZONES, _V.PLAIN, SEGMENTATION),
    Encoded(_K.PARAMETRIC_MAP, _V.PLAIN, "1.2.840.10008.5.1.4.1.1.30"),
    Encoded(_K.KEY_IMAGES, _V.PLAIN, "1.2.840.10008.5.1.4.1.1.7"),
    Encoded(_K.SR, _V.PLAIN, COMPREHENSIVE_3D_SR),
    Encoded(_K.SR, _V.TWIN, COMPREHENSIVE_SR),
    Encoded(_K.SR, _V.NO_SEG, COMPREHENSIVE_3D_SR),
    Encoded(_K.SR, _V.TWIN_NO_SEG, COMPREHENSIVE_SR),
    Encoded(_K.PRESENTATION_STATE, _V.PLAIN, "1.2.840.10008.5.1.4.1.1.11.1"),
    Encoded(_K.KEY_OBJECT, _V.PLAIN, "1.2.840.10008.5.1.4.1.1.88.59"),
    Encoded(_K.PDF, _V.PLAIN, "1.2.840.10008.5.1.4.1.1.104.1"),
)
"""Every kind in every form that a result with findings has."""
RECENT_S = 7 * 86_400.0
"""Refusals that are older say nothing of today."""
SYNTAX_NAMES: Mapping[str, str] = {
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
}
"""Encodings in which results can go out: name in PS3.6."""


class Step(StrEnum):
    """What is tried, in this order; what a later step needs of an earlier one skips it."""

    NAME = "name"
    PORT = "port"
    TLS = "tls"
    ASSOCIATION = "association"
    ECHO = "echo"
    OBJECTS = "objects"
    SERVICES = "services"
    SEND = "send"
    KEPT = "kept"
    RECEIVING = "receiving"


STEP_WORDS: Mapping[Step, str] = {
    Step.NAME: "the name is known",
    Step.PORT: "the port answers",
    Step.TLS: "TLS",
    Step.ASSOCIATION: "it talks to this AE title",
    Step.ECHO: "it answers the echo",
    Step.OBJECTS: "it takes the results",
    Step.SERVICES: "it can say what it keeps",
    Step.SEND: "it stores the test study",
    Step.KEPT: "it keeps the test study",
    Step.RECEIVING: "it has sent something here",
}
"""Each step in words, for tables."""


class StepOutcome(StrEnum):
    """What became of a step."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """A step: what was found and what to do about it, in plain words. ``seconds`` it took."""

    step: Step
    outcome: StepOutcome
    found: str
    advice: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class ClassAnswer:
    """What a peer said of a SOP class, and in which encodings (UIDs) it takes it."""

    sop_class_uid: str
    answer: str
    """taken, not taken, or refused without a reason"""
    transfer_syntaxes: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, str]:
        """Name in PS3.6, and what the node uses the class for."""
        return {**SOP_CLASSES, **SERVICES}[self.sop_class_uid]


@dataclass(frozen=True)
class SentStudy:
    """The test study that now lies at the peer: to be deleted there under ``patient_id``."""

    study_uid: str
    patient_id: str
    objects: int


@dataclass(frozen=True)
class Profile:
    """What an examination found out about a peer at one address (AE title, host and port)."""

    peer: str
    address: str
    at_s: float
    steps: tuple[Finding, ...]
    classes: tuple[ClassAnswer, ...] = ()
    sent: SentStudy | None = None

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(one.outcome is not StepOutcome.FAILED for one in self.steps)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as the command and the API print them; ``from_dict`` reads them."""
        return {
            "name": self.peer, "address": self.address, "ok": self.ok, "at_s": self.at_s,
            "steps": [{**asdict(one), "words": STEP_WORDS[one.step]} for one in self.steps],
            "classes": [
                {
                    "sop_class_uid": one.sop_class_uid, "name": one.words[0],
                    "used_for": one.words[1], "answer": one.answer,
                    "transfer_syntaxes": list(one.transfer_syntaxes),
                }
                for one in self.classes
            ],
            "test_study": None if self.sent is None else asdict(self.sent),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Profile:
        """Read what ``as_dict`` wrote; classes that the node no longer uses are left out."""
        known = {**SOP_CLASSES, **SERVICES}
        steps = tuple(
            Finding(
                Step(one["step"]), StepOutcome(one["outcome"]), one["found"], one["advice"],
                one["seconds"],
            )
            for one in kept["steps"]
        )  # fmt: skip
        classes = tuple(
            ClassAnswer(one["sop_class_uid"], one["answer"], tuple(one["transfer_syntaxes"]))
            for one in kept["classes"]
            if one["sop_class_uid"] in known
        )
        sent = SentStudy(**kept["test_study"]) if kept["test_study"] else None
        return cls(kept["name"], kept["address"], kept["at_s"], steps, classes, sent)


def judge_objects(
    wanted: Sequence[ResultKind], refused: Iterable[str]
) -> tuple[DeliveryPlan, StepOutcome, str, str]:
    """Say what of the results a peer gets, as delivery decides it.

    Returns:
        The plan, the outcome, what was found and what to do. Failed: nothing is left that tells
        the result, so each delivery will fail.
    """
    closed = frozenset(refused)
    asked = [kind for kind in wanted if kind is not ResultKind.REJECTION_NOTE]  # of corrections
    plan = plan_delivery(asked, RESULT_FORMS, closed)
    lost = [
        one for one in RESULT_FORMS
        if (one.kind, one.variant) in plan.send and one.sop_class_uid in closed
    ]  # fmt: skip
    if lost:
        names = sorted({SOP_CLASSES[one.sop_class_uid][0] for one in lost})
        return (
            plan, StepOutcome.FAILED,
            f"it takes nothing that can tell the result; refused: {', '.join(names)}",
            "have these SOP classes allowed there, or set Objects of this peer to what it takes",
        )  # fmt: skip
    if not plan.omissions:
        return plan, StepOutcome.OK, ", ".join(asked), ""
    told = [
        f"{one.kind}: {one.replaced_by + ' goes instead' if one.replaced_by else 'is left out'}"
        f" ({one.reason})"
        for one in plan.omissions
    ]
    return (
        plan, StepOutcome.OK, "; ".join(told),
        "the node adapts by itself; have the SOP class allowed there for the full result",
    )  # fmt: skip


def last_heard(
    received: tuple[str, float] | None, refused: Sequence[Mapping[str, Any]], now_s: float
) -> tuple[StepOutcome, str, str]:
    """Say what came from a peer, and what was refused of it.

    Args:
        received: address and time of the last image under its AE title; None: none came.
        refused: refusals that may be of this peer (``calling_ae``, ``address``, ``words``,
            ``last_at_s``, ``same_ae``), the latest first.
        now_s: seconds since 1970-01-01 UTC.
    """
    parts = []
    if received is not None:
        address, at_s = received
        parts.append(f"the last image came {_ago(now_s - at_s)} from {address}")
    since_s = max(now_s - RECENT_S, received[1] if received else 0.0)
    newer = [one for one in refused if one["last_at_s"] > since_s]
    if newer:
        one = newer[0]
        who = one["calling_ae"] or "somebody without an AE title"
        parts.append(
            f"{who} from {one['address']} was refused {_ago(now_s - one['last_at_s'])}: "
            f"{one['words']}"
        )
        advice = (
            "if that is this peer, set its AE title here to the one it uses, or change it there"
            if not one["same_ae"]
            else "see Refused senders under AE titles: allow it there, or mend it at the peer"
        )
        return StepOutcome.FAILED, "; ".join(parts), advice
    if received is None:
        return (
            StepOutcome.SKIPPED, "nothing came from it yet, and nothing of it was refused",
            "send a study from there: this node's AE title, address and port must be entered there",
        )  # fmt: skip
    return StepOutcome.OK, parts[0], ""


def _ago(seconds: float) -> str:
    for size, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "moments ago"
