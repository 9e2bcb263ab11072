"""The whole analysis with the packaged release, on simulated and on real images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import ai_core
from ai_core.candidates import dilate_mm
from ai_core.errors import GeometryError, InputError
from ai_core.geometry import grid_around, index_of_lps
from ai_core.gland import find_gland
from ai_core.prepare.geometry import geometry_of
from ai_core.release import Release
from ai_core.sim.study import SimulatedStudy
from ai_core.train.negatives import MAKERS
from ai_core.types import Case, CaseResult, DwiVolume, Geometry, Modality, Quality, Volume


@pytest.fixture(scope="module")
def result(case: Case, packaged: Release) -> CaseResult:
    return ai_core.analyse(case, packaged)


def test_every_map_lies_on_the_t2w_grid(case: Case, result: CaseResult) -> None:
    assert result.geometry == case.t2w.geometry
    shape = case.t2w.geometry.shape_zyx
    for array in (result.gland_mask, result.zones, result.lesions):
        assert array.shape == shape
        assert array.dtype == np.uint8
    for values in (result.likelihood, result.relevance, *result.modality_maps.values()):
        assert values.shape == shape
        assert values.dtype == np.float32
        assert float(values.min()) >= 0
        assert float(values.max()) <= 1
    assert set(result.modality_maps) == set(Modality)


def test_the_gland_is_found(study: SimulatedStudy, result: CaseResult) -> None:
    assert result.gland.credible
    truth = study.zones.array > 0
    found = result.gland_mask > 0
    assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.6
    assert result.gland.volume_ml == pytest.approx(
        found.sum() * study.t2w.geometry.voxel_volume_mm3 / 1000
    )
    assert ((result.zones > 0) == found).all()


def test_findings_are_consistent(result: CaseResult, packaged: Release) -> None:
    assert [f.rank for f in result.findings] == list(range(1, len(result.findings) + 1))
    likelihoods = [f.likelihood for f in result.findings]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert set(np.unique(result.lesions)) == {0, *range(1, len(result.findings) + 1)}
    if likelihoods:
        expected = packaged.calibration.case_likelihood(likelihoods[0])
        assert result.case_likelihood == pytest.approx(expected)
    assert result.case_significant == any(f.significant for f in result.findings)
    spacing = result.geometry.spacing_xyz_mm[::-1]
    margin = packaged.config.candidates.gland_margin_mm + 3.0
    near = dilate_mm(result.gland_mask > 0, margin, (spacing[0], spacing[1], spacing[2]))
    assert near[result.lesions > 0].all()


def test_numbers_of_a_finding_come_from_its_mask(result: CaseResult) -> None:
    assert result.findings
    for finding in result.findings:
        mask = result.lesions == finding.rank
        assert finding.volume_ml == pytest.approx(
            mask.sum() * result.geometry.voxel_volume_mm3 / 1000
        )
        index = tuple(round(v) for v in index_of_lps(result.geometry, finding.center_lps_mm))
        assert mask[index]
        assert result.likelihood[index] == pytest.approx(result.likelihood[mask].max())
        assert 1 <= finding.suspicion_score <= 5
        assert finding.longest_diameter_mm > 0
        assert finding.mean_adc_um2_s is None or 200 < finding.mean_adc_um2_s < 3000
        zone, position, level, side = finding.sector.split("/")
        assert zone in ("PZ", "TZ")
        assert position in ("pm", "pl", "a", "p")
        assert level in ("apex", "mid", "base")
        assert side in ("L", "R")


def test_relevance_is_the_map_times_significance(result: CaseResult) -> None:
    outside = result.lesions == 0
    assert (result.relevance[outside] == 0).all()
    assert (result.relevance <= result.likelihood + 1e-6).all()
    for finding in result.findings:
        mask = (result.lesions == finding.rank) & (result.likelihood > 1e-4)
        ratio = result.relevance[mask] / result.likelihood[mask]
        assert np.ptp(ratio) < 1e-3


def test_the_same_case_gives_the_same_result(
    case: Case, result: CaseResult, packaged: Release
) -> None:
    again = ai_core.analyse(case, packaged)
    assert again.findings == result.findings
    assert (again.likelihood == result.likelihood).all()
    assert (again.zones == result.zones).all()


def test_without_high_b_and_dce_and_adc_map_it_still_works(case: Case, packaged: Release) -> None:
    plain = dataclasses.replace(case, adc=None, adc_to_um2_s=None, high_b=None, dce=None)
    result = ai_core.analyse(plain, packaged)
    assert result.gland.credible
    assert Quality.ADC_DERIVED in {q.code for q in result.quality}
    assert Modality.DCE not in result.modality_maps
    assert "fitted" in result.used["adc"]


def test_without_any_unit_no_mean_adc_is_reported(case: Case, packaged: Release) -> None:
    assert case.adc is not None
    strange = Volume(case.adc.array * 0.02, case.adc.geometry)
    odd = dataclasses.replace(case, adc=strange, adc_to_um2_s=None, dwi=(), dce=None)
    result = ai_core.analyse(odd, packaged)
    assert Quality.ADC_UNIT_UNKNOWN in {q.code for q in result.quality}
    assert all(f.mean_adc_um2_s is None for f in result.findings)


def test_diffusion_with_one_b_value_is_refused(case: Case, packaged: Release) -> None:
    alone = dataclasses.replace(case, adc=None, dwi=case.dwi[:1])
    with pytest.raises(InputError, match="no ADC map and no diffusion with two b-values"):
        ai_core.analyse(alone, packaged)


def test_unusable_geometry_is_refused(case: Case, packaged: Release) -> None:
    bad = dataclasses.replace(case.t2w.geometry, spacing_xyz_mm=(0.0, 1.0, 1.0))
    with pytest.raises(GeometryError, match="T2W"):
        ai_core.analyse(dataclasses.replace(case, t2w=Volume(case.t2w.array, bad)), packaged)


GRID = grid_around((0.0, 0.0, 0.0), (0.8, 0.8, 3.0), (200, 200, 24), np.eye(3))


def _brain_like() -> np.ndarray:  # type: ignore[type-arg]
    z, y, x = np.indices(GRID.shape_zyx, sparse=True)
    radius = np.sqrt(((z - 12) / 14) ** 2 + ((y - 100) / 85) ** 2 + ((x - 100) / 70) ** 2)
    folds = ndimage.gaussian_filter(
        np.random.default_rng(1).standard_normal(GRID.shape_zyx), (0.7, 3, 3)
    )
    brain = np.where(folds > 0, 0.7, 0.45)
    return np.select([radius < 0.8, radius < 0.88, radius < 1.0], [brain, 1.0, 0.15], 0.02) * 300


def _empty_volume(array: np.ndarray) -> Case:  # type: ignore[type-arg]
    t2w = Volume(array.astype(np.float32), GRID)
    adc = Volume(np.full(GRID.shape_zyx, 1200, np.float32), GRID)
    return Case(t2w=t2w, adc=adc, adc_to_um2_s=1.0)


def _no_prostate(name: str) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(5)
    made = {maker.__name__: maker for maker in MAKERS}
    if name in made:
        return made[name](rng, GRID.shape_zyx) * 100
    if name == "noise":
        return np.abs(rng.standard_normal(GRID.shape_zyx)) * 100
    return _brain_like() if name == "brain" else np.zeros(GRID.shape_zyx)


@pytest.mark.parametrize("name", ["zeros", "noise", "brain", *(m.__name__ for m in MAKERS)])
def test_a_volume_without_a_prostate_is_not_believed(name: str, packaged: Release) -> None:
    result = ai_core.analyse(_empty_volume(_no_prostate(name)), packaged)
    assert not result.gland.credible
    assert result.findings == ()
    assert result.quality[0].code is Quality.NO_CREDIBLE_GLAND
    assert not result.gland_mask.any()


def _series(folder: Path) -> Volume:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.Cast(reader.Execute(), sitk.sitkFloat32)
    return Volume(sitk.GetArrayFromImage(image), geometry_of(image))


@pytest.fixture(scope="module")
def real_result(prostatex_0000: Path, packaged: Release) -> CaseResult:
    by_number = {folder.name.split(".")[0]: folder for folder in prostatex_0000.iterdir()}
    case = Case(
        t2w=_series(by_number["4"]),
        adc=_series(by_number["7"]),
        adc_to_um2_s=1.0,
        high_b=DwiVolume(_series(by_number["8"]), 1400.0, computed=True),
    )
    return ai_core.analyse(case, packaged)


@pytest.mark.real_data
def test_real_prostate_and_lesion_are_found(real_result: CaseResult) -> None:
    """Sanity on one public case, tuned on nothing: the mark lies near one of two findings."""
    assert real_result.gland.credible
    assert 20 < real_result.gland.volume_ml < 110
    mark = (25.7457, 31.8707, -38.511)
    distances = [
        float(np.linalg.norm(np.subtract(f.center_lps_mm, mark))) for f in real_result.findings[:2]
    ]
    assert min(distances) < 10


@pytest.mark.real_data
def test_a_real_prostate_is_recognised_on_t2w_alone(
    prostate3t_0002: Path, packaged: Release
) -> None:
    found = find_gland(_series(prostate3t_0002), packaged)
    assert found.credible, found.doubt
    assert 20 < found.volume_ml < 150


def test_a_cropped_field_of_view_works(
    study: SimulatedStudy, case: Case, packaged: Release
) -> None:
    geometry = case.t2w.geometry
    _, y, x = (round(v) for v in index_of_lps(geometry, study.gland_center_lps_mm))
    half = round(36 / geometry.spacing_xyz_mm[0])
    rows, columns = slice(max(0, y - half), y + half), slice(max(0, x - half), x + half)
    array = case.t2w.array[:, rows, columns]
    direction = np.asarray(geometry.direction)
    shift = direction @ (
        np.array([columns.start, rows.start, 0]) * np.asarray(geometry.spacing_xyz_mm)
    )
    origin = tuple(float(v) for v in np.asarray(geometry.origin_lps_mm) + shift)
    cropped = Geometry(
        array.shape[::-1],
        geometry.spacing_xyz_mm,
        (origin[0], origin[1], origin[2]),
        geometry.direction,
    )
    result = ai_core.analyse(
        dataclasses.replace(case, t2w=Volume(array, cropped), dce=None), packaged
    )
    assert result.gland.credible
    assert result.lesions.shape == array.shape
