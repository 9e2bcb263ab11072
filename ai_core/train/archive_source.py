"""Real examinations of the PI-CAI layout as training data.

Each examination is prepared once (registration, own ADC unit, all images on one grid around the
gland) and kept as a compressed file; every draw turns, scales, mirrors and crops it anew.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional as F

from ai_core.config import CoreConfig, Grid
from ai_core.errors import InputError
from ai_core.features import LARGE_MM, longest_diameter_mm
from ai_core.geometry import lps_of_index
from ai_core.labelled import LabelledCase, lesion_parts
from ai_core.picai.layout import StudyFiles, open_archive
from ai_core.picai.read import read_study
from ai_core.picai.splits import split_patients
from ai_core.prepare.assemble import assemble
from ai_core.prepare.geometry import resample, resample_labels, to_sitk, working_grid
from ai_core.prepare.normalise import Images
from ai_core.train.source import Drawn
from ai_core.types import Case, FloatArray

Rng = np.random.Generator
ZyxMm = tuple[float, float, float]
#: Kept around the gland: room for the gland finder's grid, its shifts and turns.
KEPT = Grid(shape_zyx=(40, 200, 200), spacing_zyx_mm=(3.0, 1.0, 1.0))
#: T2W and high b have no unit: stored so that their 99th percentile is this (float16 range).
STORED_P99 = 1000.0
SCALE = (0.9, 1.1)
TURN_DEG = 8.0
#: Grade group that stands for "significant, grade not known".
ASSUMED_ISUP = 2


@dataclass(frozen=True)
class ArchiveSource:
    """Prepared examinations; draws are functions of the generator alone."""

    files: tuple[Path, ...]
    real: bool = True
    kept: Grid = KEPT

    @classmethod
    def open(
        cls,
        folders: Sequence[Path],
        cache: Path,
        config: CoreConfig,
        held_out: bool = False,
        fold: int = 0,
    ) -> ArchiveSource:
        """Prepare what is not prepared yet, and take one side of a split by patient.

        The held-out share, its number of parts and the seed come from the configuration.
        Examinations without gland, zones or drawn lesions are left out.

        Raises:
            InputError: the folders hold no examination that can be trained on.
        """
        usable = {study.name: study for study in open_archive(folders).studies if _complete(study)}
        if not usable:
            raise InputError(
                "no examination has gland and zone labels",
                "Add the folder anatomical_delineations of the PI-CAI labels.",
            )
        patients = _held_out_patients(tuple(usable.values()), config, fold)
        cache.mkdir(parents=True, exist_ok=True)
        files = []
        for name, study in usable.items():
            if (study.patient_id in patients) == held_out:
                path = cache / f"{name}.npz"
                if path.exists() or _prepare(study, path, config):
                    files.append(path)
        if not files:
            raise InputError("no examination can be trained on", "Add labels of lesions.")
        return cls(tuple(files))

    def __len__(self) -> int:
        return len(self.files)

    def without_lesions(self) -> ArchiveSource:
        """Return the examinations in which no lesion is marked."""
        return replace(self, files=tuple(f for f in self.files if not len(_load(f)["foci"])))

    def draw(
        self,
        rng: Rng,
        grid: Grid,
        offset_zyx_mm: ZyxMm,
        modalities: Sequence[str],
        number: int | None = None,
        augment: bool = True,
    ) -> Drawn:
        """Draw a random examination (or ``number``) on a grid around its shifted gland centre.

        Raises:
            InputError: a prepared file is broken.
        """
        index = int(rng.integers(len(self.files))) if number is None else number
        stored = _load(self.files[index % len(self.files)])
        offset = np.array([float(rng.uniform(-o, o)) for o in offset_zyx_mm])
        points = _points(rng, grid, offset, augment, self.kept)
        t2w = _sample(stored["t2w"], points)
        images = Images(
            t2w,
            _sample(stored["adc"], points) if "adc" in modalities else None,
            _maybe(stored, "high_b", points, modalities),
            _maybe(stored, "dce", points, modalities),
        )
        instances = _nearest(stored["instances"], points).astype(np.int64)
        rows = stored["foci"].astype(int).tolist()
        foci = {int(n): (int(g), int(s)) for n, g, s in rows}
        return Drawn(images, _nearest(stored["zones"], points).astype(np.uint8), instances, foci)


def _complete(study: StudyFiles) -> bool:
    return "zones" in study.labels


def _held_out_patients(
    studies: tuple[StudyFiles, ...], config: CoreConfig, fold: int
) -> frozenset[str]:
    positive: dict[str, bool] = {}
    for study in studies:
        said = bool(study.row and study.row.significant) or "lesions_expert" in study.labels
        positive[study.patient_id] = positive.get(study.patient_id, False) or said
    parts = max(2, round(1 / config.training.held_out))
    if len(positive) < parts:
        raise InputError(
            f"{len(positive)} patients are too few to hold out one part of {parts}",
            "Add data, or raise training.held_out.",
        )
    return frozenset(split_patients(positive, parts, config.training.seed)[fold])


def _prepare(study: StudyFiles, path: Path, config: CoreConfig) -> bool:
    """Write the prepared examination; False where its lesions were not drawn."""
    labelled = read_study(study)
    truth = labelled.reference
    if truth.grades is None or truth.zones is None or not truth.zones.any():
        return False
    instances, foci = foci_of(labelled)
    prepare_case(labelled.case, Marked(truth.zones, instances, foci), path, config)
    return True


@dataclass(frozen=True)
class Marked:
    """Labels on the T2W grid: zones 0/1/2, lesions numbered 1.., rows (number, ISUP, PI-RADS)."""

    zones: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    foci: npt.NDArray[np.int16]


def prepare_case(case: Case, marked: Marked, path: Path, config: CoreConfig) -> None:
    """Bring an examination to `KEPT` around the middle of its zones and write it."""
    geometry = case.t2w.geometry
    z, y, x = (float(v) for v in ndimage.center_of_mass(marked.zones > 0))
    target = working_grid(geometry, lps_of_index(geometry, (z, y, x)), KEPT)
    zones = resample_labels(marked.zones, geometry, target)
    t2w = resample(to_sitk(case.t2w), target)
    images = assemble(case, t2w, zones > 0, target, config).images
    instances = resample_labels(marked.instances, geometry, target)
    save_prepared(images, Marked(zones, instances, marked.foci), path)


def save_prepared(images: Images, marked: Marked, path: Path) -> None:
    """Write images and labels of one grid; the file appears whole or not at all."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"t2w": _scaled(images.t2w)}
    if images.adc_um2_s is not None:
        arrays["adc"] = images.adc_um2_s.astype(np.float16)
    if images.high_b is not None:
        arrays["high_b"] = _scaled(images.high_b)
    if images.dce is not None:
        arrays["dce"] = images.dce.astype(np.float16)
    arrays |= {"zones": marked.zones, "instances": marked.instances, "foci": marked.foci}
    part = path.with_suffix(".part")
    with part.open("wb") as handle:
        np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]
    part.replace(path)


