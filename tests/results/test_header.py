"""Identity copied byte for byte, whatever the source headers look like."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pydicom
import pytest
import result_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.errors import InputProblem
from dicom_node.results.build import ResultRequest, build_results
from dicom_node.results.encode import copied_element

CHARACTER_SETS = {
    "ascii": (b"", b"Doe^John"),
    "latin 1": (b"ISO_IR 100", "Müller^Jörg".encode("latin-1")),
    "latin 2": (b"ISO_IR 101", "Dvořák^Jiří".encode("iso8859-2")),
    "cyrillic": (b"ISO_IR 144", "Иванов^Иван".encode("iso8859-5")),
    "greek": (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7")),
    "arabic": (b"ISO_IR 127", "قباني^لنزار".encode("iso8859-6")),
    "hebrew": (b"ISO_IR 138", "שרון^דבורה".encode("iso8859-8")),
    "thai": (b"ISO_IR 166", "สมชาย^ใจดี".encode("iso8859-11")),
    "utf-8": (b"ISO_IR 192", "Wang^XiaoDong=王^小东=".encode()),
    "gb18030": (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030")),
    "gbk": (b"GBK", "Wang^XiaoDong=王^小东=".encode("gbk")),
    "japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "japanese 13": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
    "korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    "declared ascii, is latin 1": (b"", "Müller^Jörg".encode("latin-1")),
    "declared utf-8, is latin 1": (b"ISO_IR 192", "Müller^Jörg".encode("latin-1")),
    "unknown set": (b"ISO_IR 999", b"Some\xfe\xffbody"),
    "misspelt set": (b"ISO-IR 100", "Müller^Jörg".encode("latin-1")),
    "no caret": (b"ISO_IR 100", b"ProstateX-0000"),
    "long": (b"ISO_IR 100", b"A" * 70),
    "odd length": (b"ISO_IR 100", b"Odd"),
}


def quietly_read(data: bytes) -> Dataset:
    """Read a file whose character set pydicom warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data))


def received(slices: list[Dataset], elements: dict[str, bytes | None]) -> list[Dataset]:
    """The slices as if they had come over the network with these raw values (None: absent)."""
    files = []
    for image in slices:
        for keyword, value in elements.items():
            if keyword in image:
                del image[keyword]
            if value is not None:
                tag = Tag(keyword)
                vr = pydicom.datadict.dictionary_VR(tag)
                padded = value + b" " * (len(value) % 2)
                image._dict[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True)
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # as if read from a file: raw values are then written as they are
            image.set_original_encoding(False, True, image._character_set)
            pydicom.dcmwrite(buffer, image, enforce_file_format=True)
        files.append(quietly_read(buffer.getvalue()))
    return files


def written(request: ResultRequest, keyword: str) -> set[bytes | None]:
    """Value bytes of an element in all result objects."""
    found = set()
    for made in build_results(request):
        element = copied_element(quietly_read(made.data), keyword)
        found.add(element.value if element else None)
    return found


def small(**elements: bytes | None) -> ResultRequest:
    slices = received(cases.stack(slices=4, rows=40, columns=36), elements)
    return cases.request_for(slices, cases.not_analysed())


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_names_are_copied_byte_for_byte(name: str) -> None:
    charset, patient = CHARACTER_SETS[name]
    charset += b" " * (len(charset) % 2)
    patient += b" " * (len(patient) % 2)
    request = small(SpecificCharacterSet=charset, PatientName=patient, StudyDescription=patient)
    source = copied_element(request.sources[0], "PatientName")
    assert source is not None
    assert source.value == patient  # the test itself must hand over the raw bytes
    assert written(request, "PatientName") == {patient}
    assert written(request, "SpecificCharacterSet") == {charset}
    assert written(request, "StudyDescription") == {patient}


