"""Where segments lie on another grid: nearest neighbour, from positions alone.

Works for any orientation, order and spacing, and with frames left out; one slice of the target at
a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.geometry import index_to_lps
from ai_core.types import Geometry
from dicom_node.annotations.segmentation import Segmentation, Stored
from dicom_node.domain.annotation import AnnotationProblem, AnnotationReason

Mask = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
_SAME_PLACE_MM = 0.05
_PARALLEL = 0.99
_SHIFT_MM = 1.0
_WHOLE = 0.1
"""How far, in slices, a frame may lie from its place in a regular stack."""
MAX_LEVELS = 20_000


@dataclass(frozen=True, eq=False)
class _Stack:
    """The grid of a segmentation: frames by level along its normal.

    ``to_index`` maps (LPS mm, 1) to column, row and level; ``levels`` of planes in file order.
    """

    to_index: Vector
    levels: tuple[int, ...]


def masks_on(segmentation: Segmentation, grid: Geometry) -> dict[int, Mask]:
    """Return the mask [z, y, x] of each segment on a grid in patient space, by segment number.

    Segments without a voxel there are left out.

    Raises:
        AnnotationProblem: the frames make no regular stack, or cannot be decoded.
    """
    stack = _stack(segmentation, grid)
    if not segmentation.label_map:
        found = {}
        for segment in segmentation.segments:
            frames = [plane for plane in segmentation.planes if plane.segment == segment.number]
            values, rows = _volume(segmentation, stack, [plane.index for plane in frames])
            mask = _look_up(values, rows, stack, grid) > 0
            if mask.any():
                found[segment.number] = mask
        return found
    values, rows = _volume(segmentation, stack, [plane.index for plane in segmentation.planes])
    labels = _look_up(values, rows, stack, grid)
    numbers = {segment.number for segment in segmentation.segments} & set(
        np.unique(labels).tolist()
    )
    return {number: labels == number for number in sorted(numbers)}


def _stack(segmentation: Segmentation, grid: Geometry) -> _Stack:
    row = np.asarray(segmentation.orientation[:3], dtype=np.float64)
    row /= np.linalg.norm(row)
    column = np.asarray(segmentation.orientation[3:], dtype=np.float64)
    column -= np.dot(column, row) * row
    column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    positions = np.array([plane.position for plane in segmentation.planes], dtype=np.float64)
    depth = positions @ normal
    start = positions[int(np.argmin(depth))]
    aside = (positions - start) @ np.stack([row, column], axis=1)
    if np.abs(aside).max() > _SHIFT_MM:
        raise AnnotationProblem(AnnotationReason.GEOMETRY, "(frames are shifted sideways)")
    heights = depth - depth.min()
    levels, step = _levels(heights, list(_candidates(segmentation, grid, normal)))
    between_rows, between_columns = segmentation.spacing_mm
    axes = np.eye(4)
    axes[:3, 0], axes[:3, 1] = row * between_columns, column * between_rows
    axes[:3, 2], axes[:3, 3] = normal * step, start
    return _Stack(np.linalg.inv(axes).astype(np.float64), tuple(levels))


def _candidates(segmentation: Segmentation, grid: Geometry, normal: Vector) -> Iterator[float]:
    """Distances that slices may have: as stated, as on the target where it is parallel."""
    if segmentation.between_mm is not None:
        yield segmentation.between_mm
    if abs(float(np.dot(np.asarray(grid.direction)[:, 2], normal))) > _PARALLEL:
        yield grid.spacing_xyz_mm[2]
    if segmentation.thickness_mm is not None:
        yield segmentation.thickness_mm


def _levels(heights: Vector, candidates: Sequence[float]) -> tuple[list[int], float]:
    """Return the number of each plane by height, and the distance of one number to the next."""
    gaps = np.diff(np.unique(heights))
    gaps = gaps[gaps > _SAME_PLACE_MM]
    own = [float(gaps.min())] if gaps.size else []
    for step in (*candidates, *own):
        numbers = heights / step
        whole = np.rint(numbers)
        if np.abs(numbers - whole).max() <= _WHOLE and whole.max() < MAX_LEVELS:
            exact = float(heights.max() / whole.max()) if whole.max() else step
            return whole.astype(int).tolist(), exact
    raise AnnotationProblem(AnnotationReason.GEOMETRY, "(its slices are not evenly spaced)")


def _volume(
    segmentation: Segmentation, stack: _Stack, frames: Sequence[int]
) -> tuple[Stored, npt.NDArray[np.int64]]:
    """Frames that mark something, and where in them each level stands (-1: nowhere).

    Two frames of one segment at one level are joined.
    """
    rows = np.full(max(stack.levels) + 1, -1, dtype=np.int64)
    slices: list[Stored] = []
    for index in frames:
        values = segmentation.values(index)
        if not values.any():
            continue
        level = stack.levels[index]
        if rows[level] < 0:
            rows[level] = len(slices)
            slices.append(values)
        else:
            slices[rows[level]] = np.maximum(slices[rows[level]], values)
    if not slices:
        return np.zeros((0, *segmentation.shape), dtype=np.uint8), rows
    return np.stack(slices), rows


def _look_up(
    values: Stored, rows: npt.NDArray[np.int64], stack: _Stack, grid: Geometry
) -> npt.NDArray[np.uint16]:
    """Value at the voxel of the stack that holds each voxel centre of the grid, 0 outside."""
    found = np.zeros(grid.shape_zyx, dtype=np.uint16)
    if not len(values):
        return found
    matrix = stack.to_index @ index_to_lps(grid)
    x = np.arange(grid.size_xyz[0])[None, :]
    y = np.arange(grid.size_xyz[1])[:, None]
    height, width = values.shape[1:]
    for z in range(grid.size_xyz[2]):
        column, row, level = (
            np.rint(m[0] * x + m[1] * y + m[2] * z + m[3]).astype(np.int64) for m in matrix[:3]
        )
        inside = (
            (column >= 0) & (column < width) & (row >= 0) & (row < height)
            & (level >= 0) & (level < len(rows))
        )  # fmt: skip
        place = rows[np.where(inside, level, 0)]
        inside &= place >= 0
        found[z][inside] = values[place[inside], row[inside], column[inside]]
    return found
