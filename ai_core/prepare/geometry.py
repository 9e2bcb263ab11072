"""Removal of geometric variability (claim 19): everything onto grids in the orientation of T2W.

SimpleITK is used here and in `registration` only; training needs neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ai_core.config import Grid
from ai_core.errors import GeometryError
from ai_core.geometry import grid_around, index_of_lps, lps_of_index
from ai_core.types import FloatArray, Geometry, LabelArray, Vector3, Volume

Scalar = TypeVar("Scalar", bound=np.generic)
DETERMINANT_TOLERANCE = 0.05
#: Room around a cropped image: pixels, and standard deviations of the smoothing.
MARGIN_PIXELS = 2
MARGIN_SIGMAS = 6.0


def check_geometry(geometry: Geometry, name: str) -> None:
    """Refuse a grid that cannot be placed in the patient.

    Raises:
        GeometryError: a size or spacing is not positive or not finite, or the axes are not
            orthonormal.
    """
    numbers = np.array([*geometry.spacing_xyz_mm, *geometry.origin_lps_mm])
    direction = np.asarray(geometry.direction, dtype=np.float64)
    good = (
        np.isfinite(numbers).all()
        and np.isfinite(direction).all()
        and min(geometry.spacing_xyz_mm) > 0
        and min(geometry.size_xyz) > 0
        and abs(abs(np.linalg.det(direction)) - 1) < DETERMINANT_TOLERANCE
    )
    if not good:
        raise GeometryError(
            f"the geometry of {name} is not usable",
            "Export the series again with its position, orientation and spacing.",
        )


def to_sitk(volume: Volume) -> sitk.Image:
    """Return a SimpleITK image (float32) of a volume."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array, dtype=np.float32))
    geometry = volume.geometry
    image.SetSpacing(geometry.spacing_xyz_mm)
    image.SetOrigin(geometry.origin_lps_mm)
    image.SetDirection([v for row in geometry.direction for v in row])
    return image


def geometry_of(image: sitk.Image) -> Geometry:
    """Return the grid of a three-dimensional SimpleITK image."""
    d = image.GetDirection()
    rows = ((d[0], d[1], d[2]), (d[3], d[4], d[5]), (d[6], d[7], d[8]))
    return Geometry(
        tuple(image.GetSize()), tuple(image.GetSpacing()), tuple(image.GetOrigin()), rows
    )


def working_grid(t2w: Geometry, center_lps_mm: Vector3, grid: Grid) -> Geometry:
    """Return the working grid around a point, in the orientation of T2W."""
    nz, ny, nx = grid.shape_zyx
    sz, sy, sx = grid.spacing_zyx_mm
    return grid_around(center_lps_mm, (sx, sy, sz), (nx, ny, nz), t2w.direction)


def resample(
    image: sitk.Image,
    target: Geometry,
    transform: sitk.Transform | None = None,
    interpolator: int = sitk.sitkLinear,
) -> FloatArray:
    """Values of ``image`` on the ``target`` grid, 0 outside its field of view.

    ``transform`` maps points of the target to points of the image (SimpleITK's convention). Where
    the target's pixels are larger, the image is smoothed first, so that noise does not alias.
    """
    smooth = _smoothed(image if transform is not None else _cropped(image, target), target)
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize(target.size_xyz)
    filter_.SetOutputSpacing(target.spacing_xyz_mm)
    filter_.SetOutputOrigin(target.origin_lps_mm)
    filter_.SetOutputDirection([v for row in target.direction for v in row])
    filter_.SetInterpolator(interpolator)
    filter_.SetDefaultPixelValue(0.0)
    if transform is not None:
        filter_.SetTransform(transform)
    return np.asarray(sitk.GetArrayFromImage(filter_.Execute(smooth)), dtype=np.float32)


