"""The serum PSA, where a study tells it: as a coded number of a report, or in words with a unit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

_PSA_CODE = ("2857-1", "LN")  # PS3.16 CID 6352
_UNITS = frozenset({"ng/mL", "ug/L"})  # one and the same amount
_IN_WORDS = (
    "AdditionalPatientHistory", "PatientComments", "StudyComments",
    "ReasonForTheRequestedProcedure", "ReasonForStudy", "RequestedProcedureComments",
    "AdmittingDiagnosesDescription",
)  # fmt: skip
# a value counts only with its unit; "free PSA" and "PSA density" are other quantities
_TOLD = re.compile(
    r"(?<![A-Za-z])(?<!free )(?<!f)PSA\s*(?:level|value|total)?\s*[:=]?\s*(?:of|is)?\s*"
    r"(\d{1,4}(?:[.,]\d{1,3})?)\s*(?:ng\s*/\s*ml|[\u00b5\u03bcu]g\s*/\s*l)(?!\s*/)",
    re.IGNORECASE,
)
_MOST_NG_ML = 10_000.0


@dataclass(frozen=True)
class FoundPsa:
    """A PSA in ng/mL, and where it was read, in words."""

    value_ng_ml: float
    source: str


def find_psa(datasets: Iterable[Dataset]) -> FoundPsa | None:
    """Return the PSA that the data sets of a study tell.

    A coded number goes before words. Where values of one kind contradict each other none is
    taken: a wrong PSA density is worse than none.
    """
    told = list(datasets)
    for values in (list(_coded(told)), list(_in_words(told))):
        if len({found.value_ng_ml for found in values}) == 1:
            return values[0]
        if values:
            return None
    return None


def _coded(datasets: Iterable[Dataset]) -> Iterator[FoundPsa]:
    for dataset in datasets:
        for item in _content(dataset):
            value = _coded_value(item)
            if value is not None:
                date = str(dataset.get("ContentDate") or dataset.get("StudyDate") or "no date")
                yield FoundPsa(value, f"coded in a report of the study ({date})")


def _coded_value(item: Dataset) -> float | None:
    try:
        name, measured = item.ConceptNameCodeSequence[0], item.MeasuredValueSequence[0]
        unit = str(measured.MeasurementUnitsCodeSequence[0].CodeValue)
        code = (str(name.CodeValue), str(name.CodingSchemeDesignator))
        value = float(measured.NumericValue)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return value if code == _PSA_CODE and unit in _UNITS and 0 < value < _MOST_NG_ML else None


def _content(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence") or []:
        yield item
        yield from _content(item)


def _in_words(datasets: Iterable[Dataset]) -> Iterator[FoundPsa]:
    for dataset in datasets:
        for keyword in _IN_WORDS:
            for match in _TOLD.finditer(str(dataset.get(keyword) or "")):
                value = float(match.group(1).replace(",", "."))
                if 0 < value < _MOST_NG_ML:
                    yield FoundPsa(value, f"from the text of {keyword}")
