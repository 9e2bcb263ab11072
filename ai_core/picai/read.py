"""Reads an examination of the PI-CAI layout with its labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ai_core.errors import InputError
from ai_core.geometry import same_grid
from ai_core.labelled import GRADE_UNKNOWN, BenignFocus, LabelledCase, Reference
from ai_core.picai.layout import StudyFiles
from ai_core.prepare.geometry import geometry_of, resample_labels
from ai_core.types import Case, DceSeries, DwiVolume, Geometry, LabelArray, Volume
from ai_core.volume_io import read_volume

#: PI-CAI gives a high-b image with b >= 1000 and does not say which.
HIGH_B = 1400.0
DRAWN_AGAIN = "Draw the label again on the T2W image."


def read_study(files: StudyFiles) -> LabelledCase:
    """Read images and labels; labels on another grid are moved to that of T2W.

    Truth: the expert's delineation, else the AI's; a case that the table calls negative has no
    significant lesion; a positive one without delineation counts by case alone.

    Raises:
        InputError: a file cannot be read, a label has values that it cannot have, or neither
            labels nor the table say whether there is significant cancer.
        GeometryError: an image has no usable geometry.
    """
    case, hidden = read_images(files), _parameters(files)
    center = files.row.center if files.row else None
    truth = _reference(files, hidden, case.t2w.geometry)
    return LabelledCase(files.name, center or "unknown", case, truth)


def read_images(files: StudyFiles) -> Case:
    """Read the images alone; raises as `read_study` does for them."""
    hidden = _parameters(files)
    high_b = None
    if "hbv" in files.images:
        b = float(hidden.get("parameters", {}).get("site", {}).get("high_b", HIGH_B))
        high_b = DwiVolume(read_volume(files.images["hbv"]), b)
    return Case(
        t2w=read_volume(files.images["t2w"]),
        adc=read_volume(files.images["adc"]),
        high_b=high_b,
        dce=_dynamic(files.images["dce"], hidden) if "dce" in files.images else None,
    )


def is_simulated(files: StudyFiles) -> bool:
    """Whether the simulator made it: it writes down what it hid."""
    return "mimics" in _parameters(files)


def _parameters(files: StudyFiles) -> dict[str, Any]:
    """Return what the simulator wrote beside a case; empty for real ones."""
    if files.parameters is None:
        return {}
    try:
        data: dict[str, Any] = json.loads(files.parameters.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{files.parameters} cannot be read: {error}", "Simulate again."
        ) from error
    return data


def _dynamic(path: Path, hidden: dict[str, Any]) -> DceSeries | None:
    """Phases of a four-dimensional image; needs the times that the simulator records."""
    times = tuple(float(t) for t in hidden.get("dce_times_s", ()))
    if not times:
        return None
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read", "Write it again.") from error
    if image.GetDimension() != 4 or image.GetSize()[3] != len(times):
        raise InputError(
            f"{path} does not hold {len(times)} phases", "Write one volume per recorded time."
        )
    phases = [image[:, :, :, i] for i in range(len(times))]
    return DceSeries(
        tuple(Volume(sitk.GetArrayFromImage(p), geometry_of(p)) for p in phases), times
    )


def _reference(files: StudyFiles, hidden: dict[str, Any], grid: Geometry) -> Reference:
    grades = _grades(files, grid)
    said = files.row.significant if files.row else None
    if grades is None and said is None:
        raise InputError(
            f"nothing says whether {files.name} shows significant cancer",
            "Give the folder of its label or a marksheet.csv with case_csPCa.",
        )
    if grades is None and said is False:
        grades = np.zeros(grid.shape_zyx, dtype=np.uint8)
    positive = bool(grades.any()) if grades is not None else bool(said)
    if said is True and not positive:
        positive, grades = True, None  # the table knows of cancer that nobody drew
    gland, zones = _label(files, "gland", grid, 1), _label(files, "zones", grid, 2)
    if gland is None and zones is not None:
        gland = (zones > 0).astype(np.uint8)
    recorded = [v for v in (files.row.lesion_pirads if files.row else ()) if v is not None]
    benign = _benign(hidden)
    highest = max((focus.pirads for focus in benign or ()), default=0)
    return Reference(
        positive, grades, gland, zones, benign, max([*recorded, highest], default=0) or None
    )


def _grades(files: StudyFiles, grid: Geometry) -> LabelArray | None:
    if "lesions_expert" in files.labels:
        label = _label(files, "lesions_expert", grid, 5)
        return None if label is None else label
    label = _label(files, "lesions_ai", grid, 5)
    if label is None:
        return None
    return np.where(label > 0, GRADE_UNKNOWN, 0).astype(np.uint8)


def _label(files: StudyFiles, kind: str, grid: Geometry, highest: int) -> LabelArray | None:
    path = files.labels.get(kind)
    if path is None:
        return None
    volume = read_volume(path)
    values = volume.array
    _check(values, highest, path)
    labels = values.astype(np.uint8)
    if same_grid(volume.geometry, grid):
        return labels
    return resample_labels(labels, volume.geometry, grid)


def _check(values: npt.NDArray[np.generic], highest: int, path: Path) -> None:
    found = np.unique(values).astype(np.float64)
    wrong = [v for v in found if v not in range(highest + 1)]
    if wrong:
        raise InputError(f"{path} holds the label {wrong[0]:g}, not 0 to {highest}", DRAWN_AGAIN)


def _benign(hidden: dict[str, Any]) -> tuple[BenignFocus, ...] | None:
    if "mimics" not in hidden:
        return None
    rows = [*hidden["mimics"], *(row for row in hidden["lesions"] if row["isup"] < 2)]
    return tuple(
        BenignFocus(row["kind"], row["isup"], row["pirads"], tuple(row["center_lps_mm"]))
        for row in rows
    )
