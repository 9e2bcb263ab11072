"""Identity copied byte for byte, whatever the source headers look like."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
import result_cases as cases
from character_sets import CHARACTER_SETS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from ai_core.geometry import index_of_lps
from dicom_node.errors import InputProblem
from dicom_node.results.build import ResultRequest, build_results
from dicom_node.results.encode import copied_element


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


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_every_kind_of_object_copies_the_name(name: str) -> None:
    """SEG, map, report, presentation state, PDF, key object: built by different writers."""
    charset, patient = CHARACTER_SETS[name]
    patient += b" " * (len(patient) % 2)
    slices = received(
        cases.stack(slices=4, rows=48, columns=48),
        {"SpecificCharacterSet": charset, "PatientName": patient},
    )
    request = cases.stack_request(slices, **cases.EVERYTHING)
    request = replace(request, variants=False)
    assert written(request, "PatientName") == {patient}


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


@pytest.mark.parametrize("implicit", [True, False])
def test_text_in_sequences_is_copied_byte_for_byte(implicit: bool) -> None:
    """Most modalities send Implicit VR: there an element does not say that it is text."""
    yamada = b"\x1b$B;3ED\x1b(B"
    slices = cases.stack(slices=4, rows=40, columns=36)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "P1", "99H", "山田"
    files = []
    for image in slices:
        image.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        image.ProcedureCodeSequence = [code]
        buffer = io.BytesIO()
        image.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        )
        image.set_original_encoding(implicit, True, image._character_set)
        pydicom.dcmwrite(buffer, image, enforce_file_format=True, implicit_vr=implicit)
        assert yamada in buffer.getvalue()
        files.append(quietly_read(buffer.getvalue()))
    for made in build_results(cases.request_for(files, cases.not_analysed())):
        assert yamada in made.data


def test_no_order_no_referenced_request() -> None:
    request = small(AccessionNumber=b"")
    report = pydicom.dcmread(io.BytesIO(build_results(request)[-1].data))
    assert "ReferencedRequestSequence" not in report


SHAPES = {
    "slices": st.integers(2, 9), "rows": st.integers(24, 60), "columns": st.integers(24, 60),
    "row_mm": st.floats(0.4, 1.2), "column_mm": st.floats(0.4, 1.2),
    "step_mm": st.floats(1.0, 6.0), "thickness": st.floats(0.5, 1.0),
    "tilt": st.floats(-0.6, 0.6), "turn": st.floats(-0.6, 0.6), "reverse": st.booleans(),
    "jitter": st.sampled_from((0.0, 2e-5)), "charset": st.sampled_from(sorted(CHARACTER_SETS)),
    "absent": st.sets(st.sampled_from(("PatientBirthDate", "StudyID", "SeriesNumber",
                                       "SliceThickness", "AccessionNumber"))),
    "enhanced": st.booleans(), "seed": st.integers(0, 1000),
}  # fmt: skip


def generated(**shape) -> tuple[ResultRequest, np.ndarray]:
    """A request of any geometry and header, and its gland: blocks strewn over the stack."""
    slices = cases.stack(
        slices=shape["slices"], rows=shape["rows"], columns=shape["columns"],
        spacing_mm=(shape["row_mm"], shape["column_mm"]), step_mm=shape["step_mm"],
        tilt=shape["tilt"], turn=shape["turn"], reverse=shape["reverse"], seed=shape["seed"],
    )  # fmt: skip
    for image in slices[1:]:
        orientation = [float(v) + shape["jitter"] for v in image.ImageOrientationPatient]
        image.ImageOrientationPatient = [f"{v:.9g}" for v in orientation]
    for image in slices:
        image.SliceThickness = f"{shape['step_mm'] * shape['thickness']:.6g}"  # gaps
    charset, patient = CHARACTER_SETS[shape["charset"]]
    elements: dict[str, bytes | None] = dict.fromkeys(sorted(shape["absent"]))
    received_ = received(
        slices, {**elements, "SpecificCharacterSet": charset, "PatientName": patient}
    )
    request = cases.stack_request(received_, lesion=False, kinds=frozenset({"seg-gland"}))
    random = np.random.default_rng(shape["seed"])
    z, rows, columns = request.outcome.result.gland_mask.shape
    blocks = random.random((z, rows // 8 + 1, columns // 8 + 1)) > 0.6
    mask = blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :rows, :columns]
    mask[0, 0, 0] = True
    return cases.with_gland(request, mask), mask


def check_recovered(**shape) -> None:
    """Build, read back with highdicom alone, and compare voxel by voxel in the patient."""
    request, mask = generated(**shape)
    if shape["enhanced"] and not shape["jitter"] and "SeriesNumber" not in shape["absent"]:
        request = as_enhanced(request)
    (made,) = build_results(request)  # the gate compares as well, with code of its own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg = hd.seg.segread(io.BytesIO(made.data))
        volume = seg.get_volume(segment_numbers=[1])
    found = np.argwhere(np.squeeze(volume.array, -1) > 0)
    places = volume.map_indices_to_reference(found)
    geometry = request.outcome.result.geometry
    index = np.array([index_of_lps(geometry, tuple(place)) for place in places])
    assert np.abs(index - index.round()).max() < 0.05
    recovered = np.zeros_like(mask)
    recovered[tuple(index.round().astype(int).T)] = True
    assert np.array_equal(recovered, mask)


def as_enhanced(request: ResultRequest) -> ResultRequest:
    """The request with its source converted to one multi-frame image."""
    clean = cases.stack_like(list(request.sources))
    image = cases.enhanced(clean)
    return replace(request, sources=[image], frames=cases.frame_numbers(image, clean))


@settings(max_examples=15)
@given(shape=st.fixed_dictionaries(SHAPES))
def test_masks_are_recovered_in_patient_space(shape) -> None:
    check_recovered(**shape)


@pytest.mark.slow
@settings(max_examples=200)
@given(shape=st.fixed_dictionaries(SHAPES))
def test_masks_are_recovered_in_patient_space_of_200_sources(shape) -> None:
    check_recovered(**shape)
