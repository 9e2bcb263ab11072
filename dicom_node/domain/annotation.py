"""Annotations: what kinds there are, what becomes of one, and why one is not used. Pure tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"


class AnnotationKind(StrEnum):
    """What kind of object a person stored."""

    SEG = "seg"
    SR = "sr"
    KEY_OBJECT = "key-object"


ANNOTATION_CLASSES: Mapping[str, AnnotationKind] = {
    SEGMENTATION: AnnotationKind.SEG,
    LABEL_MAP: AnnotationKind.SEG,
    "1.2.840.10008.5.1.4.1.1.88.22": AnnotationKind.SR,
    "1.2.840.10008.5.1.4.1.1.88.33": AnnotationKind.SR,
    "1.2.840.10008.5.1.4.1.1.88.34": AnnotationKind.SR,
    "1.2.840.10008.5.1.4.1.1.88.59": AnnotationKind.KEY_OBJECT,
}
"""SOP classes that can be annotations."""


class AnnotationState(StrEnum):
    """What became of a stored object that can be an annotation.

    ``pending``: not looked at. ``waiting``: for images or a result of the study. ``used``: part of
    the annotated set. ``superseded``: the same person stored a later one. ``unusable``: meant as an
    annotation and not usable. ``no_annotation``: not made by a person, or about something else.
    """

    PENDING = "pending"
    WAITING = "waiting"
    USED = "used"
    SUPERSEDED = "superseded"
    UNUSABLE = "unusable"
    NO_ANNOTATION = "no_annotation"


class Part(StrEnum):
    """What an annotation is about. ``findings``: verdicts on findings without a drawing."""

    LESIONS = "lesions"
    GLAND = "gland"
    ZONES = "zones"
    FINDINGS = "findings"


class Verdict(StrEnum):
    """What an annotation says of a finding of the node, or of a lesion that is none.

    ``not_drawn``: a drawing made from nothing does not contain the finding. ``missed``: drawn, and
    the node has no finding there. ``new``: drawn, and there is no result to compare with.
    """

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    NOT_DRAWN = "not_drawn"
    MISSED = "missed"
    NEW = "new"


class AnnotationReason(StrEnum):
    """Why an annotation waits or is not used."""

    NO_IMAGES = "no_images"
    ANALYSIS_OPEN = "analysis_open"
    UNREADABLE = "unreadable"
    DAMAGED = "damaged"
    SAME_UID_OTHER_BYTES = "same_uid_other_bytes"
    GEOMETRY = "geometry"
    OTHER_FRAME_OF_REFERENCE = "other_frame_of_reference"
    OTHER_STUDY = "other_study"
    OTHER_PATIENT = "other_patient"
    OUTSIDE = "outside"
    EMPTY = "empty"
    UNNAMED = "unnamed"
    MACHINE_MADE = "machine_made"
    NOTHING_SAID = "nothing_said"


@dataclass(frozen=True)
class AnnotationText:
    """State that a reason leads to, what is wrong, and what to do."""

    state: AnnotationState
    message: str
    advice: str

    @property
    def words(self) -> str:
        """Message and advice."""
        return f"{self.message} {self.advice}".strip()


_WAITING, _UNUSABLE = AnnotationState.WAITING, AnnotationState.UNUSABLE
_NONE = AnnotationState.NO_ANNOTATION
_R = AnnotationReason

ANNOTATION_REASONS: Mapping[AnnotationReason, AnnotationText] = {
    _R.NO_IMAGES: AnnotationText(
        _WAITING, "The node does not hold the axial T2W images of this study.",
        "Send the study; the annotation is then taken up.",
    ),
    _R.ANALYSIS_OPEN: AnnotationText(
        _WAITING, "The study is still being received or analysed, or it is held.",
        "Nothing to do: the annotation is taken up afterwards.",
    ),
    _R.UNREADABLE: AnnotationText(
        _UNUSABLE, "The object cannot be read.", "Store it again from the viewer, uncompressed."
    ),
    _R.DAMAGED: AnnotationText(
        _UNUSABLE, "The stored file no longer equals what was received.",
        "Check the disk, then send the object again.",
    ),
    _R.SAME_UID_OTHER_BYTES: AnnotationText(
        _UNUSABLE, "It came twice under one SOP Instance UID with different content.",
        "Both are kept. Store the right one again as a new object.",
    ),
    _R.GEOMETRY: AnnotationText(
        _UNUSABLE, "Its frames have no position, or no regular one.",
        "Draw it on the axial T2W series and store it again.",
    ),
    _R.OTHER_FRAME_OF_REFERENCE: AnnotationText(
        _UNUSABLE, "It was drawn in another frame of reference than that of the T2W images.",
        "Draw it on the axial T2W series.",
    ),
    _R.OTHER_STUDY: AnnotationText(
        _UNUSABLE, "It was drawn on images of another study.",
        "Draw it on the axial T2W series of this study.",
    ),
    _R.OTHER_PATIENT: AnnotationText(
        _UNUSABLE, "It names another patient than the images of the study.",
        "Correct it in the PACS.",
    ),
    _R.OUTSIDE: AnnotationText(
        _UNUSABLE, "Nothing of it lies inside the axial T2W images.",
        "Draw it on the axial T2W series.",
    ),
    _R.EMPTY: AnnotationText(
        _UNUSABLE, "It marks nothing.",
        "To say that there is no lesion, verify the report or reject its findings.",
    ),
    _R.UNNAMED: AnnotationText(
        _UNUSABLE, "Neither codes nor names nor place say what its segments are.",
        "Name the segments: Lesion 1, Prostate, Peripheral zone, Transition zone.",
    ),
    _R.MACHINE_MADE: AnnotationText(
        _NONE, "A program made it, and no person changed it.", ""
    ),
    _R.NOTHING_SAID: AnnotationText(
        _NONE, "It says nothing about a finding of the node.", ""
    ),
}  # fmt: skip
"""Every reason with its words."""


class AnnotationProblem(Exception):
    """An annotation waits or is not used; ``detail`` adds to the words of the reason."""

    def __init__(self, reason: AnnotationReason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """Plain words: what is wrong, the detail, what to do."""
        text = ANNOTATION_REASONS[self.reason]
        return " ".join(part for part in (text.message, self.detail, text.advice) if part)
