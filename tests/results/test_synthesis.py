"""The second opinion in the result objects: a page, a number with its own algorithm, a remark."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pydicom
import result_cases as cases
from pydicom.dataset import Dataset

from ai_core.types import CaseResult, Modality, Quality, QualityFinding, Synthesis
from dicom_node.results.build import Analysed, ResultObject, ResultRequest, build_results
from dicom_node.results.gate_report import content_items
from dicom_node.results.key_image import render_pages
from dicom_node.results.page import GAP_PX, HEAD_PX, PANEL_PX
from dicom_node.results.triptych import triptych


def _request(*, abstains: bool = False) -> ResultRequest:
    """A stack with one lesion; the abnormality map is 8 there, on slice 4, and 0 elsewhere."""
    request = cases.stack_request()
    assert isinstance(request.outcome, Analysed)
    result = request.outcome.result
    geometry = result.geometry
    abnormality = np.zeros(geometry.shape_zyx, dtype=np.float32)
    abnormality[4, 30:40, 30:40] = 8.0
    images = {
        name: np.full(geometry.shape_zyx, value, dtype=np.float32)
        for name, value in ((Modality.T2W, 0.0), (Modality.ADC, 1.4))
    }
    rows = np.linspace(0.0, 2.0, geometry.shape_zyx[1], dtype=np.float32)
    images[Modality.ADC] = images[Modality.ADC] * 0 + rows[:, None]
    normal = {name: image * 0 + np.float32(1.0) for name, image in images.items()}
    said = Synthesis(None if abstains else abnormality, geometry, images, normal, 0.7, 1.1)
    remark = QualityFinding(Quality.SYNTHESIS_ABSTAINS, "Synthesis is not credible here.", 0.7)
    changed: CaseResult = replace(
        result,
        synthesis=said,
        findings=tuple(
            replace(f, abnormality=None if abstains else 3.456) for f in result.findings
        ),
        quality=(remark,) if abstains else (),
    )
    return replace(request, outcome=replace(request.outcome, result=changed))


def _report(objects: list[ResultObject]) -> Dataset:
    return pydicom.dcmread(io.BytesIO(next(o for o in objects if o.kind == "sr").data))


def _algorithms(report: Dataset) -> set[str]:
    items = content_items(report)
    return {
        str(item.TextValue)
        for item in items
        if item.get("ConceptNameCodeSequence")
        and item.ConceptNameCodeSequence[0].CodeValue == "111001"
    }


def _values(report: Dataset) -> list[float]:
    return [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in content_items(report)
        if item.get("ValueType") == "NUM"
        and item.ConceptNameCodeSequence[0].CodeValue == "AI-ABNORMALITY"
    ]


def test_the_triptych_stands_before_the_summary() -> None:
    request = _request()
    plain = render_pages(cases.stack_request())
    pages = render_pages(request)
    assert len(pages) == len(plain) + 1
    page = pages[-2]
    assert page.z == 4
    panels = [
        page.pixels[HEAD_PX : HEAD_PX + PANEL_PX, GAP_PX + i * (PANEL_PX + GAP_PX) :][
            150:-150, 150 : PANEL_PX - 150
        ].astype(int)
        for i in range(3)
    ]
    colourful = [(np.ptp(panel, axis=-1) > 60).sum() for panel in panels]
    assert colourful[2] > 300  # the map, in colour
    image, normal = (panel[..., 0] for panel in panels[:2])
    assert image.std() > 2 * normal.std()  # a ramp against one grey, in the ramp's window
    assert abs(np.median(normal) - np.median(image)) < 60


def test_the_report_names_the_synthesis_as_an_algorithm_of_its_own() -> None:
    report = _report(build_results(_request()))
    assert f"{cases.RELEASE.name} synthesis" in _algorithms(report)
    assert _values(report)
    assert set(_values(report)) == {3.46}


def test_without_the_branch_nothing_is_said() -> None:
    report = _report(build_results(cases.stack_request()))
    assert _algorithms(report) == {cases.RELEASE.name}
    assert not _values(report)


def test_an_abstention_is_told_and_shows_no_page() -> None:
    request = _request(abstains=True)
    assert isinstance(request.outcome, Analysed)
    assert triptych(request.outcome) is None
    assert len(render_pages(request)) == len(render_pages(cases.stack_request()))
    report = _report(build_results(request))
    words = [str(i.TextValue) for i in content_items(report) if i.get("ValueType") == "TEXT"]
    assert any("Synthesis is not credible here." in text for text in words)
    assert not _values(report)
