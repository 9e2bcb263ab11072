"""What is kept of a study to watch its scanner: measured by the model process, or read back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_core.types import Case, CaseResult, Volume
from dicom_node.dicom.header import HeaderError, InstanceHeader, read_header
from dicom_node.domain.drift import FIGURES, Scanner
from dicom_node.store.observation_rows import Observation, Unobserved

if TYPE_CHECKING:
    from dicom_node.flow.study import StudyOutcome
    from dicom_node.store.store import Store

KEY = "observed"
"""Where the observation stands in the `result.json` of a revision."""
MAX_TESLA = 30.0
"""A larger field strength is in gauss, as old scanners wrote it."""
_PAGE = 100


def observe(headers: Sequence[InstanceHeader], outcome: StudyOutcome) -> dict[str, Any]:
    """Return what is kept of a study as plain values; the inverse is `observation`."""
    values: dict[str, float | str] = {"outcome": str(outcome.reason or outcome.state)}
    case, result = outcome.case, outcome.result
    if case is not None:
        values |= _of_case(case)
    if result is not None:
        values |= _of_result(result)
    return {
        "scanner": asdict(scanner_of(headers, outcome.inputs.get("t2w"))),
        "values": values,
        "release_sha256": outcome.release.sha256 if outcome.release else "",
    }


def scanner_of(headers: Iterable[InstanceHeader], series_uid: str | None) -> Scanner:
    """Return the scanner of a series, or where it has none the one of most MR images."""
    images = [header for header in headers if header.modality == "MR"]
    chosen = [header for header in images if header.series_uid == series_uid] or images
    found = Counter(
        Scanner(
            header.station.strip(), header.manufacturer.strip(), header.model.strip(),
            _tesla(header.field_strength_t),
        )
        for header in chosen
    )  # fmt: skip
    return min(found, key=lambda one: (-found[one], one), default=Scanner())


def _tesla(value: float | None) -> float:
    """Field strength to a tenth: one scanner writes 2.89 and 3."""
    tesla = abs(value or 0.0)
    return round(tesla / 1e4 if tesla > MAX_TESLA else tesla, 1)


def _of_case(case: Case) -> dict[str, float | str]:
    diffusion = case.adc or (case.dwi[-1].volume if case.dwi else None)
    b_values = sorted({round(one.b_value_s_per_mm2) for one in case.dwi})
    named = {"adc": case.adc, "high_b": case.high_b, "dce": case.dce}
    values: dict[str, float | str] = {
        "t2w_spacing_mm": _spacing(case.t2w)[0],
        "t2w_slice_mm": _spacing(case.t2w)[1],
        "b_values": " ".join(map(str, b_values)) or "none",
        "images": " ".join(["t2w", *(name for name, image in named.items() if image is not None)]),
    }
    if diffusion is not None:
        values["diffusion_spacing_mm"] = _spacing(diffusion)[0]
    return values


def _spacing(volume: Volume) -> tuple[float, float]:
    x, _, z = volume.geometry.spacing_xyz_mm
    return round(x, 3), round(z, 2)


def _of_result(result: CaseResult) -> dict[str, float | str]:
    measured = {name: value for name, value in result.measures.items() if name in FIGURES}
    return {
        **measured,
        "likelihood": result.case_likelihood,
        "findings": float(len(result.findings)),
        "lesions_ml": sum(finding.volume_ml for finding in result.findings),
        "gland_ml": result.gland.volume_ml,
    }


def observation(told: Mapping[str, Any]) -> Observation:
    """Read back what `observe` returned; figures that this version does not know are left out.

    Raises:
        ValueError: it is something else.
    """
    try:
        values = {name: value for name, value in told["values"].items() if name in FIGURES}
        return Observation(Scanner(**told["scanner"]), values, told["release_sha256"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an observation: {error}") from None


def fill_in(store: Store, data_dir: Path) -> int:
    """Observe the studies whose outcome is older than the tables, or came back with `recover`.

    Returns how many. What an old result does not tell (input measures) stays unknown.
    """
    done, after = 0, 0
    while page := store.unobserved(after, _PAGE):
        for one in page:
            store.observe(one, _read_back(store, data_dir, one))
        done, after = done + len(page), page[-1].revision_id
    return done


def _read_back(store: Store, data_dir: Path, one: Unobserved) -> Observation:
    try:
        told = json.loads((data_dir / one.folder / "result.json").read_bytes())
        if KEY in told:
            return observation(told[KEY])
        return _from_json(told, _headers(store, data_dir, one.study_uid))
    except (OSError, ValueError, KeyError, TypeError):
        return Observation(scanner_of(_headers(store, data_dir, one.study_uid), None), {})


def _headers(store: Store, data_dir: Path, study_uid: str) -> list[InstanceHeader]:
    """One header of each series, read from the file: rows of before do not name the field."""
    first = {row.series_uid: row for row in store.headers_of(study_uid) if row.role == "image"}
    found = []
    for row in first.values():
        try:
            found.append(read_header(data_dir / row.path))
        except (OSError, HeaderError):
            found.append(InstanceHeader.from_json(row.header_json))
    return found


def _from_json(told: Mapping[str, Any], headers: Sequence[InstanceHeader]) -> Observation:
    values: dict[str, float | str] = {"outcome": str(told["reason"] or told["state"])}
    if told["state"] == "analysed":
        findings = told["findings"]
        values |= {
            "likelihood": told["case"]["likelihood_percent"] / 100,
            "findings": float(len(findings)),
            "lesions_ml": float(sum(one["volume_ml"] for one in findings)),
            "gland_ml": float(told["gland"]["volume_ml"]),
        }
    model = told["model"] or {}
    scanner = scanner_of(headers, told["inputs"]["t2w"])
    return Observation(scanner, values, model.get("sha256", ""))
