"""The clinical table of PI-CAI, `marksheet.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_core.errors import InputError

NEEDED = ("patient_id", "study_id")
UNKNOWN = {"", "n/a", "na", "nan", "none"}


@dataclass(frozen=True)
class ClinicalRow:
    """One examination. None where the table does not say.

    ``lesion_isup`` and ``lesion_pirads`` list recorded lesions in the table's order.
    """

    patient_id: str
    study_id: str
    age_years: float | None
    psa_ng_ml: float | None
    volume_ml: float | None
    case_isup: int | None
    significant: bool | None
    lesion_isup: tuple[int | None, ...]
    lesion_pirads: tuple[int | None, ...]
    center: str | None

    @property
    def name(self) -> str:
        """Name of the examination: patient and study."""
        return f"{self.patient_id}_{self.study_id}"


def read_marksheet(path: Path) -> dict[str, ClinicalRow]:
    """Read the table; keys are ``<patient>_<study>``.

    Raises:
        InputError: the file is not readable, a needed column is missing, or a number is not one.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            missing = sorted(set(NEEDED) - set(reader.fieldnames or ()))
            if missing:
                raise InputError(
                    f"{path} has no column {missing[0]}", "Use the marksheet.csv of PI-CAI."
                )
            rows = [_row(values, path, reader.line_num) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}", "Check the file.") from error
    return {row.name: row for row in rows}


def _row(values: Mapping[str, str | None], path: Path, line: int) -> ClinicalRow:
    def number(column: str) -> float | None:
        return _number(values.get(column), f"{path} line {line}, {column}")

    def list_of(column: str) -> tuple[int | None, ...]:
        text = (values.get(column) or "").strip()
        if not text:
            return ()
        where = f"{path} line {line}, {column}"
        found = [_number(part, where) for part in text.split(",")]
        return tuple(None if v is None else int(v) for v in found)

    isup = number("case_ISUP")
    flag = (values.get("case_csPCa") or "").strip().upper()
    said = {"YES": True, "NO": False}.get(flag)
    return ClinicalRow(
        patient_id=(values["patient_id"] or "").strip(),
        study_id=(values["study_id"] or "").strip(),
        age_years=number("patient_age"),
        psa_ng_ml=number("psa"),
        volume_ml=number("prostate_volume"),
        case_isup=None if isup is None else int(isup),
        significant=said if said is not None else (None if isup is None else isup >= 2),
        lesion_isup=list_of("lesion_ISUP"),
        lesion_pirads=list_of("lesion_PIRADS"),
        center=(values.get("center") or "").strip() or None,
    )


def _number(text: str | None, where: str) -> float | None:
    cleaned = (text or "").strip()
    if cleaned.lower() in UNKNOWN:
        return None
    try:
        return float(cleaned)
    except ValueError as error:
        raise InputError(f"{where}: {cleaned!r} is not a number", "Correct the table.") from error
