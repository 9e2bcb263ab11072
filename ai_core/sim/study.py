"""A whole simulated examination on the native grids of a scanner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ai_core.geometry import grid_around, lps_of_index
from ai_core.sim.anatomy import draw_anatomy
from ai_core.sim.canvas import patient_points
from ai_core.sim.dce import render_dce
from ai_core.sim.params import AnatomyParams, Focus, to_json
from ai_core.sim.raster import LabelMaps, rasterise
from ai_core.sim.render import (
    Maps,
    Scene,
    Tensor,
    Textures,
    property_maps,
    render_dwi,
    render_t2w,
    resize_in_plane,
)
from ai_core.sim.sites import Site, draw_site, jitter_scan, site_to_dict
from ai_core.sim.tissue import TissueDraw, draw_tissue
from ai_core.types import DceSeries, DwiVolume, FloatArray, Geometry, Vector3, Volume

_TEXTURE_HALF = (132.0, 132.0, 108.0)
_FINEST_MM = 0.5
Directions = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LesionTruth:
    """One focus: ``number`` is its label in ``lesions`` (cancers) or ``benign`` (mimics).

    ``center_lps_mm`` lies inside the focus; ``volume_ml`` is that of its mask on the T2W grid.
    """

    number: int
    kind: str
    center_lps_mm: Vector3
    volume_ml: float
    isup: int
    pirads: int
    zone: int


@dataclass(frozen=True)
class SimulatedStudy:
    """One examination in patient space (LPS); ``adc`` in um2/s; labels on the axial T2W grid."""

    t2w: Volume
    t2w_sagittal: Volume | None
    t2w_coronal: Volume | None
    dwi: tuple[DwiVolume, ...]
    adc: Volume
    high_b: DwiVolume
    dce: DceSeries | None
    zones: Volume
    lesions: Volume
    benign: Volume
    truth: tuple[LesionTruth, ...]
    mimics: tuple[LesionTruth, ...]
    gland_volume_ml: float
    gland_center_lps_mm: Vector3
    site: Site
    parameters: dict[str, Any]


@dataclass(frozen=True)
class _Patient:
    params: AnatomyParams
    draw: TissueDraw
    textures: Textures
    site: Site
    offset: npt.NDArray[np.float64]


def simulate_study(
    seed: int,
    *,
    site: Site | None = None,
    lesion: bool | None = None,
    planes: Sequence[str] = ("axial", "sagittal", "coronal"),
    dce_phases: int = 6,
    t2w_matrix: int | None = None,
    slices: int | None = None,
    contrast: str = "physics",
    params: AnatomyParams | None = None,
) -> SimulatedStudy:
    """Simulate one examination, the same for the same arguments on one machine.

    ``lesion``: force or forbid significant cancer; None follows the site's lesion mix.
    ``dce_phases`` 0 leaves DCE out. ``t2w_matrix`` and ``slices`` override the site's.
    """
    rng = np.random.default_rng([seed, 77])
    site = _protocol(jitter_scan(rng, site or draw_site(rng)), t2w_matrix, slices)
    patient = _patient(rng, site, params, lesion, contrast)
    tilt = float(rng.uniform(-12, 12))
    turn = _turn(0, tilt) @ _turn(1, rng.normal(0, 1.5)) @ _turn(2, rng.normal(0, 1.5))
    away = turn @ rng.normal((0, 0, 2), (2, 4, 3))
    geometry = _plane_grid(patient, "axial", turn, away)
    maps = rasterise(patient.params, _local(geometry, patient.offset))
    t2w = _t2w(patient, geometry, rng, maps)
    others = {
        plane: _t2w(patient, _plane_grid(patient, plane, turn, np.zeros(3)), rng)
        for plane in ("sagittal", "coronal")
        if plane in planes
    }
    dwi, adc, high_b = _diffusion(patient, geometry, rng)
    zones, lesions, benign = _label_volumes(maps, geometry)
    return SimulatedStudy(
        t2w=t2w,
        t2w_sagittal=others.get("sagittal"),
        t2w_coronal=others.get("coronal"),
        dwi=dwi,
        adc=adc,
        high_b=high_b,
        dce=_dynamic(patient, geometry, rng, dce_phases) if dce_phases else None,
        zones=zones,
        lesions=lesions,
        benign=benign,
        truth=_truth(lesions, patient.params.lesions, maps.lesion_weight),
        mimics=_truth(benign, patient.params.mimics, maps.mimic_weight),
        gland_volume_ml=float((maps.zones > 0).sum() * geometry.voxel_volume_mm3 / 1000),
        gland_center_lps_mm=tuple(float(v) for v in patient.offset),  # type: ignore[arg-type]
        site=site,
        parameters=_parameters(seed, patient, contrast, tilt),
    )


def _parameters(seed: int, patient: _Patient, contrast: str, tilt: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "site": site_to_dict(patient.site),
        "anatomy": json.loads(to_json(patient.params)),
        "tilt_deg": tilt,
        "contrast": contrast,
    }


def _protocol(site: Site, matrix: int | None, slices: int | None) -> Site:
    """Give the site another T2W matrix over the same field of view, and another slice count."""
    matrix = matrix or site.t2w_matrix
    spacing = site.t2w_spacing_mm * site.t2w_matrix / matrix
    return replace(
        site, t2w_matrix=matrix, t2w_spacing_mm=spacing, t2w_slices=slices or site.t2w_slices
    )


def _patient(
    rng: np.random.Generator,
    site: Site,
    params: AnatomyParams | None,
    lesion: bool | None,
    contrast: str,
) -> _Patient:
    """Draw anatomy, tissue, texture, and where the gland lies in the scanner (mm)."""
    params = params or draw_anatomy(rng, lesion=lesion, positive_fraction=site.positive_fraction)
    offset = rng.normal((0, 15, -25), (5, 12, 15))
    draw = draw_tissue(rng, site, contrast)
    return _Patient(params, draw, Textures.draw(rng, _TEXTURE_HALF), site, offset)


def _turn(axis: int, degrees: float) -> Directions:
    a = np.deg2rad(degrees)
    j, k = [(1, 2), (2, 0), (0, 1)][axis]
    m = np.eye(3)
    m[j, j] = m[k, k] = np.cos(a)
    m[j, k], m[k, j] = -np.sin(a), np.sin(a)
    return m


# Columns: direction of the x, y and z index of an upright plane.
_PLANES: dict[str, Directions] = {
    "axial": np.eye(3),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


def _plane_grid(patient: _Patient, plane: str, turn: Directions, away: Directions) -> Geometry:
    """Grid of a T2W plane, turned, its middle ``away`` (mm) from the gland centre."""
    site, middle = patient.site, patient.offset + away
    count = site.t2w_slices if plane == "axial" else max(15, site.t2w_slices - 3)
    spacing = (site.t2w_spacing_mm, site.t2w_spacing_mm, site.slice_mm)
    size = (site.t2w_matrix, site.t2w_matrix, count)
    center = (float(middle[0]), float(middle[1]), float(middle[2]))
    return grid_around(center, spacing, size, turn @ _PLANES[plane])


def _local(geometry: Geometry, offset: npt.NDArray[np.float64]) -> Geometry:
    """Move a grid to coordinates whose origin is the gland centre."""
    origin = np.asarray(geometry.origin_lps_mm) - offset
    return replace(geometry, origin_lps_mm=(float(origin[0]), float(origin[1]), float(origin[2])))


def _refined(geometry: Geometry, factor: float) -> Geometry:
    """Keep the field of view in plane, with ``factor`` times as many pixels."""
    nx, ny, nz = geometry.size_xyz
    rx, ry = max(8, round(nx * factor)), max(8, round(ny * factor))
    sx, sy, sz = geometry.spacing_xyz_mm
    spacing = (sx * nx / rx, sy * ny / ry, sz)
    center = lps_of_index(geometry, ((nz - 1) / 2, (ny - 1) / 2, (nx - 1) / 2))
    return grid_around(center, spacing, (rx, ry, nz), geometry.direction)


def _scene(patient: _Patient, local: Geometry, maps: LabelMaps) -> tuple[Scene, Maps]:
    points = tuple(torch.from_numpy(v) for v in patient_points(local))
    sx, sy, sz = local.spacing_xyz_mm
    scene = Scene(
        labels=torch.from_numpy(maps.labels).long(),
        zones=torch.from_numpy(maps.zones),
        lesion_weight=torch.from_numpy(maps.lesion_weight).float() / 255.0,
        lesion_id=torch.from_numpy(maps.lesion_id).long(),
        mimic_weight=torch.from_numpy(maps.mimic_weight).float() / 255.0,
        mimic_id=torch.from_numpy(maps.mimic_id).long(),
        points_xyz=(points[0], points[1], points[2]),
        spacing_zyx_mm=(sz, sy, sx),
    )
    p = patient.params
    textures = patient.textures.sample(scene)
    return scene, property_maps(scene, patient.draw, p.lesions, p.mimics, textures)


def _array(image: Tensor) -> FloatArray:
    return np.ascontiguousarray(image.numpy(), dtype=np.float32)


def _t2w(
    patient: _Patient,
    geometry: Geometry,
    rng: np.random.Generator,
    maps: LabelMaps | None = None,
) -> Volume:
    """One T2W plane; pixels below half a millimetre are interpolated, as scanners do."""
    factor = min(1.0, geometry.spacing_xyz_mm[0] / _FINEST_MM)
    grid = geometry if factor == 1.0 else _refined(geometry, factor)
    local = _local(grid, patient.offset)
    labels = maps if maps is not None and factor == 1.0 else rasterise(patient.params, local)
    scene, properties = _scene(patient, local, labels)
    image = render_t2w(properties.t2w, scene.spacing_zyx_mm, patient.site, rng)
    if factor < 1.0:
        image = resize_in_plane(image, geometry.shape_zyx[1:])
    return Volume(_array(image), geometry)


def _moved(geometry: Geometry, site: Site, rng: np.random.Generator) -> Geometry:
    """Where the patient really lay under a later sequence: shifted and turned a little."""
    shift = rng.normal(0, site.motion_mm, 3) * (0.7, 0.7, 0.5)
    turn = _turn(0, rng.normal(0, site.motion_deg)) @ _turn(2, rng.normal(0, site.motion_deg))
    nx, ny, nz = geometry.size_xyz
    center = np.asarray(lps_of_index(geometry, ((nz - 1) / 2, (ny - 1) / 2, (nx - 1) / 2))) + shift
    return grid_around(
        (float(center[0]), float(center[1]), float(center[2])),
        geometry.spacing_xyz_mm,
        geometry.size_xyz,
        turn @ np.asarray(geometry.direction),
    )


def _box_like(t2w: Geometry, spacing: float, matrix: int) -> Geometry:
    """Make a grid with the T2W centre, slices and direction, and its own pixels."""
    nx, ny, nz = t2w.size_xyz
    center = lps_of_index(t2w, ((nz - 1) / 2, (ny - 1) / 2, (nx - 1) / 2))
    return grid_around(
        center,
        (spacing, spacing, t2w.spacing_xyz_mm[2]),
        (matrix, matrix, nz),
        t2w.direction,
    )


def _diffusion(
    patient: _Patient, t2w: Geometry, rng: np.random.Generator
) -> tuple[tuple[DwiVolume, ...], Volume, DwiVolume]:
    site = patient.site
    nominal = _box_like(t2w, site.dwi_spacing_mm, site.dwi_matrix)
    local = _local(_moved(_refined(nominal, 2.0), site, rng), patient.offset)
    scene, maps = _scene(patient, local, rasterise(patient.params, local))
    out = render_dwi(scene, maps, site, rng)
    dwi = tuple(
        DwiVolume(Volume(_array(signal), nominal), float(b))
        for b, signal in zip(out.b_values, out.signals, strict=True)
    )
    high = DwiVolume(Volume(_array(out.high_b), nominal), site.high_b, site.high_b_computed)
    return dwi, Volume(_array(out.adc), nominal), high


def _dynamic(patient: _Patient, t2w: Geometry, rng: np.random.Generator, phases: int) -> DceSeries:
    """DCE phases. A short series is spread over the first minutes so that washout is seen."""
    site = patient.site
    step = (
        site.dce_interval_s if phases >= 20 else max(site.dce_interval_s, 150 / max(phases - 1, 1))
    )
    arrival = float(rng.uniform(15, 25)) if phases >= 20 else step * float(rng.uniform(0.6, 0.95))
    times = tuple(round(i * step, 2) for i in range(phases))
    nominal = _box_like(t2w, site.dce_spacing_mm, site.dce_matrix)
    local = _local(_moved(nominal, site, rng), patient.offset)
    scene, maps = _scene(patient, local, rasterise(patient.params, local))
    images = render_dce(scene, maps, [t - arrival for t in times], site, rng) * (site.gain * 60)
    size = nominal.shape_zyx[1:]
    volumes = tuple(Volume(_array(resize_in_plane(v, size)), nominal) for v in images)
    return DceSeries(volumes, times)


def _label_volumes(maps: LabelMaps, geometry: Geometry) -> tuple[Volume, Volume, Volume]:
    lesions = np.where(maps.lesion_weight >= 128, maps.lesion_id, 0).astype(np.uint8)
    benign = np.where(maps.mimic_weight >= 128, maps.mimic_id, 0).astype(np.uint8)
    return (Volume(maps.zones, geometry), Volume(lesions, geometry), Volume(benign, geometry))


def _truth(
    labels: Volume, foci: tuple[Focus, ...], weight: npt.NDArray[np.uint8]
) -> tuple[LesionTruth, ...]:
    """Truth of every focus that has at least one voxel on the grid."""
    out = []
    spacing = np.asarray(labels.geometry.spacing_xyz_mm)[::-1]
    for number, focus in enumerate(foci, start=1):
        index = np.argwhere(labels.array == number)
        if len(index) == 0:
            continue
        values = weight[tuple(index.T)].astype(float)
        middle = (index * values[:, None]).sum(0) / values.sum()
        nearest = index[int((((index - middle) * spacing) ** 2).sum(1).argmin())]
        center = lps_of_index(labels.geometry, tuple(float(v) for v in nearest))  # type: ignore[arg-type]
        volume = len(index) * labels.geometry.voxel_volume_mm3 / 1000
        out.append(
            LesionTruth(
                number, focus.kind.value, center, volume, focus.isup, focus.pirads, focus.zone
            )
        )
    return tuple(out)
