"""The sector map of PI-RADS v2.1 as a drawing: four levels, 41 sectors (CID 6304).

A scheme, not anatomy to scale: axial levels seen from below, the patient's right on the left of the
picture. Every pixel is classified by simple curves, so that sectors can neither overlap nor leave
gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dicom_node.results.codes import SECTORS
from dicom_node.results.page import Rgb, RgbArray

LEVELS = ("seminal vesicles", "base", "mid", "apex")
KEYS = tuple(SECTORS)

_OUTSIDE: Rgb = (14, 16, 20)
_BORDER: Rgb = (14, 16, 20)
_ZONE_RGB: dict[str, Rgb] = {
    "PZ": (70, 84, 98), "TZ": (92, 98, 106), "AS": (58, 64, 72), "CZ": (80, 74, 92),
    "SV": (70, 84, 98), "US": (92, 98, 106),
}  # fmt: skip
_WIDTH = {"base": 0.96, "mid": 0.96, "apex": 0.74}
"""Half width of the gland on each level; its half depth is four fifths of that."""
_POSTEROMEDIAL_DEG, _POSTEROLATERAL_DEG = 40.0, 100.0
"""As the rule that assigns sectors: angle from straight posterior."""

Plane = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Mark:
    """A finding on the map: its sector key and its colour."""

    rank: int
    sector: str
    rgb: Rgb


def sectors_of(key: str) -> tuple[str, ...]:
    """Sectors that a key names: itself, or all that fit where it leaves parts open (``-``)."""
    if key in SECTORS:
        return (key,)
    parts = key.split("/")
    if len(parts) != 4 or parts[0] not in _ZONE_RGB:
        return ()
    return tuple(
        known
        for known in KEYS
        if all(a in ("-", b) for a, b in zip(parts, known.split("/"), strict=True))
    )


@lru_cache(maxsize=8)
def labels(level: str, size_px: int) -> Labels:
    """Index into ``KEYS`` for every pixel of a level, shape (size_px, size_px); -1: none.

    Rows run from anterior to posterior, columns from the patient's right to the left.
    """
    axis = (np.arange(size_px) + 0.5) / size_px * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    found = np.full((size_px, size_px), -1, dtype=np.int16)
    for side, half in (("R", x < 0), ("L", x >= 0)):
        if level == LEVELS[0]:
            _paint(found, f"SV/-/-/{side}", half & _vesicle(x, y))
        else:
            _paint_gland(found, level, side, half, (x, y))
    if level == "apex":
        _paint(found, "US/-/-/-", (x / 0.13) ** 2 + ((y - 0.06) / 0.13) ** 2 <= 1)
    return found


def _paint(found: Labels, key: str, where: npt.NDArray[np.bool_]) -> None:
    found[where] = KEYS.index(key)


def _vesicle(x: Plane, y: Plane) -> npt.NDArray[np.bool_]:
    across = (np.abs(x) - 0.48) / 0.44
    return across**2 + ((y - 0.25 * np.abs(x)) / 0.22) ** 2 <= 1


def _paint_gland(
    found: Labels, level: str, side: str, half: npt.NDArray[np.bool_], xy: tuple[Plane, Plane]
) -> None:
    x, y = xy[0] / _WIDTH[level], xy[1] / (0.8 * _WIDTH[level])
    gland = half & (x**2 + y**2 <= 1)
    transition = gland & ((x / 0.62) ** 2 + ((y + 0.2) / 0.62) ** 2 <= 1)
    stroma = gland & ((x / 0.44) ** 2 + ((y + 0.98) / 0.5) ** 2 <= 1)
    angle = np.rad2deg(np.arctan2(np.abs(x), y))
    for position, wanted in (
        ("pm", angle < _POSTEROMEDIAL_DEG),
        ("pl", (angle >= _POSTEROMEDIAL_DEG) & (angle < _POSTEROLATERAL_DEG)),
        ("a", angle >= _POSTEROLATERAL_DEG),
    ):
        _paint(found, f"PZ/{position}/{level}/{side}", gland & wanted)
    _paint(found, f"TZ/a/{level}/{side}", transition & (y < -0.2))
    _paint(found, f"TZ/p/{level}/{side}", transition & (y >= -0.2))
    if level == "base":
        _paint(found, f"CZ/-/-/{side}", gland & ((x / 0.34) ** 2 + ((y - 0.48) / 0.22) ** 2 <= 1))
    _paint(found, f"AS/-/{level}/{side}", stroma)


def draw_level(level: str, size_px: int, marks: Sequence[Mark]) -> RgbArray:
    """Return the picture of a level, shape (size_px, size_px, 3), marked sectors in colour."""
    found = labels(level, size_px)
    palette = np.array([_ZONE_RGB[key.split("/")[0]] for key in KEYS] + [_OUTSIDE], np.uint8)
    for mark in sorted(marks, key=lambda mark: -mark.rank):
        for key in sectors_of(mark.sector):
            palette[KEYS.index(key)] = mark.rgb
    picture: RgbArray = palette[found]
    edge = np.zeros(found.shape, dtype=bool)
    edge[:, 1:] |= found[:, 1:] != found[:, :-1]
    edge[1:, :] |= found[1:, :] != found[:-1, :]
    picture[edge] = _BORDER
    return picture


def place_of(level: str, size_px: int, sector: str) -> tuple[float, float] | None:
    """Middle (column, row) of a sector on a level, inside it; None where it is not drawn there."""
    wanted = [KEYS.index(key) for key in sectors_of(sector)]
    rows, columns = np.nonzero(np.isin(labels(level, size_px), wanted))
    if not rows.size:
        return None
    away = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    nearest = int(np.argmin(away))
    return float(columns[nearest]), float(rows[nearest])
