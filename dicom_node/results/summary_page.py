"""The summary page: sector map, findings in numbers, gland, image quality, what was used."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ai_core.types import Finding
from dicom_node.results import text
from dicom_node.results.page import (
    BRIGHT,
    CALM,
    DIM,
    GAP_PX,
    HEAD_PX,
    WIDTH_PX,
    Page,
    blank_page,
    font,
    wrapped,
)
from dicom_node.results.request import Analysed, ResultRequest
from dicom_node.results.sector_map import LEVELS, Mark, draw_level, place_of
from dicom_node.results.seg import lesion_rgb

_MAP_PX = 196
_LEFT_PX = 2 * _MAP_PX + 4 * GAP_PX + 8
_ROWS = 4
_LINE_PX = 21
_LAST_LINE_PX = 497

_COLUMNS = (
    ("#", 0), ("site", 26), ("volume", 410), ("diameter", 490), ("mean ADC", 580),
    ("index", 672), ("score", 740),
)  # fmt: skip


def summary_page(request: ResultRequest) -> Page:
    """Return the summary of an analysed study; it shows no slice.

    Raises:
        ValueError: the study was not analysed.
    """
    outcome = request.outcome
    if not isinstance(outcome, Analysed):
        raise ValueError("only an analysed study has a summary")
    page, draw = blank_page()
    findings = outcome.result.findings
    draw.text((GAP_PX + 4, 12), "Summary", BRIGHT, font(28))
    draw.text((GAP_PX + 250, 18), _headline(outcome), BRIGHT, font(22))
    draw.text((GAP_PX + 4, 52), _second_line(outcome), CALM, font(18))
    _draw_maps(page, [Mark(f.rank, f.sector, lesion_rgb(f.rank)) for f in findings])
    y = _draw_table(draw, outcome) if findings else HEAD_PX + 4
    _draw_lines(draw, _lines(request, outcome), y)
    return Page(np.asarray(page), None)


def _headline(outcome: Analysed) -> str:
    count = len(outcome.result.findings)
    if not count:
        return "No region marked by the AI. This does not exclude cancer."
    return f"{count} region{'s' if count > 1 else ''} marked by the AI"


def _second_line(outcome: Analysed) -> str:
    result = outcome.result
    calibrated = result.release.calibrated_on_real_cases
    name = "likelihood of csPCa" if calibrated else "AI suspicion index, not a probability"
    return f"Whole examination: {text.percent(result.case_likelihood):.0f} % ({name})"


def _draw_maps(page: Image.Image, marks: list[Mark]) -> None:
    draw = ImageDraw.Draw(page)
    for number, level in enumerate(LEVELS):
        left = GAP_PX + 4 + (number % 2) * (_MAP_PX + 2 * GAP_PX)
        top = HEAD_PX + (number // 2) * (_MAP_PX + GAP_PX)
        page.paste(Image.fromarray(draw_level(level, _MAP_PX, marks)), (left, top))
        draw.text((left, top), level, CALM, font(15))
        for side, x, anchor in (("R", 0, "ls"), ("L", _MAP_PX, "rs")):
            draw.text((left + x, top + _MAP_PX - 12), side, CALM, font(15), anchor=anchor)
        _number_sectors(draw, level, (left, top), marks)


def _number_sectors(
    draw: ImageDraw.ImageDraw, level: str, corner: tuple[int, int], marks: list[Mark]
) -> None:
    ranks: dict[tuple[float, float], list[int]] = {}
    for mark in marks:
        place = place_of(level, _MAP_PX, mark.sector)
        if place is not None:
            ranks.setdefault(place, []).append(mark.rank)
    for (column, row), found in ranks.items():
        draw.text(
            (corner[0] + column, corner[1] + row), ",".join(map(str, found)), BRIGHT, font(16),
            anchor="mm", stroke_width=2, stroke_fill=(0, 0, 0),
        )  # fmt: skip


def _draw_table(draw: ImageDraw.ImageDraw, outcome: Analysed) -> int:
    """Draw the findings as rows; returns where the next line goes."""
    findings = outcome.result.findings
    y = HEAD_PX + 4
    for name, x in _COLUMNS:
        draw.text((_LEFT_PX + x, y), name, DIM, font(15))
    for finding in findings[:_ROWS]:
        y += 26
        for (_, x), cell in zip(_COLUMNS, _cells(finding), strict=True):
            colour = lesion_rgb(finding.rank) if x == 0 else BRIGHT
            draw.text((_LEFT_PX + x, y), cell, colour, font(17))
    if len(findings) > _ROWS:
        y += 26
        draw.text(
            (_LEFT_PX, y), f"and {len(findings) - _ROWS} more, see the report", CALM, font(17)
        )
    return y + 40


def _cells(finding: Finding) -> tuple[str, ...]:
    adc = finding.mean_adc_um2_s
    return (
        str(finding.rank),
        text.ascii_text(text.site_words(finding)),
        f"{finding.volume_ml:.2f} ml",
        f"{finding.longest_diameter_mm:.0f} mm",
        "-" if adc is None else f"{adc:.0f}",
        f"{text.percent(finding.likelihood):.0f} %",
        f"{finding.suspicion_score:.1f}" + (" *" if finding.significant else ""),
    )


def _lines(request: ResultRequest, outcome: Analysed) -> list[str]:
    result = outcome.result
    lines = [f"Gland {result.gland.volume_ml:.0f} ml" + _psa_words(request, outcome)]
    if any(finding.significant for finding in result.findings):
        lines.append("* marked as clinically significant by the AI")
    if any(finding.mean_adc_um2_s is not None for finding in result.findings):
        lines.append("ADC in 10-6 mm2/s")
    lines += [f"Image quality: {item.message}" for item in result.quality]
    lines += [f"Used {series}" for series in request.selection.chosen]
    release = result.release
    lines.append(f"Model {release.name} {release.version}, weights {release.sha256[:12]}")
    if request.revision > 1:
        lines.append(f"Revision {request.revision}: replaces the earlier result of this study")
    return [text.ascii_text(line) for line in lines]


def _psa_words(request: ResultRequest, outcome: Analysed) -> str:
    density = text.psa_density(request.psa, outcome.result.gland)
    if request.psa is None or density is None:
        return ""
    return f", PSA {request.psa.value_ng_ml:g} ng/mL, PSA density {density:.2f} ng/mL/cm3"


def _draw_lines(draw: ImageDraw.ImageDraw, lines: list[str], y: int) -> None:
    width = WIDTH_PX - _LEFT_PX - GAP_PX
    for line in lines:
        for part in wrapped(line, font(16), width):
            if y > _LAST_LINE_PX - _LINE_PX:
                draw.text((_LEFT_PX, y), "... more in the report", DIM, font(16))
                return
            draw.text((_LEFT_PX, y), part, CALM, font(16))
            y += _LINE_PX
