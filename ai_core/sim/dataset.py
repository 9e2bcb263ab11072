"""Training data: a cache of anatomies (labels only) and fast rendering on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ai_core.geometry import grid_around
from ai_core.sim.anatomy import draw_anatomy
from ai_core.sim.dce import dce_features
from ai_core.sim.params import AnatomyParams, from_json, to_json
from ai_core.sim.raster import LabelMaps, rasterise
from ai_core.sim.render import (
    Scene,
    Tensor,
    grid_textures,
    property_maps,
    render_dwi,
    render_t2w,
    resize_in_plane,
)
from ai_core.sim.sites import Site, draw_site, jitter_scan
from ai_core.sim.tissue import COUNT, draw_tissue
from ai_core.types import Geometry

CACHE_SPACING_XYZ = (1.0, 1.0, 3.0)
CACHE_SIZE_XYZ = (192, 192, 32)
TRAINING_POSITIVE_FRACTION = 0.55
_ARRAYS = ("labels", "zones", "lesion_weight", "lesion_id", "mimic_weight", "mimic_id")
ZYX = tuple[float, float, float]


def cache_geometry() -> Geometry:
    """Give the grid of cached anatomies: 32 x 192 x 192 at 3 x 1 x 1 mm around the gland."""
    return grid_around((0.0, 0.0, 0.0), CACHE_SPACING_XYZ, CACHE_SIZE_XYZ, np.eye(3))


@dataclass(frozen=True)
class CachedCase:
    """One cached anatomy: tensors ``[z, y, x]`` uint8 on the cache grid, and its parameters."""

    maps: dict[str, Tensor]
    params: AnatomyParams


@dataclass(frozen=True)
class Augment:
    """Geometric and appearance augmentation; ranges are uniform. Mm in order z, y, x."""

    scale: tuple[float, float] = (0.8, 1.25)
    anisotropy: float = 0.08
    rotation_deg: float = 8.0
    shift_zyx_mm: ZYX = (5.0, 6.0, 6.0)
    flip: bool = True
    soup: float = 0.2
    fov_mask: float = 0.3
    slice_drop: float = 0.15


#: Benign foci up to this PI-RADS-like score are normal variants (nodules, atrophy, ...).
NORMAL_UP_TO = 2
NO_AUGMENT = Augment((1.0, 1.0), 0.0, 0.0, (0.0, 0.0, 0.0), False, 0.0, 0.0, 0.0)


def case_path(folder: Path, index: int) -> Path:
    """File of one cached anatomy."""
    return folder / f"anatomy-{index:06d}.npz"


def build_case(path: Path, index: int, seed: int, positive_fraction: float) -> Path:
    """Draw, rasterise and write the anatomy of one index."""
    rng = np.random.default_rng([seed, index])
    params = draw_anatomy(rng, positive_fraction=positive_fraction)
    save_case(path, params, rasterise(params, cache_geometry()))
    return path


def save_case(path: Path, params: AnatomyParams, maps: LabelMaps) -> None:
    """Write one anatomy of the cache grid; the file appears whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as handle:
        np.savez_compressed(
            handle,
            **{name: getattr(maps, name) for name in _ARRAYS},
            params=np.array(to_json(params)),
        )
    part.replace(path)


