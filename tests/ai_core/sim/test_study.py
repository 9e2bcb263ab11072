"""Whole simulated studies and their files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from nibabel.nifti1 import Nifti1Image
from scipy import ndimage

from ai_core.geometry import index_of_lps, index_to_lps
from ai_core.sim.export import simulate_to_folder, write_nifti
from ai_core.sim.sites import NAMED_SITES, Site
from ai_core.sim.study import SimulatedStudy, simulate_study
from ai_core.types import Geometry, Volume


def _small_site() -> Site:
    return replace(
        NAMED_SITES["alpha"], t2w_matrix=128, t2w_spacing_mm=1.3, t2w_slices=14, dwi_matrix=64,
        dce_matrix=64, dce_spacing_mm=2.2,
    )  # fmt: skip


@cache
def _study(seed: int = 5) -> SimulatedStudy:
    return simulate_study(seed, site=_small_site(), lesion=True, dce_phases=4)


def test_study_is_deterministic() -> None:
    again = simulate_study(5, site=_small_site(), lesion=True, dce_phases=4)
    assert np.array_equal(_study().t2w.array, again.t2w.array)
    assert np.array_equal(_study().adc.array, again.adc.array)
    assert _study().parameters == again.parameters
    json.dumps(again.parameters)


def test_study_has_every_series_on_its_own_grid() -> None:
    study = _study()
    assert study.t2w.array.shape == (14, 128, 128)
    assert [d.b_value_s_per_mm2 for d in study.dwi] == [50, 400, 800]
    assert study.high_b.computed and study.high_b.b_value_s_per_mm2 == 1400
    assert study.dce is not None and len(study.dce.phases) == 4
    assert study.adc.array.shape == study.dwi[0].volume.array.shape == (14, 64, 64)
    means = [float(d.volume.array.mean()) for d in study.dwi]
    assert means[0] > means[1] > means[2]
    for volume in (study.t2w_sagittal, study.t2w_coronal):
        assert volume is not None and volume.array.dtype == np.float32
    inside = np.not_equal(study.zones.array, 0)
    assert inside.sum() * study.zones.geometry.voxel_volume_mm3 / 1000 == pytest.approx(
        study.gland_volume_ml
    )


def test_truth_points_into_the_lesion_mask() -> None:
    study = _study()
    assert any(t.isup >= 2 for t in study.truth)
    for truth in study.truth:
        z, y, x = (round(v) for v in index_of_lps(study.lesions.geometry, truth.center_lps_mm))
        assert study.lesions.array[z, y, x] == truth.number


def test_the_planes_show_the_gland_at_the_same_place() -> None:
    study = _study()
    center = study.gland_center_lps_mm
    assert study.t2w_sagittal is not None and study.t2w_coronal is not None
    for volume in (study.t2w, study.t2w_sagittal, study.t2w_coronal):
        index = index_of_lps(volume.geometry, center)
        for position, size in zip(index, volume.array.shape, strict=True):
            assert 0.25 * size < position < 0.75 * size
    normal = np.asarray(study.t2w_sagittal.geometry.direction)[:, 2]
    assert abs(normal[0]) > 0.95
    rng = np.random.default_rng(0)
    points = np.array(center)[:, None] + rng.uniform(-22, 22, (3, 3000))
    axial = _values(study.t2w, points)
    for volume in (study.t2w_sagittal, study.t2w_coronal):
        here = np.corrcoef(axial, _values(volume, points))[0, 1]
        beside = np.corrcoef(axial, _values(volume, points + 9.0))[0, 1]
        assert here > 0.5 and here > beside + 0.2


def _values(volume: Volume, points_lps_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intensities at patient positions ``(3, n)``."""
    homogeneous = np.vstack([points_lps_mm, np.ones(points_lps_mm.shape[1])])
    index = (np.linalg.inv(index_to_lps(volume.geometry)) @ homogeneous)[:3][::-1]
    array = volume.array.astype(float)
    return np.asarray(ndimage.map_coordinates(array, index, order=1, mode="nearest"))


def test_lesion_flag_is_obeyed() -> None:
    study = simulate_study(9, site=_small_site(), lesion=False, planes=("axial",), dce_phases=0)
    assert not any(t.isup >= 2 for t in study.truth)
    assert study.dce is None and study.t2w_sagittal is None


def test_nifti_keeps_patient_positions(tmp_path: Path) -> None:
    geometry = Geometry(
        (4, 5, 3), (0.5, 0.7, 3.0), (-20.0, 15.0, -40.0),
        ((1.0, 0.0, 0.0), (0.0, 0.8, -0.6), (0.0, 0.6, 0.8)),
    )  # fmt: skip
    array = np.arange(60, dtype=np.float32).reshape(3, 5, 4)
    write_nifti(Volume(array, geometry), tmp_path / "v.nii.gz")
    image = Nifti1Image.from_filename(tmp_path / "v.nii.gz")
    assert image.shape == (4, 5, 3)
    lps = index_to_lps(geometry) @ np.array([1, 2, 1, 1.0])
    ras = image.affine @ np.array([1, 2, 1, 1.0])
    assert np.allclose(ras, lps * [-1, -1, 1, 1], atol=1e-4)
    assert image.get_fdata()[1, 2, 1] == array[1, 2, 1]


def test_export_writes_the_public_layout_and_resumes(tmp_path: Path) -> None:
    sites = (_small_site(),)
    records = simulate_to_folder(tmp_path, 1, seed=2, sites=sites)
    name = records[0].stem
    patient, study_id = name.split("_")
    for kind in ("t2w", "adc", "hbv", "dce"):
        assert (tmp_path / "images" / patient / f"{name}_{kind}.nii.gz").exists()
    lesions = tmp_path / "labels/csPCa_lesion_delineations/human_expert/resampled"
    t2w = Nifti1Image.from_filename(tmp_path / "images" / patient / f"{name}_t2w.nii.gz")
    label = Nifti1Image.from_filename(lesions / f"{name}.nii.gz")
    assert label.shape == t2w.shape and np.allclose(label.affine, t2w.affine)
    with (tmp_path / "marksheet.csv").open() as handle:
        (row,) = csv.DictReader(handle)
    assert (row["patient_id"], row["study_id"]) == (patient, study_id)
    assert (row["case_csPCa"] == "YES") == bool(label.get_fdata().max() >= 2)
    stamp = records[0].stat().st_mtime_ns
    assert (tmp_path / "shards" / "anatomy-000000.npz").exists()
    simulate_to_folder(tmp_path, 1, seed=2, sites=sites)
    assert records[0].stat().st_mtime_ns == stamp