def _scaled(image: FloatArray) -> npt.NDArray[np.float16]:
    inside = image[image > 0]
    top = float(np.percentile(inside, 99)) if inside.size else 1.0
    bounded = np.clip(image * (STORED_P99 / max(top, 1e-6)), 0, 6e4)
    return np.asarray(bounded, dtype=np.float16)


def foci_of(labelled: LabelledCase) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
    """Return lesions numbered 1.., and rows (number, ISUP, PI-RADS by size: 5 from 15 mm on)."""
    grades = labelled.reference.grades
    if grades is None:
        raise InputError(f"{labelled.name} has no drawn lesions", "Draw them.")
    numbers, found = lesion_parts(grades)
    sx, sy, sz = labelled.case.t2w.geometry.spacing_xyz_mm
    rows = [
        (number, max(grade, ASSUMED_ISUP), _pirads(numbers == number, (sz, sy, sx)))
        for number, grade in enumerate(found, start=1)
    ]
    return numbers, np.array(rows, dtype=np.int16).reshape(-1, 3)


def _pirads(mask: npt.NDArray[np.bool_], spacing: ZyxMm) -> int:
    return 5 if longest_diameter_mm(mask, spacing) >= LARGE_MM else 4


def _load(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is broken", "Delete it; it is made again.") from error


def _points(
    rng: Rng, grid: Grid, offset_mm: npt.NDArray[np.float64], augment: bool, kept: Grid
) -> torch.Tensor:
    """Return positions in the stored grid (-1 to 1), ``(1, z, y, x, 3)`` as x, y, z."""
    axes = [
        (np.arange(n) - (n - 1) / 2) * step + shift
        for n, step, shift in zip(grid.shape_zyx, grid.spacing_zyx_mm, offset_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    if augment:
        x = x * (-1.0 if rng.random() < 0.5 else 1.0)
        scale = rng.uniform(*SCALE)
        a = np.deg2rad(rng.uniform(-TURN_DEG, TURN_DEG))
        y, x = scale * (np.cos(a) * y - np.sin(a) * x), scale * (np.sin(a) * y + np.cos(a) * x)
        z = z * scale
    half = [n * step / 2 for n, step in zip(kept.shape_zyx, kept.spacing_zyx_mm, strict=True)]
    stacked = np.stack([x / half[2], y / half[1], z / half[0]], axis=-1)
    return torch.from_numpy(stacked.astype(np.float32))[None]


def _sample(image: npt.NDArray[np.generic], points: torch.Tensor) -> FloatArray:
    channels = torch.from_numpy(image.astype(np.float32)).reshape(1, -1, *image.shape[-3:])
    out = F.grid_sample(channels, points, align_corners=False)[0].numpy()
    return np.ascontiguousarray(out if image.ndim == 4 else out[0])


def _nearest(labels: npt.NDArray[np.generic], points: torch.Tensor) -> npt.NDArray[np.float32]:
    volume = torch.from_numpy(labels.astype(np.float32))[None, None]
    out = F.grid_sample(volume, points, mode="nearest", align_corners=False)[0, 0]
    return np.asarray(out.numpy(), dtype=np.float32)


def _maybe(
    stored: dict[str, npt.NDArray[np.generic]],
    name: str,
    points: torch.Tensor,
    modalities: Sequence[str],
) -> FloatArray | None:
    if name not in stored or name not in modalities:
        return None
    return _sample(stored[name], points)
