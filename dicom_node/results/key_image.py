"""Key images: the finding on T2W, with ADC and high b beside it, as plain RGB pages.

Pure NumPy and Pillow. All panels of a page show the same square of the patient, centred on the
gland, in the plane of one T2W slice. Nothing that names the patient is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ai_core.types import Finding
from dicom_node.results.contour import slice_of_largest_area
from dicom_node.results.page import (
    BRIGHT,
    CALM,
    GAP_PX,
    HEAD_PX,
    PANEL_PX,
    WARNING,
    WIDTH_PX,
    Page,
    RgbArray,
    blank_page,
    font,
    wrapped,
)
from dicom_node.results.panels import annotate, empty_panel, image_panel, view_of
from dicom_node.results.request import Analysed, NotAnalysed, ResultRequest
from dicom_node.results.seg import lesion_rgb
from dicom_node.results.summary_page import summary_page
from dicom_node.results.text import ascii_text, percent, site_words
from dicom_node.results.triptych import triptych

MAX_PAGES = 4


def render_pages(request: ResultRequest) -> tuple[Page, ...]:
    """Return the pages of a result, in the order in which viewers step through them.

    One page per finding (four at most), or the gland where nothing was found; the comparison with
    synthesised normal tissue where there is one; then the summary.
    A study that was not analysed has one page, which says why.
    """
    outcome = request.outcome
    if isinstance(outcome, NotAnalysed):
        return (Page(_text_page(outcome), None),)
    names = slice_names(request)
    findings = outcome.result.findings[:MAX_PAGES]
    images = [_finding_page(outcome, finding, names) for finding in findings]
    compared = triptych(outcome)
    if compared is not None:
        page, z = compared
        images = [*(images or [_no_finding_page(outcome, names)])]
        images.append(Page(_with_slice_name(page, z, names), z))
    return (*(images or [_no_finding_page(outcome, names)]), summary_page(request))


def slice_names(request: ResultRequest) -> list[str]:
    """Return what a viewer calls the T2W slices (``image 7``), in stack order."""
    if request.frames is not None:
        return [f"frame {number}" for number in request.frames]
    numbers = [image.get("InstanceNumber") for image in request.sources]
    return [f"image {number}" if number is not None else "" for number in numbers]


# --- pages -----------------------------------------------------------------------------------


def _finding_page(outcome: Analysed, finding: Finding, names: Sequence[str]) -> Page:
    result = outcome.result
    z = slice_of_largest_area(result.lesions == finding.rank)
    calibrated = result.release.calibrated_on_real_cases
    index = "Likelihood of csPCa" if calibrated else "AI suspicion index"
    caveat = "" if calibrated else " (not a probability)"
    title = f"Finding {finding.rank} of {len(result.findings)}"
    headline = f"{index} {percent(finding.likelihood):.0f} %{caveat}"
    page = _image_page(outcome, z, (title, headline, _detail(finding)), lesion_rgb(finding.rank))
    return Page(_with_slice_name(page, z, names), z)


def _detail(finding: Finding) -> str:
    parts = [
        site_words(finding),
        f"{finding.volume_ml:.2f} ml",
        f"longest diameter {finding.longest_diameter_mm:.0f} mm",
    ]
    if finding.mean_adc_um2_s is not None:
        parts.append(f"mean ADC {finding.mean_adc_um2_s:.0f} x 10-6 mm2/s")
    return "   |   ".join(parts)


def _no_finding_page(outcome: Analysed, names: Sequence[str]) -> Page:
    z = slice_of_largest_area(outcome.result.gland_mask > 0)
    title, headline = "No region marked", "This does not exclude cancer."
    detail = f"gland {outcome.result.gland.volume_ml:.0f} ml"
    page = _image_page(outcome, z, (title, headline, detail), BRIGHT)
    return Page(_with_slice_name(page, z, names), z)


def _with_slice_name(page: Image.Image, z: int, slice_names: Sequence[str]) -> RgbArray:
    if z < len(slice_names):
        ImageDraw.Draw(page).text(
            (WIDTH_PX - GAP_PX - 4, 18), ascii_text(slice_names[z]), CALM, font(18), anchor="ra"
        )
    return np.asarray(page)


def _image_page(
    outcome: Analysed, z: int, words: tuple[str, str, str], colour: tuple[int, int, int]
) -> Image.Image:
    page, draw = blank_page()
    view = view_of(outcome.result, z)
    images = outcome.images
    panels = (
        ("T2W", images.t2w), ("ADC", images.adc), (images.high_b_label, images.high_b),
    )  # fmt: skip
    for column, (name, volume) in enumerate(panels):
        corner = (GAP_PX + column * (PANEL_PX + GAP_PX), HEAD_PX)
        if volume is None:
            empty_panel(draw, corner, name)
            continue
        panel = image_panel(outcome, view, volume, with_gland=column == 0)
        annotate(panel, view, outcome.images.t2w, ascii_text(name))
        page.paste(panel, corner)
    title, headline, detail = words
    draw.text((GAP_PX + 4, 12), title, colour, font(28))
    draw.text((GAP_PX + 250, 18), headline, BRIGHT, font(22))
    draw.text((GAP_PX + 4, 52), ascii_text(detail), CALM, font(18))
    return page


def _text_page(outcome: NotAnalysed) -> RgbArray:
    page, draw = blank_page()
    left, width = 60, WIDTH_PX - 120
    draw.text((left, 48), "NOT ANALYSED", WARNING, font(60))
    lead = {
        "not_analysable": "The AI did not analyse this study.",
        "failed": "The analysis of this study by the AI failed.",
    }[outcome.state]
    y = 150
    for words, colour, size in (
        (lead, BRIGHT, 30),
        (outcome.message, BRIGHT, 28),
        ("There is no result. Nothing here says that the images are normal.", CALM, 24),
    ):
        for line in wrapped(ascii_text(words), font(size), width):
            draw.text((left, y), line, colour, font(size))
            y += int(size * 1.4)
        y += 18
    return np.asarray(page)
