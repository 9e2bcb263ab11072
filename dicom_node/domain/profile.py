"""What a destination gets: the kinds it asks for, in forms it takes, and what stands in.

Pure: wanted kinds, encoded objects and refused SOP classes go in; a plan comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class ResultKind(StrEnum):
    """Result objects a destination can ask for (``objects`` of a peer)."""

    SEG_LESIONS = "seg-lesions"
    SEG_GLAND = "seg-gland"
    SEG_ZONES = "seg-zones"
    SR = "sr"
    KEY_IMAGES = "key-images"
    PARAMETRIC_MAP = "parametric-map"
    PRESENTATION_STATE = "presentation-state"
    PDF = "pdf"
    KEY_OBJECT = "key-object"
    REJECTION_NOTE = "rejection-note"


class Variant(StrEnum):
    """Forms of one kind. Only the report has more than the plain one."""

    PLAIN = ""
    TWIN = "comprehensive"
    NO_SEG = "no-seg"
    TWIN_NO_SEG = "comprehensive-no-seg"


_K, _V = ResultKind, Variant

DEFAULT_KINDS = (_K.SEG_LESIONS, _K.SEG_GLAND, _K.KEY_IMAGES, _K.SR)
"""What a destination gets that names nothing; reports follow what they refer to."""

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"

SOP_CLASSES: Mapping[str, tuple[str, str]] = {
    SEGMENTATION: ("Segmentation Storage", "segmentations"),
    "1.2.840.10008.5.1.4.1.1.7": ("Secondary Capture Image Storage", "key images"),
    "1.2.840.10008.5.1.4.1.1.30": ("Parametric Map Storage", "parametric map"),
    COMPREHENSIVE_3D_SR: ("Comprehensive 3D SR Storage", "report"),
    COMPREHENSIVE_SR: ("Comprehensive SR Storage", "report, twin"),
    "1.2.840.10008.5.1.4.1.1.11.1": (
        "Grayscale Softcopy Presentation State Storage", "presentation state",
    ),
    "1.2.840.10008.5.1.4.1.1.104.1": ("Encapsulated PDF Storage", "report as PDF"),
    "1.2.840.10008.5.1.4.1.1.88.59": (
        "Key Object Selection Document Storage", "key object, rejection note",
    ),
}  # fmt: skip
"""SOP classes of result objects: name in PS3.6, and what the node uses them for."""

STAND_IN: Mapping[str, ResultKind] = {
    _K.SEG_LESIONS: _K.PRESENTATION_STATE,
    _K.SEG_GLAND: _K.PRESENTATION_STATE,
    _K.KEY_IMAGES: _K.PDF,
    _K.SR: _K.PDF,
}
"""What goes in place of a kind whose SOP class is refused; the others have nothing alike."""

_REFERRED_TO = frozenset({_K.SEG_LESIONS, _K.SEG_GLAND})
"""Segmentations the report refers to, unless it is a variant that refers to none."""
_CARRIERS = frozenset({_K.SR, _K.PDF, _K.KEY_IMAGES})
"""Kinds that tell the whole result, or that there is none, in words."""
_PREFERENCE = {
    True: (_V.PLAIN, _V.TWIN),
    False: (_V.NO_SEG, _V.TWIN_NO_SEG, _V.PLAIN, _V.TWIN),
}
_ABSENT = "the result has no such object"


@dataclass(frozen=True)
class Encoded:
    """One kind of object in one form, as it lies on disk (key images: several files)."""

    kind: str
    variant: str
    sop_class_uid: str


@dataclass(frozen=True)
class Omission:
    """A kind that a destination does not get as it is. ``replaced_by`` empty: left out."""

    kind: str
    replaced_by: str
    reason: str


@dataclass(frozen=True)
class DeliveryPlan:
    """What goes to a destination, and what does not and why."""

    send: frozenset[tuple[str, str]]
    omissions: tuple[Omission, ...] = ()


def kinds_to_encode(wanted: Iterable[str]) -> frozenset[str]:
    """Return the kinds to encode for destinations that want these: with all stand-ins."""
    kinds = frozenset(wanted)
    return kinds | {STAND_IN[kind].value for kind in kinds if kind in STAND_IN}


def plan_delivery(
    wanted: Collection[str], encoded: Collection[Encoded], refused: Collection[str]
) -> DeliveryPlan:
    """Decide what a destination gets.

    Args:
        wanted: the kinds it asks for.
        encoded: what the result set holds.
        refused: SOP Class UIDs that it is known not to take.

    Where nothing would be left that tells the result, the plan is what was asked for: the
    refusal must then be seen as a failed delivery. Where the result has none of the kinds that
    are wanted, that is said too: who gets nothing must not look served.
    """
    first = _choose(wanted, encoded, ())
    if not first.send:
        absent = sorted(wanted) if encoded else ()
        return DeliveryPlan(frozenset(), tuple(Omission(kind, "", _ABSENT) for kind in absent))
    chosen = _choose(wanted, encoded, refused)
    asked_to_tell = {kind for kind, _ in first.send} & _CARRIERS
    tells = {kind for kind, _ in chosen.send} & _CARRIERS
    if not chosen.send or (asked_to_tell and not tells):
        return first
    return chosen


def _choose(
    wanted: Collection[str], encoded: Collection[Encoded], refused: Collection[str]
) -> DeliveryPlan:
    there = {item.kind for item in encoded}
    by_form = {(item.kind, item.variant): item.sop_class_uid for item in encoded}
    taken = {form for form, sop_class in by_form.items() if sop_class not in refused}
    send: set[tuple[str, str]] = set()
    omissions = []
    for kind in sorted({*wanted} & there - {_K.SR}):
        if (kind, _V.PLAIN) in taken:
            send.add((kind, _V.PLAIN.value))
        else:
            omissions.append(_stand_in(kind, by_form[kind, _V.PLAIN], taken, send))
    if _K.SR in wanted and _K.SR in there:
        has_all = {kind for kind, _ in send} >= _REFERRED_TO & there
        asked = {*wanted} >= _REFERRED_TO & there
        omissions += _choose_report((has_all, asked), by_form, taken, send)
    return DeliveryPlan(frozenset(send), tuple(omissions))


def _choose_report(
    segmentations: tuple[bool, bool],
    by_form: Mapping[tuple[str, str], str],
    taken: Collection[tuple[str, str]],
    send: set[tuple[str, str]],
) -> list[Omission]:
    """Add the best form of the report; ``segmentations``: sent all of them, asked for all."""
    has_all, asked = segmentations
    ideal = _first(_PREFERENCE[asked], by_form)
    variant = _first(_PREFERENCE[has_all], taken)
    if variant is None:
        sop_class = by_form[_K.SR, ideal or _V.PLAIN]
        return [_stand_in(_K.SR, sop_class, taken, send)]
    send.add((_K.SR.value, variant.value))
    if ideal is None or variant == ideal:
        return []
    reasons = []
    if by_form[_K.SR, ideal] != by_form[_K.SR, variant]:
        reasons.append(_not_taken(by_form[_K.SR, ideal]))
    if asked and not has_all:
        reasons.append("a report without segmentations refers to none")
    return [Omission(_K.SR, f"{_K.SR} ({variant})", "; ".join(reasons))]


def _first(preference: Iterable[Variant], forms: Collection[tuple[str, str]]) -> Variant | None:
    return next((variant for variant in preference if (_K.SR, variant) in forms), None)


def _stand_in(
    kind: str,
    sop_class: str,
    taken: Collection[tuple[str, str]],
    send: set[tuple[str, str]],
) -> Omission:
    other = STAND_IN.get(kind)
    if other is None or (other, _V.PLAIN) not in taken:
        return Omission(kind, "", _not_taken(sop_class))
    send.add((other.value, _V.PLAIN.value))
    return Omission(kind, other.value, _not_taken(sop_class))


def _not_taken(sop_class: str) -> str:
    return f"the peer does not take {SOP_CLASSES.get(sop_class, (sop_class,))[0]}"
