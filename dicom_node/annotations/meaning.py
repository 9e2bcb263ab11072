"""What a segment is: by its codes, else by its name (PS3.16 CID 7150, 7151, 6300)."""

from __future__ import annotations

import re
from enum import StrEnum

from pydicom.sr.coding import Code

from dicom_node.annotations.access import same_code
from dicom_node.annotations.segmentation import SegmentInfo


class Meaning(StrEnum):
    """What a segment shows. ``other``: known, and of no use here."""

    LESION = "lesion"
    GLAND = "gland"
    PERIPHERAL_ZONE = "peripheral_zone"
    TRANSITION_ZONE = "transition_zone"
    OTHER = "other"
    UNKNOWN = "unknown"


def _sct(value: str) -> Code:
    return Code(value, "SCT", "")


ABNORMAL = _sct("49755003")
"""Category "Morphologically Abnormal Structure"."""

TYPES: tuple[tuple[Code, Meaning], ...] = (
    (_sct("52988006"), Meaning.LESION),  # Lesion
    (_sct("108369006"), Meaning.LESION),  # Neoplasm
    (_sct("86049000"), Meaning.LESION),  # Malignant neoplasm, primary
    (_sct("4147007"), Meaning.LESION),  # Mass
    (_sct("41216001"), Meaning.GLAND),  # Prostate
    (Code("T-9200B", "SRT", ""), Meaning.GLAND),  # Prostate, as older writers code it
    (_sct("279706003"), Meaning.PERIPHERAL_ZONE),
    (_sct("399384005"), Meaning.TRANSITION_ZONE),
    (_sct("717025007"), Meaning.OTHER),  # Anterior fibromuscular stroma
    (_sct("716900007"), Meaning.OTHER),  # Central zone, right
    (_sct("716901006"), Meaning.OTHER),  # Central zone, left
    (_sct("13648007"), Meaning.OTHER),  # Urethra
    (_sct("71553001"), Meaning.OTHER),  # Prostatic urethra
    (_sct("64739004"), Meaning.OTHER),  # Seminal vesicle
    (_sct("89837001"), Meaning.OTHER),  # Urinary bladder
    (_sct("34402009"), Meaning.OTHER),  # Rectum
)

NAMES: tuple[tuple[re.Pattern[str], Meaning], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in (
        (r"\bbph\b|benign|cyst|prostatitis|haemorrhage|hemorrhage", Meaning.OTHER),
        (r"urethra|seminal|bladder|rectum|bowel|bone|node\b|vessel", Meaning.OTHER),
        (r"l[aeä]sion|tumou?r|cancer|carcinoma|\b(cs)?pca\b|pi-?rads", Meaning.LESION),
        (r"finding|nodul|suspicious|\bmass\b|\btarget\b|\bindex\b|\broi\b", Meaning.LESION),
        (r"\bpz\b|periph", Meaning.PERIPHERAL_ZONE),
        (r"\btz\b|transition|\bcg\b|central gland", Meaning.TRANSITION_ZONE),
        (r"prostat|gland|\bwg\b", Meaning.GLAND),
    )
)
"""Tried in order: "peripheral zone lesion" is a lesion."""


def meaning_of(segment: SegmentInfo) -> tuple[Meaning, str]:
    """Return what a segment shows, and what says so: ``code``, ``name`` or ''."""
    for code, meaning in TYPES:
        if same_code(segment.type, code):
            return meaning, "code"
    if same_code(segment.category, ABNORMAL):
        return Meaning.LESION, "code"
    for text in (segment.label, segment.description):
        for pattern, meaning in NAMES:
            if pattern.search(text):
                return meaning, "name"
    return Meaning.UNKNOWN, ""
