"""Closed outlines of a mask on one slice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.measure import find_contours

Points = npt.NDArray[np.float64]

_FEWEST_POINTS = 9
"""OHIF takes a closed polyline of five points for a rectangle."""


def slice_of_largest_area(mask: npt.NDArray[np.bool_]) -> int:
    """Index z of the slice with most voxels of ``mask`` [z, y, x]; the lowest of equals."""
    return int(np.argmax(mask.sum(axis=(1, 2))))


def outlines(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Return closed outlines of ``mask`` [y, x], the longest first.

    Each is an array of shape (points, 2), (column, row) in index coordinates where the centre of
    the first pixel is (0, 0); the first point is repeated at the end. They run half way between
    pixels inside and outside.
    """
    padded = np.pad(mask, 1).astype(np.float64)
    found = [contour[:, ::-1] - 1.0 for contour in find_contours(padded, 0.5)]
    return sorted(found, key=len, reverse=True)


def graphic_data(mask: npt.NDArray[np.bool_]) -> Points:
    """Return the largest outline of ``mask`` [y, x] as spatial coordinates of an SR (column, row).

    There the centre of the first pixel is (0.5, 0.5) (PS3.3 C.18.6.1.2).
    """
    points = outlines(mask)[0] + 0.5
    while len(points) < _FEWEST_POINTS:
        points = _with_midpoints(points)
    rounded: Points = np.round(points, 3)
    return rounded


def _with_midpoints(points: Points) -> Points:
    middles = (points[:-1] + points[1:]) / 2
    doubled = np.empty((len(points) + len(middles), 2))
    doubled[0::2], doubled[1::2] = points, middles
    return doubled
