"""A PSA counts only where the study tells it beyond doubt."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.dicom.psa import find_psa


def text(words: str, keyword: str = "AdditionalPatientHistory") -> Dataset:
    dataset = Dataset()
    setattr(dataset, keyword, words)
    return dataset


def report(value: float, unit: str = "ng/mL", code: str = "2857-1") -> Dataset:
    number = Dataset()
    name, measured, units = Dataset(), Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator = code, "LN"
    units.CodeValue, units.CodingSchemeDesignator = unit, "UCUM"
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = str(value), [units]
    number.ConceptNameCodeSequence, number.MeasuredValueSequence = [name], [measured]
    container, dataset = Dataset(), Dataset()
    container.ContentSequence, dataset.ContentSequence = [number], [container]
    dataset.ContentDate = "20260101"
    return dataset


@pytest.mark.parametrize(
    ("words", "value"),
    [("PSA 7.2 ng/mL", 7.2), ("elevated PSA: 12 ng/ml, biopsy negative", 12.0),
     ("psa=4,5 ng/ml", 4.5), ("PSA level of 10.25 µg/l", 10.25), ("S/P TURP PSA 3.1ng/ml", 3.1)],
)  # fmt: skip
def test_words_with_a_unit(words: str, value: float) -> None:
    found = find_psa([text(words)])
    assert found is not None
    assert found.value_ng_ml == value
    assert "AdditionalPatientHistory" in found.source


@pytest.mark.parametrize(
    "words",
    ["PSA 7.2", "PSA density 0.15 ng/ml/cc", "free PSA 1.2 ng/ml", "fPSA 1.2 ng/ml",
     "PSA 0 ng/ml", "NPSA 7 ng/ml", "PSA 7.2 ng/ml/cm3", "PSA rising", ""],
)  # fmt: skip
def test_words_that_say_something_else(words: str) -> None:
    assert find_psa([text(words)]) is None


def test_contradicting_values_give_none() -> None:
    assert find_psa([text("PSA 4 ng/ml (2020), PSA 7 ng/ml (2025)")]) is None
    assert find_psa([report(4.0), report(7.0), text("PSA 7 ng/ml")]) is None


def test_a_coded_number_goes_before_words() -> None:
    found = find_psa([text("PSA 7 ng/ml"), report(6.4)])
    assert found is not None
    assert (found.value_ng_ml, "20260101" in found.source) == (6.4, True)


def test_other_units_and_codes_do_not_count() -> None:
    assert find_psa([report(6.4, unit="ng/dL")]) is None
    assert find_psa([report(6.4, code="15325-4")]) is None
    assert find_psa([Dataset()]) is None
