"""Volumes: the same from every transfer syntax; damaged pixel data is said, never guessed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import BaseTag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ai_core.geometry import same_grid
from ai_core.types import Case
from dicom_node.dicom.examination import instances
from dicom_node.dicom.header import ENHANCED_MR, read_header
from dicom_node.dicom.pixels import codestream_shape
from dicom_node.dicom.select import Selection, select
from dicom_node.dicom.volume import build_case
from dicom_node.dicom.write import encode_part10
from dicom_node.domain.reasons import Reason
from dicom_node.errors import InputProblem
from dicom_node.phantom import Layout, PhantomOptions, Role, packaged_study, rebuild, write_study
from tests.dicom.make import small_exam

SYNTAXES = (
    ImplicitVRLittleEndian, RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless,
    JPEG2000Lossless,
)  # fmt: skip


T2W_AND_ADC = frozenset((Role.T2W_AXIAL, Role.ADC))
Images = list[bytes] | list[Path]


def made(options: PhantomOptions | None = None) -> list[bytes]:
    """Encode the small examination in memory; without options T2W and ADC alone."""
    options = options or PhantomOptions(roles=T2W_AND_ADC)
    pairs = instances(small_exam(), options)
    return [encode_part10(dataset, options.transfer_syntax_uid) for _, dataset in pairs]


def choose(images: Images) -> tuple[Selection, Callable[[str], Dataset]]:
    headers = [read_header(image) for image in images]
    by_uid = {h.sop_instance_uid: image for h, image in zip(headers, images, strict=True)}

    def load(uid: str) -> Dataset:
        image = by_uid[uid]
        return pydicom.dcmread(image if isinstance(image, Path) else BytesIO(image))

    return select(headers), load


def read(images: Images) -> Case:
    selection, load = choose(images)
    assert selection.problem is None, selection.problem
    return build_case(selection, load)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_study(small_exam(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def expected(plain: list[Path]) -> Case:
    return read(plain)


# --- what was simulated comes back --------------------------------------------------------------


def test_the_volumes_are_those_that_were_written(expected: Case) -> None:
    exam, case = small_exam(), expected
    assert same_grid(case.t2w.geometry, exam.t2w.geometry)
    assert np.corrcoef(case.t2w.array.ravel(), exam.t2w.array.ravel())[0, 1] > 0.9999
    assert case.t2w.array.dtype == np.float32
    assert case.adc is not None and np.abs(case.adc.array - exam.adc.array).max() <= 0.5
    assert case.adc_to_um2_s == 1.0
    assert [d.b_value_s_per_mm2 for d in case.dwi] == [50.0, 400.0, 800.0]
    means = [float(d.volume.array.mean()) for d in case.dwi]
    assert means[0] / means[2] == pytest.approx(np.exp(0.75), rel=0.1)  # one scale for all b
    assert case.high_b is not None and case.high_b.computed
    assert case.high_b.b_value_s_per_mm2 == 1400.0
    assert case.dce is not None and case.dce.times_s == tuple(20.0 * i for i in range(6))
    rises = [float(phase.array.mean()) for phase in case.dce.phases]
    assert rises == sorted(rises)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_gives_the_same_volumes(syntax: str, expected: Case) -> None:
    case = read(made(PhantomOptions(transfer_syntax_uid=syntax, roles=T2W_AND_ADC)))
    assert case.adc is not None and expected.adc is not None
    assert np.array_equal(case.t2w.array, expected.t2w.array)
    assert np.array_equal(case.adc.array, expected.adc.array)
    assert case.t2w.geometry == expected.t2w.geometry


@pytest.mark.interop
@pytest.mark.parametrize("predictor", [2, 6, 7])
def test_jpeg_lossless_of_every_kind_of_prediction_gives_the_same_volume(
    predictor: int, expected: Case, tmp_path: Path
) -> None:
    paths = []
    for number, image in enumerate(made()):
        plain, packed = tmp_path / f"{number}.dcm", tmp_path / f"{number}-packed.dcm"
        plain.write_bytes(image)
        command = ["dcmcjpeg", "+el", "+sv", str(predictor), str(plain), str(packed)]
        subprocess.run(command, check=True, capture_output=True)
        paths.append(packed)
    first = pydicom.dcmread(paths[0])
    assert first.file_meta.TransferSyntaxUID == JPEGLossless
    stream = first.PixelData
    start = stream.index(b"\xff\xda")  # start of scan: the predictor is its first parameter
    assert stream[start + 7] == predictor
    case = read(paths)
    assert case.adc is not None and expected.adc is not None
    assert np.array_equal(case.t2w.array, expected.t2w.array)
    assert np.array_equal(case.adc.array, expected.adc.array)


def test_layouts_give_the_same_input(expected: Case) -> None:
    roles = frozenset(Role) - {Role.T2W_SAGITTAL, Role.T2W_CORONAL}
    case = read(
        made(
            PhantomOptions(dwi_layout=Layout.MANY_SERIES, dce_layout=Layout.ONE_SERIES, roles=roles)
        )
    )
    assert case.dce is not None and expected.dce is not None
    assert case.dce.times_s == expected.dce.times_s
    for a, b in zip(case.dwi, expected.dwi, strict=True):
        assert np.array_equal(a.volume.array, b.volume.array)


def test_interleaved_b_values_are_parted() -> None:
    roles = frozenset((Role.T2W_AXIAL, Role.DWI))
    case = read(made(PhantomOptions(interleave_b=True, roles=roles)))
    assert [d.b_value_s_per_mm2 for d in case.dwi] == [50.0, 400.0, 800.0]


def test_more_dce_phases_are_interpolated_and_thinned() -> None:
    images = made(PhantomOptions(dce_phases=30, roles=T2W_AND_ADC | {Role.DCE}))
    assert len(images) == 10 * 32
    selection, _ = choose(images)
    assert len(selection.dce) == 24
    assert selection.dce_times_s[-1] == pytest.approx(100.0, abs=0.1)


def test_rescale_and_real_world_values_are_applied(expected: Case) -> None:
    def edit(dataset: Dataset) -> None:
        if "RealWorldValueMappingSequence" in dataset:
            item = dataset.RealWorldValueMappingSequence[0]
            item.RealWorldValueSlope, item.RealWorldValueIntercept = 1e-6, 0.0
            item.MeasurementUnitsCodeSequence[0].CodeValue = "mm2/s"
            dataset.RescaleSlope, dataset.RescaleIntercept = "7", "3"  # must lose
        elif "DiffusionBValue" in dataset:
            dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-1"

    case = read(made(PhantomOptions(edit=edit, roles=T2W_AND_ADC | {Role.DWI})))
    assert case.adc is not None and expected.adc is not None and case.adc_to_um2_s == 1e6
    assert case.adc.array * 1e6 == pytest.approx(expected.adc.array, rel=1e-5)
    assert np.array_equal(case.dwi[0].volume.array, expected.dwi[0].volume.array * 2 - 1)


def test_slices_are_ordered_by_position_not_by_number(expected: Case) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.InstanceNumber = 1000 - int(dataset.InstanceNumber)

    case = read(made(PhantomOptions(edit=edit, roles=T2W_AND_ADC))[::-1])
    assert np.array_equal(case.t2w.array, expected.t2w.array)


def test_an_enhanced_image_gives_the_same_volume(
    plain: list[Path], expected: Case, tmp_path: Path
) -> None:
    classic = [pydicom.dcmread(p) for p in plain if "t2w-axial" in p.parent.name]
    path = tmp_path / "enhanced.dcm"
    enhance(classic).save_as(path, enforce_file_format=True)
    others = [p for p in plain if "t2w-axial" not in p.parent.name]
    case = read([*others, path])
    assert np.array_equal(case.t2w.array, expected.t2w.array)
    assert case.t2w.geometry == expected.t2w.geometry


def enhance(images: list[Dataset]) -> Dataset:
    """One multi-frame image of classic ones, frames in reverse order, compressed."""
    first = images[0]
    dataset = Dataset()
    dataset.file_meta = first.file_meta
    for element in first:
        if element.keyword not in {"ImagePositionPatient", "PixelData"}:
            dataset.add(element)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    dataset.NumberOfFrames = len(images)
    items = []
    for image in images[::-1]:
        item, place = Dataset(), Dataset()
        place.ImagePositionPatient = image.ImagePositionPatient
        item.PlanePositionSequence = [place]
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = items
    dataset.PixelData = b"".join(image.PixelData for image in images[::-1])
    dataset["PixelData"].VR = "OW"
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


# --- damage ------------------------------------------------------------------------------------


def damaged(edit: Callable[[Dataset], None], syntax: str = ExplicitVRLittleEndian) -> InputProblem:
    """Change one T2W image of a study and return the problem it makes."""
    images = made(PhantomOptions(transfer_syntax_uid=syntax, roles=T2W_AND_ADC))
    selection, load = choose(images)
    assert selection.t2w is not None
    uid = selection.t2w.sop_instance_uids[3]

    def load_damaged(wanted: str) -> Dataset:
        dataset = load(wanted)
        if wanted == uid:
            edit(dataset)
        return dataset

    with pytest.raises(InputProblem) as caught:
        build_case(selection, load_damaged)
    assert uid in str(caught.value)
    return caught.value


def cut(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]


def without(dataset: Dataset) -> None:
    del dataset.PixelData


def empty(dataset: Dataset) -> None:
    dataset.PixelData = b""


def larger(dataset: Dataset) -> None:
    dataset.Rows = 60_000
    dataset.Columns = 60_000


def other_size(dataset: Dataset) -> None:
    dataset.Rows, dataset.Columns = 32, 128


def colour(dataset: Dataset) -> None:
    dataset.SamplesPerPixel = 3


def odd_bits(dataset: Dataset) -> None:
    raw = RawDataElement(BaseTag(0x00280100), "US", 3, b"\r\n\t", 0, False, True)
    dataset._dict[raw.tag] = raw


def words_for_frames(dataset: Dataset) -> None:
    raw = RawDataElement(BaseTag(0x00280008), "IS", 2, b"x ", 0, False, True)
    dataset._dict[raw.tag] = raw


@pytest.mark.parametrize("edit", [without, empty])
def test_missing_pixel_data_is_said(edit: Callable[[Dataset], None]) -> None:
    assert damaged(edit).reason is Reason.NO_PIXEL_DATA


@pytest.mark.parametrize("edit", [cut, larger, other_size, colour, odd_bits, words_for_frames])
def test_unreadable_pixel_data_is_said(edit: Callable[[Dataset], None]) -> None:
    assert damaged(edit).reason is Reason.CORRUPT_PIXEL_DATA


@pytest.mark.parametrize("syntax", SYNTAXES[1:])
def test_damaged_compressed_frames_are_said(syntax: str) -> None:
    def nonsense(dataset: Dataset) -> None:
        dataset.PixelData = encapsulate([b"\0" * 500])

    assert damaged(nonsense, syntax).reason is Reason.CORRUPT_PIXEL_DATA


@pytest.mark.parametrize("syntax", SYNTAXES[2:])
def test_a_frame_larger_than_its_header_never_reaches_a_decoder(syntax: str) -> None:
    problem = damaged(other_size, syntax)
    assert problem.reason is Reason.CORRUPT_PIXEL_DATA and "the header" in problem.detail


def test_codestream_of_nonsense_has_no_shape() -> None:
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\0", b"\0" * 100):
        assert codestream_shape(data) is None
    assert codestream_shape(b"\xff\x4f\xff\x51\0\0") is None


def test_a_sheared_stack_is_refused() -> None:
    def shear(dataset: Dataset) -> None:
        x, y, z = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x + 0.5 * int(dataset.InstanceNumber), y, z]

    images = made(PhantomOptions(edit=shear, roles=T2W_AND_ADC))
    with pytest.raises(InputProblem, match="sideways") as caught:
        read(images)
    assert caught.value.reason is Reason.GEOMETRY_UNREADABLE


def test_a_selection_with_a_problem_is_not_read() -> None:
    with pytest.raises(InputProblem) as caught:
        build_case(Selection(problem=Reason.NO_DIFFUSION), lambda uid: Dataset())
    assert caught.value.reason is Reason.NO_DIFFUSION


# --- real studies ------------------------------------------------------------------------------


@pytest.mark.real_data
def test_prostatex_0000(prostatex_0000: Path) -> None:
    case = read(sorted(prostatex_0000.rglob("*.dcm")))
    assert case.t2w.geometry.size_xyz == (384, 384, 19)
    assert case.t2w.geometry.spacing_xyz_mm == pytest.approx((0.5, 0.5, 3.0), abs=1e-6)
    assert (
        case.adc is not None and 200 < float(np.median(case.adc.array[case.adc.array > 0])) < 2500
    )
    assert len(case.dwi) == 3 and case.high_b is not None and case.high_b.computed


# --- the phantom itself ------------------------------------------------------------------------


def test_the_same_options_give_the_same_bytes(plain: list[Path]) -> None:
    images = made(PhantomOptions())
    assert [path.read_bytes() for path in plain] == images
    copies = made(PhantomOptions(uid_seed="copy"))
    uids = {read_header(image).sop_instance_uid for image in (*images, *copies)}
    assert len(uids) == 2 * len(images)


def test_identity_and_elements_can_be_set() -> None:
    elements = {"PatientSex": "F", "BodyPartExamined": "PELVIS"}
    options = PhantomOptions(patient_id="PHANTOM-X", elements=elements, roles=T2W_AND_ADC)
    selection, _ = choose(made(options))
    assert selection.problem is Reason.NOT_PROSTATE
    assert selection.t2w is not None and selection.t2w.header.patient_id == "PHANTOM-X"


def test_a_transfer_syntax_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        made(PhantomOptions(transfer_syntax_uid="1.2.840.10008.1.2.4.50", roles=T2W_AND_ADC))


@pytest.mark.interop
def test_dciodvfy_prints_no_error(plain: list[Path]) -> None:
    one_of_each = {path.parent: path for path in plain}.values()
    for path in one_of_each:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert errors == [], path


@pytest.mark.parametrize("name", ["lesion", "no-lesion"])
def test_the_packaged_studies_are_complete(name: str) -> None:
    paths = sorted(packaged_study(name).rglob("*.dcm"))
    selection, load = choose(paths)
    assert selection.problem is None and selection.complete and selection.dce
    assert {h.patient_id[:8] for h in map(read_header, paths)} == {"PHANTOM-"}
    case = build_case(selection, load)
    assert case.adc is not None and case.adc_to_um2_s == 1.0 and len(case.dwi) >= 3
    orientations = {path.parent.name[4:] for path in paths}
    assert {"t2w-axial", "t2w-sagittal", "t2w-coronal", "dwi", "adc"} <= orientations


def test_the_packaged_studies_stay_small() -> None:
    folders = [packaged_study(name) for name in ("lesion", "no-lesion")]
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*.dcm"))
    assert 1e6 < size < 15e6


@pytest.mark.slow
def test_the_packaged_studies_can_be_made_again(tmp_path: Path) -> None:
    made = rebuild(tmp_path)
    for path in made:
        packaged = packaged_study(path.relative_to(tmp_path).parts[0])
        old = pydicom.dcmread(packaged / path.relative_to(tmp_path / packaged.name))
        new = pydicom.dcmread(path)
        difference = new.pixel_array.astype(int) - old.pixel_array.astype(int)
        assert np.abs(difference).max() <= 1  # another machine may round another way
        del old.PixelData, new.PixelData
        for keyword in ("WindowCenter", "WindowWidth"):
            delattr(old, keyword), delattr(new, keyword)
        assert old == new
