"""The core on files: volumes in, NIfTI maps and `result.json` out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_core.errors import InputError
from ai_core.pipeline import analyse
from ai_core.release import load_release
from ai_core.types import Case, CaseResult, DceSeries, DwiVolume, Finding
from ai_core.volume_io import read_volume, write_volume


@dataclass(frozen=True)
class Inputs:
    """Files of one examination; ``hbv_b`` in s/mm^2, ``dce_interval_s`` between phases."""

    t2w: Path
    adc: Path | None
    hbv: Path | None
    hbv_b: float
    dce: tuple[Path, ...]
    dce_interval_s: float


@dataclass(frozen=True)
class Machine:
    """Where and with what numbers to compute; see `load_release`."""

    device: str = "auto"
    precision: str = "auto"
    synthesis: bool = True


def predict_files(
    inputs: Inputs, out: Path, release: Path | None, machine: Machine
) -> dict[str, Any]:
    """Analyse files, write the maps and `result.json` to ``out``; returns the report.

    Raises:
        InputError, GeometryError: a file cannot be used.
        ReleaseError: the release cannot be used.
    """
    start = time.perf_counter()
    case = read_case(inputs)
    read = time.perf_counter()
    loaded = load_release(release, machine.device, machine.precision, synthesis=machine.synthesis)
    load = time.perf_counter()
    result = analyse(case, loaded)
    done = time.perf_counter()
    names = write_maps(result, out)
    timings = {"read": read - start, "load": load - read, **result.timings_s}
    timings["encode"] = time.perf_counter() - done
    report = as_report(result, inputs, [str(out / name) for name in names], timings)
    (out / "result.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def read_case(inputs: Inputs) -> Case:
    """Read all files of an examination."""
    if inputs.adc is None:
        raise InputError("no ADC map was given", "Give it with --adc.")
    high_b = None
    if inputs.hbv is not None:
        high_b = DwiVolume(read_volume(inputs.hbv), inputs.hbv_b)
    phases = tuple(read_volume(path) for path in inputs.dce)
    times = tuple(inputs.dce_interval_s * i for i in range(len(phases)))
    return Case(
        t2w=read_volume(inputs.t2w),
        adc=read_volume(inputs.adc),
        high_b=high_b,
        dce=DceSeries(phases, times) if phases else None,
    )


def write_maps(result: CaseResult, out: Path) -> list[str]:
    """Write all maps on the T2W grid as NIfTI; returns the file names."""
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "gland": result.gland_mask,
        "zones": result.zones,
        "lesions": result.lesions,
        "likelihood": result.likelihood,
        "relevance": result.relevance,
        **_abnormality(result),
        **{f"map-{name.value}": values for name, values in result.modality_maps.items()},
    }
    for name, array in arrays.items():
        write_volume(array, result.geometry, out / f"{name}.nii.gz")
    return [f"{name}.nii.gz" for name in arrays]


def _abnormality(result: CaseResult) -> dict[str, Any]:
    found = result.synthesis and result.synthesis.abnormality
    return {} if found is None else {"abnormality": found}


def as_report(
    result: CaseResult, inputs: Inputs, outputs: list[str], timings: dict[str, float]
) -> dict[str, Any]:
    """Return the JSON document of an analysis."""
    credible = result.gland.credible
    doubt = next((q for q in result.quality), None)
    return {
        "study_uid": None,
        "state": "analysed" if credible else "not_analysable",
        "reason": None if credible else "no_credible_gland",
        "message": None if credible or doubt is None else doubt.message,
        "case": {
            "likelihood_percent": round(100 * result.case_likelihood, 1),
            "significant": result.case_significant,
        }
        if credible
        else None,
        "gland": {"volume_ml": round(result.gland.volume_ml, 1)} if credible else None,
        "findings": [_finding(f) for f in result.findings] if credible else None,
        "inputs": {
            "t2w": str(inputs.t2w),
            "adc": str(inputs.adc) if inputs.adc else None,
            "high_b": str(inputs.hbv) if inputs.hbv else None,
            "dce": [str(path) for path in inputs.dce] or None,
        },
        "used": dict(result.used),
        "quality": [
            {"code": q.code.value, "message": q.message, "value": q.value} for q in result.quality
        ],
        "input_quality": {
            "adequate": not result.inadequate,
            "reasons": [q.code.value for q in result.inadequate],
            "measures": {name: round(value, 3) for name, value in result.measures.items()},
        },
        **_synthesis(result),
        "outputs": outputs,
        "model": {
            "name": result.release.name,
            "version": result.release.version,
            "sha256": result.release.sha256,
        },
        "timings_s": {name: round(value, 3) for name, value in timings.items()},
    }


def _synthesis(result: CaseResult) -> dict[str, Any]:
    said = result.synthesis
    if said is None:
        return {}
    figures = {"typical": round(said.typical, 3), "limit": round(said.limit, 3)}
    return {"synthesis": {"credible": said.abnormality is not None, **figures}}


def _finding(finding: Finding) -> dict[str, Any]:
    adc, abnormality = finding.mean_adc_um2_s, finding.abnormality
    branch = {} if abnormality is None else {"abnormality": round(abnormality, 2)}
    return {
        "rank": finding.rank,
        "center_lps_mm": [round(v, 2) for v in finding.center_lps_mm],
        "volume_ml": round(finding.volume_ml, 2),
        "longest_diameter_mm": round(finding.longest_diameter_mm, 1),
        "likelihood_percent": round(100 * finding.likelihood, 1),
        "significant": finding.significant,
        "suspicion_score": round(finding.suspicion_score, 1),
        "sector": finding.sector,
        "mean_adc_um2_s": None if adc is None else round(adc, 0),
        "uncertainty": round(finding.uncertainty, 3),
        **branch,
    }
