"""A page that a radiologist understands at once: the image, what normal would look like, the rest.

Shown on ADC, else T2W; the third panel is the abnormality map over T2W. Both grey panels share one
window, so that what differs is the tissue.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ai_core.types import FloatArray, Modality, Volume
from dicom_node.results.page import (
    BRIGHT,
    CALM,
    GAP_PX,
    HEAD_PX,
    PANEL_PX,
    blank_page,
    font,
)
from dicom_node.results.panels import View, annotate, draw_outline, grey, resampled, view_of
from dicom_node.results.request import Analysed
from dicom_node.results.seg import GLAND_RGB

#: The map is drawn from the first value (standard deviations of normal tissue) to the second.
SHOWN_FROM, SHOWN_TO = 1.5, 6.0
OPACITY = 0.75
_TITLE = "Against synthesised normal tissue"
_NAMES = {Modality.ADC: "ADC", Modality.T2W: "T2W"}


def triptych(outcome: Analysed) -> tuple[Image.Image, int] | None:
    """Return the page and its T2W slice: where the gland is most unlike normal tissue.

    None where the result has no abnormality map (no such branch, switched off, or it abstains).
    """
    said = outcome.result.synthesis
    if said is None or said.abnormality is None or not said.abnormality.any():
        return None
    z = _slice(said.abnormality)
    view = view_of(outcome.result, z)
    t2w = outcome.images.t2w
    shown = Modality.ADC if Modality.ADC in said.input else Modality.T2W
    image, normal = (
        resampled(view, t2w, Volume(part[shown], said.grid)) for part in (said.input, said.normal)
    )
    overlay = resampled(view, t2w, Volume(said.abnormality, outcome.result.geometry))
    panels = (
        (_NAMES[shown], Image.fromarray(grey(image)).convert("RGB")),
        (f"{_NAMES[shown]}, normal (synthesised)", _in_window_of(image, normal)),
        ("Difference (on T2W)", _coloured(grey(resampled(view, t2w, t2w)), overlay)),
    )
    page, draw = blank_page()
    for column, (name, panel) in enumerate(panels):
        _outlined(panel, outcome, view)
        annotate(panel, view, t2w, name)
        page.paste(panel, (GAP_PX + column * (PANEL_PX + GAP_PX), HEAD_PX))
    draw.text((GAP_PX + 4, 12), _TITLE, BRIGHT, font(28))
    words = (
        f"colour from {SHOWN_FROM:g} to {SHOWN_TO:g} standard deviations of normal tissue   |   "
        "a second opinion beside the AI index"
    )
    draw.text((GAP_PX + 4, 52), words, CALM, font(18))
    return page, z


def _slice(abnormality: FloatArray) -> int:
    """Return the slice with the most of what is drawn; where nothing is, of the highest value."""
    mass = np.maximum(abnormality - SHOWN_FROM, 0.0).sum(axis=(1, 2))
    return int(mass.argmax() if mass.any() else abnormality.max(axis=(1, 2)).argmax())


def _in_window_of(image: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]) -> Image.Image:
    """Return the normal image in the window of the real one."""
    known = image[np.isfinite(image)]
    low, high = np.percentile(known, (1.0, 99.5)) if known.size else (0.0, 1.0)
    share = (np.nan_to_num(normal, nan=low) - low) / max(high - low, 1e-9)
    return Image.fromarray(np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)).convert("RGB")


def _coloured(background: npt.NDArray[np.uint8], values: npt.NDArray[np.float64]) -> Image.Image:
    """Lay the map over an image, from transparent yellow to red."""
    share = np.clip((np.nan_to_num(values) - SHOWN_FROM) / (SHOWN_TO - SHOWN_FROM), 0.0, 1.0)
    colour = np.stack(
        [np.full(share.shape, 255.0), 220.0 * (1 - share), np.full(share.shape, 30.0)], axis=-1
    )
    alpha = np.where(share > 0, OPACITY * (0.35 + 0.65 * share), 0.0)[..., None]
    mixed = (1 - alpha) * background[..., None] + alpha * colour
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def _outlined(panel: Image.Image, outcome: Analysed, view: View) -> None:
    mask = outcome.result.gland_mask[view.z] > 0
    draw_outline(ImageDraw.Draw(panel), view, outcome.images.t2w, mask, GLAND_RGB, width_px=1)
