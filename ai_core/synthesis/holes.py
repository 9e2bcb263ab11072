"""Which voxels are deleted: shifted lattices of square columns that together cover the gland.

A column goes through all slices, so that a lesion is not seen in the slice above the deleted one.
NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.config import SynthesisRules

Plane = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lattice:
    """Square holes of ``hole`` voxels, one every ``period``, shifted by ``stride`` each time."""

    hole: int
    stride: int
    period: int

    @classmethod
    def of(cls, rules: SynthesisRules) -> Lattice:
        """Take the lattice of a configuration."""
        return cls(rules.hole_voxels, rules.stride_voxels, rules.period_voxels)

    @property
    def count(self) -> int:
        """How many incomplete images there are."""
        return (self.period // self.stride) ** 2

    @property
    def times(self) -> int:
        """How often each voxel is deleted, at least."""
        return (self.hole // self.stride) ** 2

    def planes(self, shape_yx: tuple[int, int]) -> Iterator[Plane]:
        """Yield the holes ``[y, x]`` of each incomplete image, in a fixed order."""
        starts = range(0, self.period, self.stride)
        for top in starts:
            for left in starts:
                yield self.plane(shape_yx, top, left)

    def plane(self, shape_yx: tuple[int, int], top: int, left: int) -> Plane:
        """Return one lattice ``[y, x]`` whose first hole begins at row ``top``, column ``left``."""
        rows, columns = (
            (np.arange(n) - start) % self.period < self.hole
            for n, start in zip(shape_yx, (top, left), strict=True)
        )
        return np.asarray(rows[:, None] & columns[None])