@pytest.mark.parametrize("name", ["japanese", "korean", "unknown set", "cyrillic"])
def test_odd_character_sets_in_an_analysed_study(name: str) -> None:
    charset, patient = CHARACTER_SETS[name]
    patient += b" " * (len(patient) % 2)
    slices = received(cases.stack(), {"SpecificCharacterSet": charset, "PatientName": patient})
    assert written(cases.stack_request(slices), "PatientName") == {patient}


@pytest.mark.parametrize(
    "keyword",
    ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
     "StudyTime", "StudyDate", "ReferringPhysicianName"],
)  # fmt: skip
def test_absent_type_2_elements_are_written_empty(keyword: str) -> None:
    assert written(small(**{keyword: None}), keyword) == {b""}


@pytest.mark.parametrize("sex", [b"U ", b"w ", b"male", b""])
def test_odd_patient_sex_is_copied(sex: bytes) -> None:
    assert written(small(PatientSex=sex), "PatientSex") == {sex}


def test_absent_slice_thickness_and_series_number() -> None:
    slices = received(cases.stack(), {"SliceThickness": None, "SeriesNumber": None})
    assert len(build_results(cases.stack_request(slices))) == 5


def test_orientation_jitter_is_snapped_and_more_is_refused() -> None:
    slices = cases.stack()
    orientation = [float(v) for v in slices[0].ImageOrientationPatient]
    slices[3].ImageOrientationPatient = [f"{v + 2e-5:.9g}" for v in orientation]
    assert len(build_results(cases.stack_request(slices))) == 5
    slices[3].ImageOrientationPatient = [f"{v + 2e-3:.9g}" for v in orientation]
    with pytest.raises(InputProblem, match="orientation"):
        build_results(cases.stack_request(slices))


def test_request_attributes_become_the_referenced_request() -> None:
    slices = cases.stack(slices=4, rows=40, columns=36)
    order = Dataset()
    order.RequestedProcedureID = "RP7"
    order.RequestedProcedureDescription = "MR prostate"
    order.ScheduledProcedureStepID = "SPS7"
    for image in slices:
        image.RequestAttributesSequence = [order]
    request = cases.request_for(received(slices, {}), cases.not_analysed())
    report = pydicom.dcmread(io.BytesIO(build_results(request)[-1].data))
    item = report.ReferencedRequestSequence[0]
    assert (item.RequestedProcedureID, item.AccessionNumber) == ("RP7", "A1")
    assert item.StudyInstanceUID == report.StudyInstanceUID
    assert "ScheduledProcedureStepID" not in item


def test_no_order_no_referenced_request() -> None:
    request = small(AccessionNumber=b"")
    report = pydicom.dcmread(io.BytesIO(build_results(request)[-1].data))
    assert "ReferencedRequestSequence" not in report


@settings(max_examples=12)
@given(
    slices=st.integers(3, 9),
    rows=st.integers(24, 60),
    columns=st.integers(24, 60),
    row_mm=st.floats(0.4, 1.2),
    column_mm=st.floats(0.4, 1.2),
    step_mm=st.floats(1.0, 6.0),
    tilt=st.floats(-0.6, 0.6),
    reverse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_masks_are_recovered_in_patient_space(seed: int, rows: int, columns: int, **shape) -> None:
    spacing = (shape.pop("row_mm"), shape.pop("column_mm"))
    slices = cases.stack(rows=rows, columns=columns, spacing_mm=spacing, seed=seed, **shape)
    request = cases.stack_request(slices, lesion=False)
    random = np.random.default_rng(seed)
    shape_zyx = request.outcome.result.gland_mask.shape
    blocks = random.random((shape_zyx[0], rows // 8 + 1, columns // 8 + 1)) > 0.6
    mask = blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :rows, :columns]
    request = cases.with_gland(request, mask)
    # the gate reads the masks back and compares them where they lie in the patient
    assert [made.kind for made in build_results(request)] == [
        "seg-gland",
        "key-images",
        "key-images",
        "sr",
    ]
