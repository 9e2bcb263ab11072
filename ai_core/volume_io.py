"""Volumes in files: NIfTI, MetaImage, NRRD (SimpleITK)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ai_core.errors import GeometryError, InputError
from ai_core.prepare.geometry import check_geometry, geometry_of
from ai_core.types import Geometry, Volume

SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")


def read_volume(path: Path) -> Volume:
    """Read a three-dimensional image as float32, LPS.

    Raises:
        InputError: the file is missing, unreadable, or not one of `SUFFIXES`.
        GeometryError: it is not three-dimensional, or its geometry is not usable.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path} has no known image suffix", f"Use one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"{path} does not exist", "Check the path.")
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{path} cannot be read: {reason}", "Write it again.") from error
    if image.GetDimension() != 3:
        raise GeometryError(
            f"{path} has {image.GetDimension()} dimensions", "Give one file per 3-D volume."
        )
    geometry = geometry_of(image)
    check_geometry(geometry, path.name)
    array = np.nan_to_num(np.asarray(sitk.GetArrayFromImage(image), dtype=np.float32))
    return Volume(array, geometry)


def write_volume(array: npt.NDArray[np.generic], geometry: Geometry, path: Path) -> None:
    """Write an array ``[z, y, x]`` with its geometry; the suffix chooses the format."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(geometry.spacing_xyz_mm)
    image.SetOrigin(geometry.origin_lps_mm)
    image.SetDirection([v for row in geometry.direction for v in row])
    sitk.WriteImage(image, str(path), useCompression=True)
