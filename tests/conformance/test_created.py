"""What the statement says of created objects holds for objects of other studies than its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.conformance.content import SR_KINDS, code_text, content_rows
from dicom_node.conformance.document import Document
from dicom_node.domain.profile import SOP_CLASSES, ResultKind
from dicom_node.results.build import ResultObject, ResultRequest, build_results
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "results"))
import result_cases as cases

Built = list[tuple[ResultObject, Dataset, Dataset]]


@pytest.fixture(scope="module")
def built() -> Built:
    """Objects of generated stacks with and without finding, and of a study not analysed."""
    found = cases.stack_request(**cases.EVERYTHING)
    empty = replace(cases.stack_request(lesion=False), kinds=found.kinds)
    words = cases.request_for([], cases.not_analysed(), other_sources=cases.stack())
    return [made for request in (found, empty, words) for made in _objects(request)]


def _objects(request: ResultRequest) -> Built:
    source = [*request.sources, *request.other_sources][0]
    return [(item, dcmread(BytesIO(item.data)), source) for item in build_results(request)]


def _attributes(document: Document, kind: str) -> dict[str, dict]:
    tables = ("attributes_common", f"attributes_{kind}")
    rows = [row for key in tables for row in document.table(key).as_dicts()]
    return {str(row["attribute"]): row for row in rows}


def test_every_kind_is_stated_with_its_class_and_syntax(built: Built, document: Document) -> None:
    rows = document.table("created_objects").as_dicts()
    assert {row["object"] for row in rows} == {str(kind) for kind in ResultKind}
    assert {row["UID"] for row in rows} == set(SOP_CLASSES)
    known = {(row["object"], row["UID"]): row for row in rows}
    for item, dataset, _ in built:
        row = known[item.kind, item.sop_class_uid]
        assert row["stored as"] == dataset.file_meta.TransferSyntaxUID.name
        assert (row["modality"], row["series"]) == (dataset.Modality, dataset.SeriesNumber)


def test_attributes_are_those_stated(built: Built, document: Document) -> None:
    for item, dataset, source in built:
        rows = _attributes(document, item.kind)
        present = {element.keyword for element in dataset}
        assert present <= rows.keys(), item.kind
        needed = {name for name, row in rows.items() if row["presence"] != "ANAP"}
        assert needed <= present, item.kind
        for element in dataset:
            _holds(rows[element.keyword], element, source)


def _holds(row: dict, element, source: Dataset) -> None:
    name = row["attribute"]
    assert row["VR"] == element.VR, name
    if row["presence"] == "ALWAYS":
        assert not element.is_empty, name
    if row["presence"] == "EMPTY":
        assert element.is_empty, name
    if row["source"] == "COPY" and not element.is_empty:
        assert element.value == source[element.tag].value, name
    if row["source"] == "FIXED" and not row["value"].endswith("..."):
        text = "\\".join(map(str, element.value)) if element.VM > 1 else str(element.value or "")
        assert text == row["value"] or str(element.value) == row["value"], name


def test_no_private_attribute_at_any_depth(built: Built, document: Document) -> None:
    assert not [e for _, dataset, _ in built for e in dataset.iterall() if e.tag.is_private]
    assert "Private attributes: none." in document.markdown()


def test_content_items_and_codes_are_those_stated(built: Built, document: Document) -> None:
    codes = {tuple(row.values()) for row in document.table("codes").as_dicts()}
    for item, dataset, _ in built:
        for element in dataset.iterall():
            if element.keyword == "CodeValue":
                continue
            if element.VR == "SQ":
                for code in element.value:
                    if "CodeValue" in code and element.keyword != "ProcedureCodeSequence":
                        assert _code(code) in codes, code_text(code)
        if item.kind in SR_KINDS:
            stated = {row[:4] for row in document.table(f"content_{item.kind}").rows}
            assert {row[:4] for row in content_rows([dataset])} <= stated, item.kind


def _code(item: Dataset) -> tuple[str, str, str]:
    return (item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning)


def test_the_relation_to_ai_results_is_borne_out(document: Document) -> None:
    rows = document.table("air_primitives").as_dicts()
    assert [row["primitive"] for row in rows if not row["found in the samples"]] == []
    asked = {row["asked for"]: row["met"] for row in document.table("air_requirements").as_dicts()}
    assert asked["Comprehensive 3D SR with TID 1500 as root"]
    assert asked["Every image and segmentation referred to is listed as evidence"]
    commitment = "1.2.840.10008.1.20.1"
    scu = {row["UID"] for row in document.table("network_services").as_dicts() if row["SCU"]}
    assert asked["Storage Commitment as SCU"] == (commitment in scu)
