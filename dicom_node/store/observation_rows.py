"""What is watched for drift, as it goes into the store and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node.domain.drift import Scanner


@dataclass(frozen=True)
class Observation:
    """What was measured on a study; ``values`` by name of the figure (`domain.drift`).

    ``release_sha256``: what analysed it; empty where nothing did.
    """

    scanner: Scanner
    values: Mapping[str, float | str]
    release_sha256: str = ""


@dataclass(frozen=True)
class ObservedStudy:
    """An observation in a window. ``findings``: what its annotation says of each finding."""

    at_s: float
    values: Mapping[str, float | str]
    findings: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class ScannerRow:
    """A scanner. ``reference_after``: id of the observation after which its reference begins."""

    id: int
    scanner: Scanner
    reference_after: int
    alarms: frozenset[str]
    studies: int


@dataclass(frozen=True)
class Unobserved:
    """A revision that has an outcome and was not measured; ``folder`` of its results."""

    revision_id: int
    study_uid: str
    number: int
    folder: str
    at_s: float
