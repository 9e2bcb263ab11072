"""Affine round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ai_core.config import Grid
from ai_core.errors import GeometryError
from ai_core.geometry import centre_lps, grid_around, index_of_lps, lps_of_index, same_grid
from ai_core.prepare.geometry import check_geometry, resample_labels, resample_map, working_grid
from ai_core.types import Geometry

mm = st.floats(-300, 300)
spacing = st.floats(0.2, 6.0)
angle = st.floats(-1.5, 1.5)
size = st.integers(1, 200)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    rows = Rotation.from_euler("xyz", [draw(angle), draw(angle), draw(angle)]).as_matrix()
    return Geometry(
        (draw(size), draw(size), draw(size)),
        (draw(spacing), draw(spacing), draw(spacing)),
        (draw(mm), draw(mm), draw(mm)),
        tuple(tuple(float(v) for v in row) for row in rows),
    )


@given(geometries(), st.tuples(mm, mm, mm))
def test_index_and_lps_are_inverse(geometry: Geometry, index: tuple[float, float, float]) -> None:
    back = index_of_lps(geometry, lps_of_index(geometry, index))
    assert back == pytest.approx(index, abs=1e-6)


@given(geometries())
def test_first_voxel_lies_at_the_origin(geometry: Geometry) -> None:
    assert lps_of_index(geometry, (0, 0, 0)) == pytest.approx(geometry.origin_lps_mm)


@given(geometries(), st.tuples(mm, mm, mm))
def test_a_grid_around_a_point_is_centred_there(
    geometry: Geometry, point: tuple[float, float, float]
) -> None:
    grid = grid_around(
        point, geometry.spacing_xyz_mm, geometry.size_xyz, np.asarray(geometry.direction)
    )
    assert centre_lps(grid) == pytest.approx(point, abs=1e-6)
    assert same_grid(grid, grid)


@given(geometries())
def test_the_working_grid_keeps_the_orientation(geometry: Geometry) -> None:
    grid = working_grid(geometry, (1.0, 2.0, 3.0), Grid())
    assert np.allclose(grid.direction, geometry.direction)
    assert grid.shape_zyx == Grid().shape_zyx
    check_geometry(grid, "working grid")


def test_a_map_keeps_its_place_on_another_grid() -> None:
    source = grid_around((5.0, -3.0, 10.0), (1.2, 1.2, 3.0), (80, 80, 24), np.eye(3))
    target = grid_around((0.0, 0.0, 12.0), (0.5, 0.5, 3.0), (200, 200, 20), np.eye(3))
    values = np.zeros(source.shape_zyx, dtype=np.float32)
    values[12, 40, 40] = 1.0
    moved = resample_map(values, source, target)
    peak = lps_of_index(
        target, tuple(float(i) for i in np.unravel_index(moved.argmax(), moved.shape))
    )
    assert np.linalg.norm(np.subtract(peak, lps_of_index(source, (12, 40, 40)))) < 1.6


def test_labels_are_not_mixed_by_resampling() -> None:
    source = grid_around((0.0, 0.0, 0.0), (1.0, 1.0, 3.0), (30, 30, 10), np.eye(3))
    target = grid_around((0.0, 0.0, 0.0), (0.7, 0.7, 3.0), (50, 50, 10), np.eye(3))
    labels = np.zeros(source.shape_zyx, dtype=np.uint8)
    labels[4:7, 5:20, 5:20] = 5
    assert set(np.unique(resample_labels(labels, source, target))) == {0, 5}


@pytest.mark.parametrize(
    "bad",
    [
        Geometry((4, 4, 4), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        Geometry((4, 4, 4), (1.0, 1.0, float("nan")), (0.0, 0.0, 0.0)),
        Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((1, 0, 0), (0, 1, 0), (0, 0, 0))),
    ],
)
def test_unusable_geometry_is_refused(bad: Geometry) -> None:
    with pytest.raises(GeometryError, match="not usable"):
        check_geometry(bad, "T2W")
