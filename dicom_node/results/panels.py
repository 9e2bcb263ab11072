"""The panels of key images: one square of the patient, resampled from any of the images.

Pure NumPy and Pillow. All panels of a page show the same square, centred on the gland, in the plane
of one T2W slice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates

from ai_core.geometry import index_to_lps
from ai_core.types import CaseResult, Volume
from dicom_node.results.contour import outlines
from dicom_node.results.page import BRIGHT, CALM, DIM, PANEL_PX, font
from dicom_node.results.request import Analysed
from dicom_node.results.seg import GLAND_RGB, lesion_rgb
from dicom_node.results.text import ascii_text

_MARGIN_MM = 14.0
_SMALLEST_FIELD_MM = 60.0


@dataclass(frozen=True)
class View:
    """The square that all panels show: on slice ``z``, around a centre in T2W pixels (x, y)."""

    z: int
    centre_xy: tuple[float, float]
    field_mm: float

    @property
    def mm_per_px(self) -> float:
        """Size of a pixel of the page in the patient."""
        return self.field_mm / PANEL_PX


def view_of(result: CaseResult, z: int) -> View:
    """Return the square around the gland, the same on every page of a study but for the slice."""
    _, ys, xs = np.nonzero(result.gland_mask | (result.lesions > 0))
    sx, sy, _ = result.geometry.spacing_xyz_mm
    centre = ((xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2)
    extent = max(np.ptp(xs) * sx, np.ptp(ys) * sy)
    return View(z, centre, max(float(extent) + 2 * _MARGIN_MM, _SMALLEST_FIELD_MM))


def _t2w_index(view: View, t2w: Volume) -> npt.NDArray[np.float64]:
    """T2W index (x, y, z) of every pixel of a panel, as an array (3, rows * columns)."""
    sx, sy, _ = t2w.geometry.spacing_xyz_mm
    offsets = (np.arange(PANEL_PX) - (PANEL_PX - 1) / 2) * view.mm_per_px
    ys, xs = np.meshgrid(
        view.centre_xy[1] + offsets / sy, view.centre_xy[0] + offsets / sx, indexing="ij"
    )
    return np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, float(view.z))])


def resampled(view: View, t2w: Volume, volume: Volume) -> npt.NDArray[np.float64]:
    """Return the image values under a panel; NaN where the image does not reach."""
    index = _t2w_index(view, t2w)
    homogeneous = np.vstack([index, np.ones(index.shape[1])])
    to_volume = np.linalg.inv(index_to_lps(volume.geometry)) @ index_to_lps(t2w.geometry)
    x, y, z = (to_volume @ homogeneous)[:3]
    # clamp half a voxel beyond the outer slices: they do cover their thickness
    depth = volume.array.shape[0] - 1
    z = np.where((z > -0.5) & (z < depth + 0.5), np.clip(z, 0, depth), z)
    values: npt.NDArray[np.float64] = map_coordinates(
        volume.array.astype(np.float64), [z, y, x], order=1, cval=np.nan
    )
    return values.reshape(PANEL_PX, PANEL_PX)


def grey(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Window between the 1st and 99.5th percentile of what is shown."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = np.percentile(known, (1.0, 99.5))
    scaled = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-9)
    grey: npt.NDArray[np.uint8] = np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return grey


def image_panel(outcome: Analysed, view: View, volume: Volume, *, with_gland: bool) -> Image.Image:
    """Return a panel of an image with the outlines of the findings, and of the gland if asked."""
    t2w, result = outcome.images.t2w, outcome.result
    panel = Image.fromarray(grey(resampled(view, t2w, volume))).convert("RGB")
    draw = ImageDraw.Draw(panel)
    if with_gland:
        draw_outline(draw, view, t2w, result.gland_mask[view.z] > 0, GLAND_RGB, width_px=1)
    for finding in result.findings:
        mask = result.lesions[view.z] == finding.rank
        draw_outline(draw, view, t2w, mask, lesion_rgb(finding.rank), width_px=2)
    return panel


def draw_outline(
    draw: ImageDraw.ImageDraw, view: View, t2w: Volume, mask: npt.NDArray[np.bool_],
    colour: tuple[int, int, int], *, width_px: int,
) -> None:  # fmt: skip
    """Draw the outline of a mask of the T2W slice."""
    sx, sy, _ = t2w.geometry.spacing_xyz_mm
    middle = (PANEL_PX - 1) / 2
    for points in outlines(mask) if mask.any() else []:
        columns = (points[:, 0] - view.centre_xy[0]) * sx / view.mm_per_px + middle
        rows = (points[:, 1] - view.centre_xy[1]) * sy / view.mm_per_px + middle
        draw.line(list(zip(columns, rows, strict=True)), fill=colour, width=width_px, joint="curve")


def annotate(panel: Image.Image, view: View, t2w: Volume, name: str) -> None:
    """Name of the image, orientation letters and a scale of one centimetre."""
    draw = ImageDraw.Draw(panel)
    edge, middle = 8, PANEL_PX // 2
    left, right, top, bottom = orientation_letters(t2w)
    for place, letter, anchor in (
        ((edge, middle), left, "lm"), ((PANEL_PX - edge, middle), right, "rm"),
        ((middle, edge), top, "ma"), ((middle, PANEL_PX - edge), bottom, "md"),
    ):  # fmt: skip
        _shadowed(draw, place, letter, colour=CALM, size=18, anchor=anchor)
    _shadowed(draw, (edge, edge), name, colour=BRIGHT, size=20, anchor="la")
    length = 10.0 / view.mm_per_px
    y = PANEL_PX - 14
    draw.line([(edge, y), (edge + length, y)], fill=BRIGHT, width=2)
    for end in (edge, edge + length):
        draw.line([(end, y - 5), (end, y + 5)], fill=BRIGHT, width=2)
    _shadowed(draw, (edge + length + 8, y), "10 mm", colour=CALM, size=16, anchor="lm")


def _shadowed(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], words: str, *,
    colour: tuple[int, int, int], size: int, anchor: str,
) -> None:  # fmt: skip
    draw.text(
        place, words, colour, font(size), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0)
    )


def empty_panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], name: str) -> None:
    """Draw the frame of a panel whose image is not there."""
    x, y = corner
    draw.rectangle((x, y, x + PANEL_PX - 1, y + PANEL_PX - 1), outline=(40, 44, 50))
    draw.text(
        (x + PANEL_PX / 2, y + PANEL_PX / 2), f"{ascii_text(name)} not available", DIM,
        font(20), anchor="mm",
    )  # fmt: skip


def orientation_letters(volume: Volume) -> tuple[str, str, str, str]:
    """Patient sides at the left, right, top and bottom of a slice of this volume."""
    direction = np.asarray(volume.geometry.direction)
    right, bottom = _towards(direction[:, 0]), _towards(direction[:, 1])
    opposite = str.maketrans("LRPAHF", "RLAPFH")
    return right.translate(opposite), right, bottom.translate(opposite), bottom


def _towards(vector: npt.NDArray[np.float64]) -> str:
    """Return the main patient direction of a vector in LPS: L, R, P, A, H or F."""
    axis = int(np.argmax(np.abs(vector)))
    return ("LR", "PA", "HF")[axis][0 if vector[axis] > 0 else 1]
