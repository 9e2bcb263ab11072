"""What retention and the store tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.domain.retention import Rules, StudyFacts


@dataclass(frozen=True)
class RetentionRules:
    """The rules, and the destinations that still wait for what they did not get."""

    rules: Rules
    awaited: frozenset[str]


@dataclass(frozen=True)
class StudyPlace:
    """Where a study stands in the order of age: the next page begins after it."""

    last_image_at_s: float
    study_id: int


@dataclass(frozen=True)
class Kept:
    """What is on the disk of a study, and what the decision about it needs."""

    study_id: int
    study_uid: str
    facts: StudyFacts
    images: int
    image_bytes: int
    results: int
    result_bytes: int


@dataclass(frozen=True)
class Removed:
    """What was marked as removed of a study: numbers by SOP class, bytes, and why in words."""

    study_id: int
    study_uid: str
    images: Mapping[str, int]
    results: Mapping[str, int]
    freed_bytes: int
    why: str
