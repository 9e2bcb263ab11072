"""A label canvas on any grid: warped patient coordinates and windows around shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.geometry import index_to_lps
from ai_core.sim.fields import Lattice, smooth_lattice
from ai_core.sim.params import AnatomyParams, Tissue, Vec
from ai_core.types import Geometry

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
_WARP_HALF = (132.0, 132.0, 108.0)
_MARGIN = 5.0


@dataclass(frozen=True)
class Window:
    """A sub-box of the canvas: views of labels and warped coordinates (mm)."""

    labels: npt.NDArray[np.uint8]
    x: Array
    y: Array
    z: Array
    where: tuple[slice, slice, slice]

    def paint(self, mask: Mask, tissue: Tissue) -> None:
        """Set a tissue where the mask holds."""
        self.labels[mask] = tissue


class Canvas:
    """Labels and warped patient coordinates of one grid."""

    def __init__(self, params: AnatomyParams, geometry: Geometry) -> None:
        rng = np.random.default_rng([params.seed, 1])
        warp = smooth_lattice(
            rng,
            _WARP_HALF,
            step_mm=6.0,
            sigmas_mm=(18.0, 6.0),
            amplitudes=(params.warp_coarse_mm, params.warp_fine_mm),
        )
        self.shape_noise: Lattice = smooth_lattice(
            rng, (66, 66, 66), step_mm=3.0, sigmas_mm=(3.5,), amplitudes=(1.0,)
        )
        self.geometry = geometry
        self.inverse = np.linalg.inv(index_to_lps(geometry))
        px, py, pz = patient_points(geometry)
        ux, uy, uz = warp.sample_numpy(px, py, pz)
        self.x, self.y, self.z = px + ux, py + uy, pz + uz
        self.labels = np.full(geometry.shape_zyx, Tissue.FAT, dtype=np.uint8)

    def window(self, low: Vec, high: Vec) -> Iterator[Window]:
        """Yield the sub-box that holds the patient box ``low..high``, if the grid meets it."""
        corners = np.array(
            [
                [x, y, z, 1.0]
                for x in (low[0] - _MARGIN, high[0] + _MARGIN)
                for y in (low[1] - _MARGIN, high[1] + _MARGIN)
                for z in (low[2] - _MARGIN, high[2] + _MARGIN)
            ]
        ).T
        index = (self.inverse @ corners)[:3]
        first = np.maximum(np.floor(index.min(axis=1)), 0).astype(int)
        last = np.minimum(np.ceil(index.max(axis=1)) + 1, self.geometry.size_xyz).astype(int)
        if np.all(last > first):
            where = tuple(slice(int(first[i]), int(last[i])) for i in (2, 1, 0))
            yield Window(
                self.labels[where],
                self.x[where],
                self.y[where],
                self.z[where],
                (where[0], where[1], where[2]),
            )

    def ellipsoid(
        self, center: Vec, radii: Vec, tissue: Tissue, *, cortex_mm: float = 0.0, both: bool = False
    ) -> None:
        """Paint an axis-parallel ellipsoid with a bony cortex; ``both``: on the other side too."""
        low = tuple(c - r for c, r in zip(center, radii, strict=True))
        high = tuple(c + r for c, r in zip(center, radii, strict=True))
        for w in self.window((low[0], low[1], low[2]), (high[0], high[1], high[2])):
            q = ((w.x - center[0]) / radii[0]) ** 2 + ((w.y - center[1]) / radii[1]) ** 2
            level = np.sqrt(q + ((w.z - center[2]) / radii[2]) ** 2)
            if cortex_mm > 0:
                w.paint(level < 1, Tissue.CORTICAL)
            w.paint(level < 1 - cortex_mm / min(radii), tissue)
        if both:
            self.ellipsoid(_other_side(center), radii, tissue, cortex_mm=cortex_mm)

    def tube(
        self,
        start: Vec,
        end: Vec,
        tissue: Tissue,
        *,
        radius: float,
        rim_mm: float = 0.0,
        rim: Tissue = Tissue.CORTICAL,
        both: bool = False,
    ) -> None:
        """Paint a capsule-shaped segment with a rim; ``both``: on the other side too."""
        low = tuple(min(a, b) - radius for a, b in zip(start, end, strict=True))
        high = tuple(max(a, b) + radius for a, b in zip(start, end, strict=True))
        a = np.asarray(start, dtype=np.float32)
        d = np.asarray(end, dtype=np.float32) - a
        length2 = float(d @ d) + 1e-6
        for w in self.window((low[0], low[1], low[2]), (high[0], high[1], high[2])):
            rx, ry, rz = w.x - a[0], w.y - a[1], w.z - a[2]
            t = np.clip((rx * d[0] + ry * d[1] + rz * d[2]) / length2, 0, 1)
            dist2 = (rx - t * d[0]) ** 2 + (ry - t * d[1]) ** 2 + (rz - t * d[2]) ** 2
            if rim_mm > 0:
                w.paint(dist2 < radius**2, rim)
            w.paint(dist2 < (radius - rim_mm) ** 2, tissue)
        if both:
            self.tube(
                _other_side(start), _other_side(end), tissue, radius=radius, rim_mm=rim_mm, rim=rim
            )


def _other_side(point: Vec) -> Vec:
    return (-point[0], point[1], point[2])


def patient_points(geometry: Geometry) -> tuple[Array, Array, Array]:
    """LPS coordinates of every voxel, three arrays ``[z, y, x]`` in mm."""
    m = index_to_lps(geometry).astype(np.float32)
    nx, ny, nz = geometry.size_xyz
    i = np.arange(nx, dtype=np.float32)[None, None, :]
    j = np.arange(ny, dtype=np.float32)[None, :, None]
    k = np.arange(nz, dtype=np.float32)[:, None, None]
    axes = [m[a, 0] * i + m[a, 1] * j + m[a, 2] * k + m[a, 3] for a in range(3)]
    shape = geometry.shape_zyx
    return tuple(np.array(np.broadcast_to(v, shape), order="C") for v in axes)  # type: ignore[return-value]
