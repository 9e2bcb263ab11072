"""The same-patient rule, and what a difference between two copies of one instance means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# PS3.5 9.1: digits and dots, 64 characters at most. Components with a leading zero are wrong but
# occur in the field; they are harmless here, and refusing them would lose clinical images.
_UID = re.compile(r"[0-9]+(\.[0-9]+)+", re.ASCII)


def is_uid(value: str) -> bool:
    """Whether a string from the network can stand as a DICOM UID."""
    return 0 < len(value) <= 64 and _UID.fullmatch(value) is not None


@dataclass(frozen=True)
class Identity:
    """Who an image says it shows: Patient ID, issuer, birth date (YYYYMMDD). Empty: not given."""

    patient_id: str = ""
    issuer: str = ""
    birth_date: str = ""

    @classmethod
    def of(cls, patient_id: str | None, issuer: str | None, birth_date: str | None) -> Identity:
        """Build from header values; spaces around them say nothing (PS3.5 6.2).

        A NUL inside is no character of any value, and PostgreSQL stores none: it is left out.
        """
        given = (patient_id, issuer, birth_date)
        values = [(value or "").replace("\0", "").strip(" ") for value in given]
        return cls(*values)


def same_patient(one: Identity, other: Identity) -> bool:
    """Whether two images can belong to one patient.

    The Patient ID must be equal; a missing one equals only a missing one. Issuer and birth date
    contradict only where both are given. A differing name alone is no contradiction (it warns).
    """
    return one.patient_id == other.patient_id and all(
        not a or not b or a == b
        for a, b in ((one.issuer, other.issuer), (one.birth_date, other.birth_date))
    )


def agree(identities: Iterable[Identity]) -> bool:
    """Whether all images can belong to one patient (pairwise)."""
    known = list(dict.fromkeys(identities))
    return all(same_patient(a, b) for i, a in enumerate(known) for b in known[i + 1 :])


class Difference(StrEnum):
    """What two copies of one SOP instance differ in, from harmless to dangerous."""

    SAME = "same"
    METADATA = "metadata"
    DEMOGRAPHICS = "demographics"
    OTHER = "other"


# Patient and study attributes outside group 0010 that a PACS corrects (PS3.4 C.6.1.1, study level)
_STUDY_LEVEL = frozenset(
    {
        0x00080005, 0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080080, 0x00080081,
        0x00080090, 0x00081030, 0x00080201, 0x00081010, 0x00081040, 0x00081048, 0x00081050,
        0x00081060, 0x00081070, 0x00200010, 0x00321032, 0x00321060, 0x00321064, 0x00401002,
    }
)  # fmt: skip
# Frame type, SOP class, modality and references decide how pixels are read
_DECIDING_0008 = frozenset({0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00089205, 0x00089206})
_DECIDING_GROUPS = frozenset({0x0018, 0x0020, 0x0028, 0x0054, 0x5200, 0x7FE0})


def classify_difference(tags: Iterable[int]) -> Difference:
    """Judge the set of tags in which two copies of an instance differ.

    Pixels, geometry and acquisition: ``OTHER``. Patient and study attributes: ``DEMOGRAPHICS``.
    Anything else (private elements, dates of creation, procedure steps): ``METADATA``.
    """
    found = set(tags)
    if not found:
        return Difference.SAME
    demographic = {tag for tag in found if tag >> 16 == 0x0010 or tag in _STUDY_LEVEL}
    rest = found - demographic
    if any(tag in _DECIDING_0008 or tag >> 16 in _DECIDING_GROUPS for tag in rest):
        return Difference.OTHER
    return Difference.DEMOGRAPHICS if demographic else Difference.METADATA
