"""A study from stored files to objects: what is left as received, what is held."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.dicom.header import read_header
from dicom_node.dicom.part10 import dataset_sha256
from dicom_node.dicom.select import select
from dicom_node.flow.study import StudyJob, _Images, _summary
from dicom_node.model_child import answer
from dicom_node.results.build import build_results
from dicom_node.results.encode import copied_element
from dicom_node.results.sr import draft_report
from dicom_node.results.uids import Draft
from tests.flow.conftest import ADC, STUDY, T2W, encoded, series
from tests.results import result_cases as cases


def test_the_search_for_a_psa_leaves_identity_as_received() -> None:
    """A comment in Latin-1 declared as UTF-8: decoded in place, its bytes would be lost."""
    comment = "PSA 7.2 ng/ml, Größe  ".encode("latin-1")
    image = cases.stack(slices=2, rows=24, columns=24)[0]
    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientComments = "#" * len(comment)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, image, enforce_file_format=True)
    data = buffer.getvalue().replace(b"#" * len(comment), comment)
    job = StudyJob(
        headers=(), load=lambda _uid: data, digests={}, config_digest="", installation_id="",
        content_time=datetime(2026, 1, 2, tzinfo=UTC), software_version="",
    )  # fmt: skip
    images = _Images(job)
    header = images.header("2.25.1")
    found = images.psa(())
    assert found is not None
    assert found.value_ng_ml == 7.2
    kept = copied_element(header, "PatientComments")
    assert kept is not None
    assert kept.value == comment


def test_what_the_gate_stops_is_held_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that claims to be complete though nothing was analysed."""

    def overstated(*arguments: Any) -> Draft:
        draft = draft_report(*arguments)
        draft.dataset.CompletionFlag = "COMPLETE"
        return draft

    path = tmp_path / "image.dcm"
    image = cases.stack(slices=2, rows=24, columns=24)[0]
    pydicom.dcmwrite(path, image, enforce_file_format=True)
    header, uid = read_header(path), str(image.SOPInstanceUID)
    digest = dataset_sha256(path.read_bytes())
    job = {
        "study_uid": header.study_uid, "headers": [header.to_json()], "revision": 1,
        "files": {uid: {"path": str(path), "sha256": digest}}, "earlier": [], "variants": True,
        "content_time": "2026-01-02T03:04:05+00:00", "config_digest": "c" * 64,
        "installation_id": "test", "kinds": ["sr", "key-images"], "out": str(tmp_path / "out"),
        "verdict": {"state": "not_analysable", "reason": "no_diffusion", "message": "No DWI."},
    }  # fmt: skip
    assert answer(job)["outcome"] == "not_analysable"
    job["out"] = str(tmp_path / "held")
    monkeypatch.setattr("dicom_node.results.build.draft_report", overstated)
    held = answer(job)
    assert (held["outcome"], held["reason"]) == ("held", "output_gate")
    assert held["message"].count("did not pass the checks") == 1
    assert "reads as if it had a result" in held["message"]
    assert not (tmp_path / "held").exists()


def test_R5_a_study_whose_bytes_changed_on_the_disk_is_held_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> Any:
        raise AssertionError("the weights are not needed")

    monkeypatch.setattr("dicom_node.model_child._release", load)
    headers, files = [], {}
    for place, image in enumerate(series(T2W) + series(ADC)):
        path = tmp_path / f"{place}.dcm"
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        pydicom.dcmwrite(path, image, enforce_file_format=True)
        headers.append(read_header(path).to_json())
        digest = dataset_sha256(path.read_bytes())
        files[str(image.SOPInstanceUID)] = {"path": str(path), "sha256": digest}
    changed = tmp_path / "7.dcm"
    data = bytearray(changed.read_bytes())
    data[-9] ^= 1
    changed.write_bytes(data)
    held = answer(
        {
            "study_uid": STUDY, "headers": headers, "revision": 1, "files": files,
            "earlier": [], "variants": False, "content_time": "2026-01-02T03:04:05+00:00",
            "config_digest": "c" * 64, "installation_id": "test", "kinds": ["sr"],
            "out": str(tmp_path / "out"), "verdict": None, "release": "", "device": "cpu",
            "precision": "fp32",
        }
    )  # fmt: skip
    assert (held["outcome"], held["reason"]) == ("held", "hash_mismatch")
    assert not (tmp_path / "out").exists()


def test_a_name_that_differs_between_images_is_said_in_the_report() -> None:
    images = series(T2W) + series(ADC)
    images[3].PatientName = "Other^Spelling"
    headers = [read_header(encoded(image), ExplicitVRLittleEndian) for image in images]
    summary = _summary(select(headers))
    assert "Patient's Name differs between images" in summary.notes
    request = cases.stack_request(cases.stack(slices=4, rows=40, columns=40), lesion=False)
    request = replace(request, selection=summary, kinds=frozenset({"sr"}))
    (report,) = build_results(request)
    assert b"Note: Patient's Name differs between images." in report.data
