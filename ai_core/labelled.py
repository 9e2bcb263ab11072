"""An examination with what is known to be true about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ai_core.candidates import CUBE_26
from ai_core.types import Case, LabelArray, Vector3

#: Label of a significant lesion whose grade group is not known (PI-CAI's AI delineations).
GRADE_UNKNOWN = 1


@dataclass(frozen=True)
class BenignFocus:
    """Something suspicious that is not significant cancer; ``isup`` is 0 or 1."""

    kind: str
    isup: int
    pirads: int
    center_lps_mm: Vector3


@dataclass(frozen=True)
class Reference:
    """Truth on the T2W grid.

    ``grades``: 0, `GRADE_UNKNOWN`, or 2..5, the ISUP grade group of significant cancer; None where
    nobody drew the lesions. ``gland`` 0/1 and ``zones`` 1 PZ, 2 TZ: None where not drawn.
    ``benign``: None where not recorded.
    """

    positive: bool
    grades: LabelArray | None
    gland: LabelArray | None
    zones: LabelArray | None
    benign: tuple[BenignFocus, ...] | None = None
    highest_pirads: int | None = None


@dataclass(frozen=True)
class LabelledCase:
    """One examination, where it comes from, and its truth."""

    name: str
    site: str
    case: Case
    reference: Reference


def lesion_parts(grades: LabelArray) -> tuple[LabelArray, tuple[int, ...]]:
    """Return significant lesions numbered 1..n by 26-connection, as in PI-CAI, and their grades."""
    labels, count = ndimage.label(grades, CUBE_26)
    top = ndimage.maximum(grades, labels, np.arange(1, count + 1)) if count else ()
    return labels.astype(np.uint8), tuple(int(grade) for grade in top)
