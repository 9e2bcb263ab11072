"""A page of key images or of the summary: its size, colours, fonts and words. Pillow only.

Nothing that names the patient is drawn.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

RgbArray = npt.NDArray[np.uint8]
"""Image of shape (rows, columns, 3)."""
Rgb = tuple[int, int, int]

PANEL_PX = 420
GAP_PX, HEAD_PX, FOOT_PX = 10, 84, 46
WIDTH_PX = 3 * PANEL_PX + 4 * GAP_PX
HEIGHT_PX = HEAD_PX + PANEL_PX + FOOT_PX

BACKGROUND: Rgb = (14, 16, 20)
BRIGHT: Rgb = (240, 240, 240)
CALM: Rgb = (190, 196, 204)
DIM: Rgb = (120, 126, 134)
WARNING: Rgb = (255, 190, 90)
_CAVEAT = "AI - research use only - not for primary diagnosis"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, eq=False)
class Page:
    """One rendered page. ``z``: the T2W slice shown, or None where the page shows no image."""

    pixels: RgbArray
    z: int | None


def encode_png(pixels: RgbArray) -> bytes:
    """Return a page as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def blank_page() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty page with the caveat at its foot."""
    page = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.text((GAP_PX + 4, HEIGHT_PX - 33), _CAVEAT, WARNING, font(20))
    draw.text(
        (WIDTH_PX - GAP_PX - 4, HEIGHT_PX - 32), "machine-made, unverified", DIM, font(18),
        anchor="ra",
    )  # fmt: skip
    return page, draw


@lru_cache(maxsize=16)
def font(size: int) -> Font:
    """Return the font that Pillow brings along, in a size in pixels."""
    return ImageFont.load_default(size)


def wrapped(words: str, face: Font, width_px: int) -> list[str]:
    """Words broken into lines that fit a width."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
