"""Writes an annotated examination in the PI-CAI layout, as `ai-core train` and `evaluate` read it.

A folder grows case by case: each has its record in ``parameters/``, and ``marksheet.csv`` is made
anew from all of them. Nothing in it names a patient but the name that the caller chose.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ai_core.errors import InputError
from ai_core.prepare.diffusion import extrapolate, fit_adc
from ai_core.prepare.geometry import resample, to_sitk
from ai_core.types import Case, DwiVolume, FloatArray, Geometry, LabelArray, Volume
from ai_core.volume_io import write_volume

LESIONS = Path("labels/csPCa_lesion_delineations/human_expert/resampled")
GLAND = Path("labels/anatomical_delineations/whole_gland")
ZONES = Path("labels/anatomical_delineations/zonal_pz_tz")
COMPUTED_B = 1400.0
COLUMNS = (
    "patient_id", "study_id", "mri_date", "patient_age", "psa", "psad", "prostate_volume",
    "histopath_type", "lesion_GS", "lesion_ISUP", "case_ISUP", "case_csPCa", "center",
)  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """Truth on the T2W grid: significant lesions 0/1, gland 0/1, zones 1 PZ and 2 TZ."""

    lesions: LabelArray
    gland: LabelArray
    zones: LabelArray


def write_labelled(
    name: str, case: Case, labels: Labels, out: Path, about: Mapping[str, Any] | None = None
) -> None:
    """Write one examination; one of this name is replaced.

    Args:
        name: ``<patient>_<study>``; examinations of one patient are never split by training.
        case: its images.
        labels: on the grid of ``case.t2w``.
        out: the folder of the data set.
        about: kept beside the case: where the labels come from.

    Raises:
        InputError: the name is not of that form, labels lie on another grid, or the case has
            neither ADC nor two b-values.
    """
    patient, study = _parts(name)
    grid = case.t2w.geometry
    for array in (labels.lesions, labels.gland, labels.zones):
        if array.shape != grid.shape_zyx:
            raise InputError(f"labels of {name} lie on another grid", "Resample them to T2W.")
    site = _write_images(name, case, out)
    for folder, array in ((LESIONS, labels.lesions), (GLAND, labels.gland), (ZONES, labels.zones)):
        _write(out / folder / f"{name}.nii.gz", array.astype(np.uint8), grid)
    row = _row(patient, study, labels, grid)
    _record(name, case, out, {"annotation": dict(about or {}), "row": row, **site})
    _write_marksheet(out)


def write_images(name: str, case: Case, out: Path) -> None:
    """Write an examination that nobody annotated, as `write_labelled` writes its images.

    Raises:
        InputError: the name is not of that form, or the case has neither ADC nor two b-values.
    """
    _parts(name)
    _record(name, case, out, _write_images(name, case, out))


def _parts(name: str) -> tuple[str, str]:
    patient, _, study = name.partition("_")
    if not patient or not study or "_" in study:
        raise InputError(f"{name!r} names no examination", "Use <patient>_<study>.")
    return patient, study


def _write_images(name: str, case: Case, out: Path) -> dict[str, Any]:
    """Write the images; returns what a reader has to know about them."""
    adc, grid = _adc(case), case.t2w.geometry
    images = out / "images" / _parts(name)[0]
    _write(images / f"{name}_t2w.mha", case.t2w.array.astype(np.float32), grid)
    _write(images / f"{name}_adc.mha", adc.array.astype(np.float32), adc.geometry)
    high_b = case.high_b or _computed(case, adc)
    if high_b is not None:
        volume = high_b.volume
        _write(images / f"{name}_hbv.mha", volume.array.astype(np.float32), volume.geometry)
    _write_phases(images / f"{name}_dce.mha", case)
    site = {} if high_b is None else {"high_b": high_b.b_value_s_per_mm2}
    return {"parameters": {"site": site}}


def _record(name: str, case: Case, out: Path, about: Mapping[str, Any]) -> None:
    times = list(case.dce.times_s) if case.dce else []
    record = {"name": name, "dce_times_s": times, **about}
    _text(out / "parameters" / f"{name}.json", json.dumps(record))


def _write(path: Path, array: Any, geometry: Geometry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    write_volume(array, geometry, part)
    part.replace(path)


def _adc(case: Case) -> Volume:
    """ADC in um2/s where its unit is known, as read where it is not, fitted where there is none."""
    if case.adc is not None:
        factor = case.adc_to_um2_s or 1.0
        return Volume(case.adc.array.astype(np.float32) * np.float32(factor), case.adc.geometry)
    acquired = [one for one in case.dwi if not one.computed]
    if len({one.b_value_s_per_mm2 for one in acquired}) < 2:
        raise InputError(
            "there is no ADC map and no diffusion with two b-values",
            "Export an examination that has one.",
        )
    grid = acquired[0].volume.geometry
    signals = [_on(one.volume, grid) for one in acquired]
    return Volume(fit_adc(signals, [one.b_value_s_per_mm2 for one in acquired]), grid)


def _on(volume: Volume, grid: Geometry) -> FloatArray:
    if volume.geometry == grid:
        return volume.array.astype(np.float32)
    return resample(to_sitk(volume), grid)


def _computed(case: Case, adc: Volume) -> DwiVolume | None:
    """Return the largest b-value, or an image computed from it and an ADC of known unit."""
    if not case.dwi:
        return None
    largest = max(case.dwi, key=lambda one: one.b_value_s_per_mm2)
    grid, b = largest.volume.geometry, largest.b_value_s_per_mm2
    if b >= COMPUTED_B:
        return largest
    if case.adc is not None and case.adc_to_um2_s is None:
        return None
    signal = largest.volume.array.astype(np.float32)
    image = extrapolate(signal, b, _on(adc, grid), COMPUTED_B)
    return DwiVolume(Volume(image, grid), COMPUTED_B, computed=True)


def _write_phases(path: Path, case: Case) -> None:
    if case.dce is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    joined = sitk.JoinSeries([to_sitk(phase) for phase in case.dce.phases])
    sitk.WriteImage(joined, str(part), useCompression=True)
    part.replace(path)


def _row(patient: str, study: str, labels: Labels, grid: Geometry) -> dict[str, str]:
    volume_ml = float((labels.gland > 0).sum()) * grid.voxel_volume_mm3 / 1000
    return {
        "patient_id": patient, "study_id": study, "prostate_volume": f"{volume_ml:.1f}",
        "histopath_type": "none", "case_csPCa": "YES" if labels.lesions.any() else "NO",
        "center": "site",
    }  # fmt: skip


def _write_marksheet(out: Path) -> None:
    rows = []
    for path in sorted((out / "parameters").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "row" in record:
            rows.append(record["row"])
    part = out / ".part-marksheet"
    with part.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(out / "marksheet.csv")


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