def build_cache(
    folder: Path,
    cases: int,
    seed: int,
    *,
    sites: Sequence[Site] | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    resume: bool = True,
    positive_fraction: float = TRAINING_POSITIVE_FRACTION,
) -> list[Path]:
    """Write ``cases`` anatomies; finished files are kept when ``resume``.

    ``sites`` only sets the lesion mix here (mean positive fraction); appearance is drawn when a
    case is rendered. ``progress(done, total)`` is called after every case. The same seed and
    index give the same anatomy whatever the number of workers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sites:
        positive_fraction = float(np.mean([s.positive_fraction for s in sites]))
    paths = [case_path(folder, i) for i in range(cases)]
    todo = [i for i, p in enumerate(paths) if not (resume and p.exists())]
    done = cases - len(todo)
    job = partial(_job, folder=folder, seed=seed, positive_fraction=positive_fraction)
    if workers <= 1:
        for i in todo:
            job(i)
            done += 1
            if progress:
                progress(done, cases)
        return paths
    with ProcessPoolExecutor(workers) as pool:
        for _ in pool.map(job, todo):
            done += 1
            if progress:
                progress(done, cases)
    return paths


def _job(index: int, folder: Path, seed: int, positive_fraction: float) -> None:
    torch.set_num_threads(1)
    build_case(case_path(folder, index), index, seed, positive_fraction)


def load_case(path: Path) -> CachedCase:
    """Read one cached anatomy. Raises OSError, ValueError or KeyError for a broken file."""
    with np.load(path, allow_pickle=False) as data:
        maps = {name: torch.from_numpy(data[name]) for name in _ARRAYS}
        return CachedCase(maps, from_json(str(data["params"])))


def case_of(params: AnatomyParams, maps: LabelMaps) -> CachedCase:
    """Make a case from memory, on the cache grid."""
    return CachedCase({n: torch.from_numpy(getattr(maps, n)) for n in _ARRAYS}, params)


def without_suspicious(case: CachedCase) -> CachedCase:
    """Return an anatomy without cancers and without benign foci above `NORMAL_UP_TO`."""
    maps = dict(case.maps)
    for name in ("lesion_weight", "lesion_id"):
        maps[name] = torch.zeros_like(maps[name])
    stays = torch.tensor([0] + [int(f.pirads <= NORMAL_UP_TO) for f in case.params.mimics])
    kept = stays[maps["mimic_id"].long()].to(torch.uint8)
    for name in ("mimic_weight", "mimic_id"):
        maps[name] = maps[name] * kept
    return CachedCase(maps, case.params)


def render_training(
    case: CachedCase,
    rng: np.random.Generator,
    *,
    grid_zyx: tuple[int, int, int] = (24, 96, 96),
    spacing_zyx_mm: ZYX = (3.0, 1.0, 1.0),
    center_offset_mm: ZYX = (0.0, 0.0, 0.0),
    contrast: str = "mix",
    modalities: Sequence[str] = ("t2w", "adc", "high_b", "dce"),
    site: Site | None = None,
    augment: Augment | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Render one case on a training grid, tensors ``[z, y, x]`` on ``device``.

    Keys: images ``t2w``, ``adc`` (um2/s), ``high_b`` float32, ``dce`` ``[2, z, y, x]`` (early
    relative enhancement; washout per minute), as asked; ``zones`` uint8 (1 PZ, 2 TZ),
    ``lesion`` uint8 (grade group >= 2), ``lesion_instances`` uint8 (all cancers, 1..n),
    ``isup`` and ``pirads`` int64 (n,), ``benign`` uint8 (mimic instances 1..m),
    ``benign_pirads`` int64 (m,), ``fov`` uint8 (1 where there is image).
    ``center_offset_mm``: position of the grid's centre relative to the gland centre.
    """
    augment = augment or Augment()
    site = jitter_scan(rng, site or draw_site(rng))
    scene = _scene(
        case,
        rng,
        grid_zyx=grid_zyx,
        spacing_zyx_mm=spacing_zyx_mm,
        offset_mm=center_offset_mm,
        augment=augment,
        device=device,
    )
    if rng.random() < augment.soup:
        scene = _soup(scene, rng)
    draw = draw_tissue(rng, site, contrast)
    textures = grid_textures(rng, grid_zyx, spacing_zyx_mm, device)
    maps = property_maps(scene, draw, case.params.lesions, case.params.mimics, textures)
    out: dict[str, Tensor] = {}
    if "t2w" in modalities:
        out["t2w"] = render_t2w(maps.t2w, spacing_zyx_mm, site, rng)
    if "adc" in modalities or "high_b" in modalities:
        dwi = render_dwi(scene, maps, site, rng)
        size = (grid_zyx[1], grid_zyx[2])
        out["adc"] = resize_in_plane(dwi.adc, size)
        out["high_b"] = resize_in_plane(dwi.high_b, size)
    if "dce" in modalities:
        out["dce"] = dce_features(scene, maps, site, rng)
    out = {k: v for k, v in out.items() if k in modalities}
    out |= _truth(case, scene)
    return _mask_fov(out, rng, augment, spacing_zyx_mm, device)


def _matrix(rng: np.random.Generator, augment: Augment) -> np.ndarray:
    """3 x 3 map from output millimetres (x, y, z) to patient millimetres."""
    a = np.deg2rad(rng.uniform(-augment.rotation_deg, augment.rotation_deg, 3) * (0.6, 0.6, 1.0))
    matrix = np.eye(3)
    for i, angle in enumerate(a):
        j, k = [(1, 2), (0, 2), (0, 1)][i]
        turn = np.eye(3)
        turn[j, j] = turn[k, k] = np.cos(angle)
        turn[j, k], turn[k, j] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    scale = np.exp(rng.uniform(*np.log(augment.scale)))
    scale = scale * np.exp(rng.uniform(-augment.anisotropy, augment.anisotropy, 3))
    if augment.flip and rng.random() < 0.5:
        matrix[:, 0] *= -1
    return np.asarray(matrix / scale)


def _scene(
    case: CachedCase,
    rng: np.random.Generator,
    *,
    grid_zyx: tuple[int, int, int],
    spacing_zyx_mm: ZYX,
    offset_mm: ZYX,
    augment: Augment,
    device: torch.device | str,
) -> Scene:
    matrix = _matrix(rng, augment)
    shift = np.array([rng.uniform(-s, s) for s in augment.shift_zyx_mm])
    middle = (np.asarray(offset_mm) + shift)[::-1]
    axes = [
        (torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2) * s
        for n, s in zip(grid_zyx, spacing_zyx_mm, strict=True)
    ]
    z, y, x = (axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :])
    index = torch.zeros(grid_zyx, dtype=torch.long, device=device)
    for row in (2, 1, 0):
        m = [float(v) for v in matrix[row]]
        start = float(matrix[row] @ middle)
        position = (m[0] * x + m[1] * y + m[2] * z + start) / CACHE_SPACING_XYZ[row]
        size = CACHE_SIZE_XYZ[row]
        nearest = torch.round(position + (size - 1) / 2).long().clamp(0, size - 1)
        index = index * size + nearest
    maps = {name: case.maps[name].to(device).reshape(-1)[index] for name in _ARRAYS}
    points = tuple(v.expand(grid_zyx).contiguous() for v in (x, y, z))
    return Scene(
        labels=maps["labels"].long(),
        zones=maps["zones"],
        lesion_weight=maps["lesion_weight"].float() / 255.0,
        lesion_id=maps["lesion_id"].long(),
        mimic_weight=maps["mimic_weight"].float() / 255.0,
        mimic_id=maps["mimic_id"].long(),
        points_xyz=(points[0], points[1], points[2]),
        spacing_zyx_mm=spacing_zyx_mm,
    )


