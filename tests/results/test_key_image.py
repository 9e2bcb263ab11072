"""Key images: what is drawn where, without a name, with or without ADC and high b."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import result_cases as cases
from PIL import Image

from ai_core.types import Geometry, Volume
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.results import page as page_layout
from dicom_node.results.build import Analysed, ResultObject, ResultRequest, build_results
from dicom_node.results.contour import graphic_data, outlines
from dicom_node.results.key_image import render_pages
from dicom_node.results.page import encode_png
from dicom_node.results.panels import orientation_letters, view_of
from dicom_node.results.seg import GLAND_RGB, LESION_RGB
from dicom_node.results.text import ascii_text

Built = tuple[ResultRequest, list[ResultObject]]


def panel(pixels: np.ndarray, column: int) -> np.ndarray:
    left = page_layout.GAP_PX + column * (page_layout.PANEL_PX + page_layout.GAP_PX)
    top = page_layout.HEAD_PX
    return pixels[top : top + page_layout.PANEL_PX, left : left + page_layout.PANEL_PX]


def drawn(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of pixels of exactly this colour."""
    return np.argwhere((pixels == colour).all(axis=-1))


def test_outline_surrounds_the_lesion_in_the_same_place_of_every_panel(
    real_finding: Built,
) -> None:
    request = real_finding[0]
    pages = render_pages(request)
    assert len(pages) == 3  # two findings and the summary
    places = [drawn(panel(pages[0].pixels, column), LESION_RGB[0]) for column in range(3)]
    assert all(len(place) > 60 for place in places)
    assert np.array_equal(places[0], places[1])
    assert np.array_equal(places[0], places[2])
    assert len(drawn(panel(pages[0].pixels, 0), GLAND_RGB)) > 200
    assert not len(drawn(panel(pages[0].pixels, 1), GLAND_RGB))


def test_adc_is_dark_and_high_b_bright_where_the_lesion_is_known(real_finding: Built) -> None:
    """The public ground truth of PROSTATEx-0000 is a bright spot on the computed high b."""
    page = render_pages(real_finding[0])[0].pixels
    ring = drawn(panel(page, 0), LESION_RGB[0])
    (top, left), (bottom, right) = ring.min(axis=0) + 6, ring.max(axis=0) - 6
    inside = np.s_[top:bottom, left:right, 0]
    high_b, adc = panel(page, 2), panel(page, 1)
    assert high_b[inside].mean() > 1.3 * high_b[..., 0].mean()
    assert adc[inside].mean() < adc[..., 0].max()


def test_scale_is_ten_millimetres(stack_finding: Built) -> None:
    request = stack_finding[0]
    assert isinstance(request.outcome, Analysed)
    result = request.outcome.result
    page = render_pages(request)[0]
    ring = drawn(panel(page.pixels, 0), LESION_RGB[0])
    width_px = np.ptp(ring[:, 1])
    columns = np.nonzero((result.lesions[page.z] == 1).any(axis=0))[0]
    width_mm = (np.ptp(columns) + 1) * result.geometry.spacing_xyz_mm[0]
    view = view_of(result, page.z)
    assert width_px * view.mm_per_px == pytest.approx(width_mm, abs=3 * view.mm_per_px)


def test_four_pages_at_most() -> None:
    request = cases.stack_request()
    assert isinstance(request.outcome, Analysed)
    geometry = request.outcome.result.geometry
    middle = request.outcome.result.gland.center_lps_mm
    assert middle is not None
    lesions = tuple(((middle[0] + dx, middle[1], middle[2]), 2.5) for dx in (-14, -7, 0, 7, 14))
    result = cases.case_result(geometry, middle, lesions)
    request = replace(request, outcome=replace(request.outcome, result=result))
    pages = [made for made in build_results(request) if made.kind == "key-images"]
    assert len(pages) == 5  # and the summary
    numbers = [int(pydicom.dcmread(io.BytesIO(m.data)).InstanceNumber) for m in pages]
    assert numbers == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("reason", [r for r in Reason if REASONS[r].send_report])
def test_not_analysed_page_fits_its_words(reason: Reason) -> None:
    page = render_pages(cases.request_for([], cases.not_analysed(reason)))[0]
    assert page.z is None
    lit = np.argwhere(page.pixels.max(axis=-1) > 100)
    assert lit[:, 1].max() < page.pixels.shape[1] - 8
    body = lit[lit[:, 0] < page.pixels.shape[0] - page_layout.FOOT_PX]
    assert body[:, 0].max() < page.pixels.shape[0] - page_layout.FOOT_PX - 10


def test_secondary_capture_carries_the_page(stack_finding: Built) -> None:
    request, objects = stack_finding
    made = next(o for o in objects if o.kind == "key-images")
    image = pydicom.dcmread(io.BytesIO(made.data))
    page = render_pages(request)[0]
    assert np.array_equal(image.pixel_array, page.pixels)
    assert image.BurnedInAnnotation == "YES"
    assert list(image.PatientOrientation) == ["L", "P"]
    assert page.z is not None
    source = image.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert source == request.sources[page.z].SOPInstanceUID


def test_png_is_the_page() -> None:
    pixels = render_pages(cases.request_for([], cases.not_analysed()))[0].pixels
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        (((1, 0, 0), (0, 1, 0), (0, 0, 1)), ("R", "L", "A", "P")),
        (((-1, 0, 0), (0, 1, 0), (0, 0, -1)), ("L", "R", "A", "P")),
        (((1, 0, 0), (0, 0, 1), (0, -1, 0)), ("R", "L", "H", "F")),
        (((0, 0, 1), (1, 0, 0), (0, -1, 0)), ("A", "P", "H", "F")),
    ],
)
def test_orientation_letters(direction: tuple, letters: tuple[str, str, str, str]) -> None:
    grid = Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction)
    assert orientation_letters(Volume(np.zeros((2, 2, 2)), grid)) == letters


def test_outline_of_one_pixel_has_many_points_and_is_closed() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[2, 3] = True
    points = graphic_data(mask)
    assert len(points) >= 9
    assert np.array_equal(points[0], points[-1])
    assert points.mean(axis=0) == pytest.approx([3.5, 2.5], abs=0.1)


def test_outlines_at_the_border_and_with_a_hole() -> None:
    mask = np.ones((6, 6), dtype=bool)
    mask[2:4, 2:4] = False
    outer, hole = outlines(mask)
    assert (outer.min(), outer.max()) == (-0.5, 5.5)
    assert len(outer) > len(hole)


def test_words_are_ascii() -> None:
    assert ascii_text("Bäuerle Prüfung") == "Bauerle Prufung"
    assert ascii_text("a\\b~c\n王") == "a?b?c??"
