"""Writing simulated cases: NIfTI in the layout of the public PI-CAI data, and training shards."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ai_core.geometry import index_to_lps
from ai_core.sim.anatomy import draw_anatomy
from ai_core.sim.dataset import cache_geometry, case_path, save_case
from ai_core.sim.raster import rasterise
from ai_core.sim.sites import Site, draw_site
from ai_core.sim.study import SimulatedStudy, simulate_study
from ai_core.types import Volume

_LESIONS = Path("labels/csPCa_lesion_delineations/human_expert/resampled")
_GLAND = Path("labels/anatomical_delineations/whole_gland")
_ZONES = Path("labels/anatomical_delineations/zonal_pz_tz")
_COLUMNS = (
    "patient_id",
    "study_id",
    "mri_date",
    "patient_age",
    "psa",
    "psad",
    "prostate_volume",
    "histopath_type",
    "lesion_GS",
    "lesion_ISUP",
    "case_ISUP",
    "case_csPCa",
    "center",
)
_GLEASON = {0: "0+0", 1: "3+3", 2: "3+4", 3: "4+3", 4: "4+4", 5: "4+5"}


def write_nifti(volume: Volume, path: Path, dtype: type[np.generic] = np.float32) -> None:
    """Write a volume as NIfTI. The array becomes ``[x, y, z]`` and the affine RAS millimetres."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ index_to_lps(volume.geometry)
    data = np.ascontiguousarray(volume.array.transpose(2, 1, 0)).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    part = path.with_name(f".part-{path.name}")
    nibabel.save(image, part)
    part.replace(path)


def simulate_to_folder(
    out: Path,
    cases: int,
    seed: int,
    sites: Sequence[Site] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write ``cases`` simulated examinations; finished ones are skipped. Returns their JSON files.

    Layout: ``images/<patient>/<patient>_<study>_{t2w,adc,hbv,dce}.nii.gz``, ``labels/...``,
    ``marksheet.csv``, ``parameters/<patient>_<study>.json``, ``shards/anatomy-*.npz``. A case is
    finished when its JSON file is there; it is written last.
    """
    done = []
    for index in range(cases):
        patient, study_id = f"{90000 + index}", f"{9000000 + index}"
        record = out / "parameters" / f"{patient}_{study_id}.json"
        if not record.exists():
            _write_case(out, record, index, seed, sites or ())
        done.append(record)
        if progress:
            progress(index + 1, cases)
    _write_marksheet(out / "marksheet.csv", done)
    return done


def _write_case(out: Path, record: Path, index: int, seed: int, sites: Sequence[Site]) -> None:
    name = record.stem
    rng = np.random.default_rng([seed, index, 5])
    site = sites[int(rng.integers(len(sites)))] if sites else draw_site(rng)
    params = draw_anatomy(rng, positive_fraction=site.positive_fraction)
    study = simulate_study(
        int(rng.integers(2**31)),
        site=site,
        planes=("axial",),
        params=params,
        dce_phases=6 if site.has_dce else 0,
    )
    images = out / "images" / name.split("_", maxsplit=1)[0]
    write_nifti(study.t2w, images / f"{name}_t2w.nii.gz")
    write_nifti(study.adc, images / f"{name}_adc.nii.gz")
    write_nifti(study.high_b.volume, images / f"{name}_hbv.nii.gz")
    if study.dce is not None:
        _write_dce(study, images / f"{name}_dce.nii.gz")
    write_nifti(_grades(study), out / _LESIONS / f"{name}.nii.gz", np.uint8)
    gland = Volume(np.not_equal(study.zones.array, 0).astype(np.uint8), study.zones.geometry)
    write_nifti(gland, out / _GLAND / f"{name}.nii.gz", np.uint8)
    write_nifti(study.zones, out / _ZONES / f"{name}.nii.gz", np.uint8)
    shard = case_path(out / "shards", index)
    shard.parent.mkdir(parents=True, exist_ok=True)
    save_case(shard, params, rasterise(params, cache_geometry()))
    _write_text(record, json.dumps(_describe(name, study, params.age_years, params.psa_ng_ml)))


def _grades(study: SimulatedStudy) -> Volume:
    """Significant lesions labelled with their grade group, as PI-CAI does."""
    table = np.zeros(256, dtype=np.uint8)
    for truth in study.truth:
        table[truth.number] = truth.isup if truth.isup >= 2 else 0
    return Volume(table[study.lesions.array], study.lesions.geometry)


def _write_dce(study: SimulatedStudy, path: Path) -> None:
    if study.dce is None:
        return
    first = study.dce.phases[0].geometry
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ index_to_lps(first)
    data = np.stack([p.array.transpose(2, 1, 0) for p in study.dce.phases], axis=-1)
    image = nibabel.Nifti1Image(data.astype(np.float32), affine)
    zooms = [*image.header.get_zooms()[:3], study.dce.times_s[1] - study.dce.times_s[0]]
    image.header.set_zooms(zooms)
    part = path.with_name(f".part-{path.name}")
    nibabel.save(image, part)
    part.replace(path)


def _describe(name: str, study: SimulatedStudy, age: float, psa: float) -> dict[str, Any]:
    return {
        "name": name,
        "age_years": age,
        "psa_ng_ml": psa,
        "gland_volume_ml": study.gland_volume_ml,
        "site": study.site.name,
        "lesions": [asdict(t) for t in study.truth],
        "mimics": [asdict(t) for t in study.mimics],
        "dce_times_s": list(study.dce.times_s) if study.dce else [],
        "parameters": study.parameters,
    }


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _write_marksheet(path: Path, records: Sequence[Path]) -> None:
    rows = []
    for record in records:
        data = json.loads(record.read_text(encoding="utf-8"))
        patient, study = data["name"].split("_")
        grades = [int(lesion["isup"]) for lesion in data["lesions"]]
        top = max(grades, default=0)
        volume = float(data["gland_volume_ml"])
        rows.append(
            (
                patient,
                study,
                "2020-01-01",
                round(data["age_years"]),
                round(data["psa_ng_ml"], 1),
                round(data["psa_ng_ml"] / max(volume, 1.0), 3),
                round(volume, 1),
                "simulated",
                ",".join(_GLEASON[g] for g in grades),
                ",".join(str(g) for g in grades),
                top,
                "YES" if top >= 2 else "NO",
                data["site"],
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    part.replace(path)