def _soup(scene: Scene, rng: np.random.Generator) -> Scene:
    """Random blobs of 8-20 mm instead of the anatomy outside the gland (at times near it only)."""
    shape, device = tuple(scene.labels.shape), scene.labels.device
    kinds = int(rng.integers(5, 11))
    size_mm = float(rng.uniform(8, 20))
    nodes = [
        max(3, int(n * s / size_mm) + 2) for n, s in zip(shape, scene.spacing_zyx_mm, strict=True)
    ]
    noise = torch.from_numpy(rng.standard_normal((1, kinds, *nodes), dtype=np.float32)).to(device)
    half = (shape[0], shape[1] // 2, shape[2] // 2)
    blend = torch.nn.functional.interpolate(noise, size=half, mode="trilinear")
    choice = torch.from_numpy(rng.integers(1, COUNT, kinds)).to(device)
    small = choice[blend[0].argmax(0)].float()[None]
    blobs = torch.nn.functional.interpolate(small, size=shape[1:], mode="nearest")[0].long()
    inside = ((scene.zones > 0) | (scene.lesion_weight > 0)).float()
    if rng.random() < 0.5:
        reach = int(rng.integers(2, 9)) * 2 + 1
        grown = torch.nn.functional.max_pool2d(inside[:, None], reach, stride=1, padding=reach // 2)
        inside = grown[:, 0]
    labels = torch.where(inside > 0, scene.labels, blobs)
    return Scene(**{**scene.__dict__, "labels": labels})


def _truth(case: CachedCase, scene: Scene) -> dict[str, Tensor]:
    lesions, mimics = case.params.lesions, case.params.mimics
    instances = torch.where(scene.lesion_weight >= 0.5, scene.lesion_id, 0)
    benign = torch.where(scene.mimic_weight >= 0.5, scene.mimic_id, 0)
    significant = torch.tensor([0] + [int(f.significant) for f in lesions])
    return {
        "zones": scene.zones,
        "lesion": significant.to(instances.device)[instances].to(torch.uint8),
        "lesion_instances": instances.to(torch.uint8),
        "isup": torch.tensor([f.isup for f in lesions], dtype=torch.long),
        "pirads": torch.tensor([f.pirads for f in lesions], dtype=torch.long),
        "benign": benign.to(torch.uint8),
        "benign_pirads": torch.tensor([f.pirads for f in mimics], dtype=torch.long),
    }


def _mask_fov(
    out: dict[str, Tensor],
    rng: np.random.Generator,
    augment: Augment,
    spacing_zyx_mm: ZYX,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Blank a random field-of-view box and missing end slices, in images and labels."""
    shape = tuple(out["zones"].shape)
    fov = torch.ones(shape, dtype=torch.uint8, device=device)
    if rng.random() < augment.fov_mask:
        box = float(rng.uniform(70, 190))
        for axis in (1, 2):
            length = shape[axis] * spacing_zyx_mm[axis]
            middle = length / 2 + float(rng.uniform(-6, 6))
            first = max(0, int((middle - box / 2) / spacing_zyx_mm[axis]))
            last = int((middle + box / 2) / spacing_zyx_mm[axis])
            fov.narrow(axis, 0, first).zero_()
            if last < shape[axis]:
                fov.narrow(axis, last, shape[axis] - last).zero_()
    if rng.random() < augment.slice_drop:
        for first, end in ((True, int(rng.integers(0, 5))), (False, int(rng.integers(0, 5)))):
            if end:
                fov.narrow(0, 0 if first else shape[0] - end, end).zero_()
    for name, value in out.items():
        if value.ndim >= 3:
            out[name] = value * fov
    out["fov"] = fov
    return out


@dataclass(frozen=True)
class SimCache:
    """A folder of cached anatomies, in order of their index."""

    folder: Path
    paths: tuple[Path, ...] = field(default=())

    @staticmethod
    def open(folder: Path) -> SimCache:
        """All finished anatomies of a folder. Raises FileNotFoundError where there is none."""
        paths = tuple(sorted(folder.glob("anatomy-*.npz")))
        if not paths:
            raise FileNotFoundError(f"no cached anatomies in {folder}; build them first")
        return SimCache(folder, paths)

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> CachedCase:
        """Read the anatomy at a position."""
        return load_case(self.paths[index])