def _cropped(image: sitk.Image, target: Geometry) -> sitk.Image:
    """Part of the image that the target can see, with room for smoothing."""
    window = overlap(target, geometry_of(image))
    if window is None:
        return image
    own, size = image.GetSpacing(), image.GetSize()
    reach = MARGIN_PIXELS + MARGIN_SIGMAS * 0.42 * max(target.spacing_xyz_mm[:2])
    low, count = [], []
    for axis, (start, stop) in enumerate(reversed(window)):
        more = int(np.ceil(MARGIN_PIXELS + reach / own[axis]))
        low.append(max(0, start - more))
        count.append(min(size[axis], stop + more) - low[-1])
    part: sitk.Image = sitk.RegionOfInterest(image, count, low)
    return part


def _smoothed(image: sitk.Image, target: Geometry) -> sitk.Image:
    """In-plane Gaussian of the width that the coarser pixels of the target ask for."""
    own = image.GetSpacing()
    sigmas = [
        0.42 * max(new**2 - old**2, 0.0) ** 0.5
        for new, old in zip(target.spacing_xyz_mm[:2], own[:2], strict=True)
    ]
    result = image
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.25 * own[axis]:
            result = sitk.RecursiveGaussian(
                result, sigma, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis
            )
    return result


@dataclass(frozen=True)
class Window:
    """A box of a grid: work on ``part`` costs less than on ``whole``. Starts are z, y, x."""

    whole: Geometry
    part: Geometry
    start_zyx: tuple[int, int, int]

    @classmethod
    def over(cls, source: Geometry, whole: Geometry) -> Window | None:
        """Return the smallest box of ``whole`` that holds all of ``source``; None where none."""
        ranges = overlap(source, whole)
        if ranges is None:
            return None
        (z0, z1), (y0, y1), (x0, x1) = ranges
        part = Geometry(
            (x1 - x0, y1 - y0, z1 - z0),
            whole.spacing_xyz_mm,
            lps_of_index(whole, (z0, y0, x0)),
            whole.direction,
        )
        return cls(whole, part, (z0, y0, x0))

    def embed(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Put an array of the part into one of the whole, 0 elsewhere."""
        result = np.zeros(self.whole.shape_zyx, dtype=array.dtype)
        result[self._box] = array
        return result

    def cut(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Take the part out of an array of the whole."""
        return array[self._box]

    @property
    def _box(self) -> tuple[slice, ...]:
        pairs = zip(self.start_zyx, self.part.shape_zyx, strict=True)
        return tuple(slice(start, start + count) for start, count in pairs)


def resample_map(
    values: FloatArray, source: Geometry, target: Geometry, interpolator: int = sitk.sitkLinear
) -> FloatArray:
    """Resample a map from one grid to another, 0 outside; computed only where they overlap."""
    window = Window.over(source, target)
    if window is None:
        return np.zeros(target.shape_zyx, dtype=np.float32)
    part = window.part
    out = sitk.Resample(
        to_sitk(Volume(values, source)),
        list(part.size_xyz),
        sitk.Transform(),
        interpolator,
        list(part.origin_lps_mm),
        list(part.spacing_xyz_mm),
        [v for row in part.direction for v in row],
        0.0,
    )
    return window.embed(sitk.GetArrayFromImage(out))


def resample_labels(labels: LabelArray, source: Geometry, target: Geometry) -> LabelArray:
    """Nearest-neighbour resampling of a label image, 0 outside."""
    values = resample_map(labels.astype(np.float32), source, target, sitk.sitkNearestNeighbor)
    return values.astype(np.uint8)


def overlap(source: Geometry, target: Geometry) -> tuple[tuple[int, int], ...] | None:
    """Return index ranges z, y, x of the target that hold all of the source, or None."""
    nz, ny, nx = source.shape_zyx
    corners = [
        index_of_lps(target, lps_of_index(source, (z, y, x)))
        for z in (-0.5, nz - 0.5)
        for y in (-0.5, ny - 0.5)
        for x in (-0.5, nx - 0.5)
    ]
    low = np.floor(np.min(corners, axis=0)).astype(int)
    high = np.ceil(np.max(corners, axis=0)).astype(int) + 1
    ranges = [
        (int(max(0, a)), int(min(n, b)))
        for a, b, n in zip(low, high, target.shape_zyx, strict=True)
    ]
    return tuple(ranges) if all(a < b for a, b in ranges) else None
