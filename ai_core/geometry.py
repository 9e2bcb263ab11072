"""Affine maths between voxel indices and patient space (LPS, millimetres). Pure NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ai_core.types import Geometry, Vector3

Affine = npt.NDArray[np.float64]


def index_to_lps(geometry: Geometry) -> Affine:
    """4 x 4 matrix from voxel index ``(x, y, z, 1)`` to LPS millimetres."""
    matrix = np.eye(4)
    direction = np.asarray(geometry.direction, dtype=np.float64)
    matrix[:3, :3] = direction * np.asarray(geometry.spacing_xyz_mm)
    matrix[:3, 3] = geometry.origin_lps_mm
    return matrix


def lps_of_index(geometry: Geometry, index_zyx: tuple[float, float, float]) -> Vector3:
    """Patient position of an array index ``(z, y, x)``; fractions of a voxel are allowed."""
    z, y, x = index_zyx
    point = index_to_lps(geometry) @ np.array([x, y, z, 1.0])
    return (float(point[0]), float(point[1]), float(point[2]))


def index_of_lps(geometry: Geometry, point_lps_mm: Vector3) -> tuple[float, float, float]:
    """Array index ``(z, y, x)`` of a patient position, as fractions of voxels."""
    x, y, z = (np.linalg.inv(index_to_lps(geometry)) @ np.array([*point_lps_mm, 1.0]))[:3]
    return (float(z), float(y), float(x))


def centre_lps(geometry: Geometry) -> Vector3:
    """Patient position of the middle of the grid."""
    x, y, z = geometry.size_xyz
    return lps_of_index(geometry, ((z - 1) / 2, (y - 1) / 2, (x - 1) / 2))


def grid_around(
    center_lps_mm: Vector3,
    spacing_xyz_mm: Vector3,
    size_xyz: tuple[int, int, int],
    direction: npt.ArrayLike,
) -> Geometry:
    """Return a grid of given spacing, size and direction with its middle at a patient position."""
    columns = np.asarray(direction, dtype=np.float64)
    half = (np.asarray(size_xyz) - 1) / 2 * np.asarray(spacing_xyz_mm)
    origin = np.asarray(center_lps_mm) - columns @ half
    rows = tuple(tuple(float(v) for v in row) for row in columns)
    return Geometry(size_xyz, spacing_xyz_mm, tuple(map(float, origin)), rows)  # type: ignore[arg-type]


def same_grid(a: Geometry, b: Geometry, tolerance_mm: float = 0.1) -> bool:
    """Whether two grids have the same size and put every corner at the same place."""
    if a.size_xyz != b.size_xyz:
        return False
    x, y, z = a.size_xyz
    corners = np.array(
        [[i, j, k, 1.0] for i in (0, x - 1) for j in (0, y - 1) for k in (0, z - 1)]
    ).T
    difference = (index_to_lps(a) - index_to_lps(b)) @ corners
    return bool(np.abs(difference).max() <= tolerance_mm)
