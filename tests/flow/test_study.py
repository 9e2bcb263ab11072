"""What reading a study leaves as it was received."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pydicom

from dicom_node.flow.study import StudyJob, _Images
from dicom_node.results.encode import copied_element
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
