"""A simulated examination as series of MR images, as a scanner would send them. Writes no file.

Every identity here is synthetic. UIDs, dates and times follow from the options alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from ai_core.types import DceSeries, DwiVolume, Volume
from dicom_node.dicom.write import MAX_STORED, Recipe, Slice, image_dataset

_EXAM_START_S = 10 * 3600.0
_STUDY_DATE = "20240102"


class Examination(Protocol):
    """What the writer needs of a simulated study; volumes in LPS, ADC in um2/s."""

    @property
    def t2w(self) -> Volume: ...  # noqa: D102
    @property
    def t2w_sagittal(self) -> Volume | None: ...  # noqa: D102
    @property
    def t2w_coronal(self) -> Volume | None: ...  # noqa: D102
    @property
    def dwi(self) -> tuple[DwiVolume, ...]: ...  # noqa: D102
    @property
    def adc(self) -> Volume | None: ...  # noqa: D102
    @property
    def high_b(self) -> DwiVolume | None: ...  # noqa: D102
    @property
    def dce(self) -> DceSeries | None: ...  # noqa: D102


class Role(StrEnum):
    """Series that the writer knows."""

    T2W_AXIAL = "t2w-axial"
    T2W_SAGITTAL = "t2w-sagittal"
    T2W_CORONAL = "t2w-coronal"
    DWI = "dwi"
    ADC = "adc"
    HIGH_B = "high-b"
    DCE = "dce"


class Layout(StrEnum):
    """Whether images of many b-values or time points share one series."""

    ONE_SERIES = "one-series"
    MANY_SERIES = "many-series"


@dataclass(frozen=True)
class PhantomOptions:
    """How a study is written.

    ``uid_seed``: another seed gives new UIDs throughout. ``dce_phases``: this many time points,
    interpolated between the simulated ones (None: as simulated). ``interleave_b``: slices of all
    b-values in turn. ``elements``: DICOM keywords and values for every image. ``edit`` changes
    each data set before it is encoded.
    """

    uid_seed: str = "phantom"
    patient_id: str = "PHANTOM-001"
    patient_name: str = "PHANTOM^PROSTATE"
    roles: frozenset[Role] = frozenset(Role)
    dwi_layout: Layout = Layout.ONE_SERIES
    interleave_b: bool = False
    dce_layout: Layout = Layout.MANY_SERIES
    dce_phases: int | None = None
    transfer_syntax_uid: str = ExplicitVRLittleEndian
    elements: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    edit: Callable[[Dataset], None] | None = None


_SPIN_ECHO = ("SE", ("SK", "SP"), (), "2D", "*tse2d1_25", 5000.0, 102.0, 25, 160.0)
_PLANAR = ("EP", ("SK", "SP"), ("FS",), "2D")
_MAGNITUDE = ("ORIGINAL", "PRIMARY", "M", "ND")
_TRACE = ("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW", "ND")
_DCE_NUMBER = 20
RECIPES: Mapping[Role, Recipe] = MappingProxyType(
    {
        Role.T2W_SAGITTAL: Recipe("t2w-sagittal", 2, "t2_tse_sag", _MAGNITUDE, *_SPIN_ECHO),
        Role.T2W_AXIAL: Recipe("t2w-axial", 3, "t2_tse_tra", _MAGNITUDE, *_SPIN_ECHO),
        Role.T2W_CORONAL: Recipe("t2w-coronal", 4, "t2_tse_cor", _MAGNITUDE, *_SPIN_ECHO),
        Role.DWI: Recipe(
            "dwi", 5, "ep2d_diff_tra", _TRACE, *_PLANAR, "*ep_b0t", 4200.0, 65.0, 48, 90.0
        ),
        Role.ADC: Recipe(
            "adc", 8, "ep2d_diff_tra_ADC", ("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"),
            *_PLANAR, "*ep_b0_800", 4200.0, 65.0, 48, 90.0,
        ),
        Role.HIGH_B: Recipe(
            "high-b", 9, "ep2d_diff_tra_CALC_BVAL", _TRACE, *_PLANAR, "*ep_b0_800",
            4200.0, 65.0, 48, 90.0,
        ),
        Role.DCE: Recipe(
            "dce", _DCE_NUMBER, "t1_twist_tra_dyn", _MAGNITUDE, "GR", ("SP",), ("FS",), "3D",
            "*fldyn3d1", 3.85, 1.42, 1, 12.0,
        ),
    }
)  # fmt: skip
_STARTS_S = {
    Role.T2W_SAGITTAL: 180.0,
    Role.T2W_AXIAL: 480.0,
    Role.T2W_CORONAL: 780.0,
    Role.DWI: 1080.0,
    Role.ADC: 1320.0,
    Role.HIGH_B: 1321.0,
    Role.DCE: 1500.0,
}


@dataclass(frozen=True)
class _Series:
    recipe: Recipe
    label: str
    images: tuple[Slice, ...]


def instances(study: Examination, options: PhantomOptions) -> Iterator[tuple[str, Dataset]]:
    """Yield path (``folder/name``) and data set of every image in the order of acquisition."""
    count = 0
    for series in _all_series(study, options):
        for number, image in enumerate(series.images, start=1):
            common = _common(options, series.label, number, count)
            dataset = image_dataset(series.recipe, image, {**common, **options.elements})
            if options.edit is not None:
                options.edit(dataset)
            yield f"{series.recipe.number:03d}-{series.label}/{number:04d}.dcm", dataset
            count += 1


def _uid(options: PhantomOptions, *names: object) -> str:
    """Derive a UID from a UUID (PS3.5 B.2): the same names give the same UID."""
    text = "/".join((options.uid_seed, *map(str, names)))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"


def _common(options: PhantomOptions, label: str, number: int, count: int) -> dict[str, Any]:
    """Elements of patient, study, series and equipment; type 2 elements are there, maybe empty."""
    return {
        "SOPInstanceUID": _uid(options, "image", label, number, count),
        "StudyInstanceUID": _uid(options, "study"),
        "SeriesInstanceUID": _uid(options, "series", label),
        "FrameOfReferenceUID": _uid(options, "frame of reference"),
        "InstanceNumber": number,
        "PatientName": options.patient_name,
        "PatientID": options.patient_id,
        "PatientBirthDate": "19600101",
        "PatientSex": "M",
        "BodyPartExamined": "PROSTATE",
        "StudyDate": _STUDY_DATE,
        "SeriesDate": _STUDY_DATE,
        "AcquisitionDate": _STUDY_DATE,
        "ContentDate": _STUDY_DATE,
        "StudyTime": "100000",
        "StudyID": "1",
        "StudyDescription": "MR prostate, synthetic",
        "AccessionNumber": "PHANTOM1",
        "ReferringPhysicianName": "",
        "Manufacturer": "SIMULATED",
        "ManufacturerModelName": "Prostate phantom",
        "DeviceSerialNumber": "1",
        "SoftwareVersions": "1",
        "InstitutionName": "Synthetic data",
    }


def _all_series(study: Examination, options: PhantomOptions) -> Iterator[_Series]:
    for role in RECIPES:
        if role in options.roles:
            yield from _WRITERS[role](study, options, RECIPES[role])


def _t2w(
    pick: Callable[[Examination], Volume | None], role: Role
) -> Callable[[Examination, PhantomOptions, Recipe], Iterator[_Series]]:
    def write(study: Examination, options: PhantomOptions, recipe: Recipe) -> Iterator[_Series]:
        volume = pick(study)
        if volume is not None:
            stored = _to_stored(volume.array, _scale([volume]))
            images = _slices(stored, volume, _EXAM_START_S + _STARTS_S[role])
            yield _Series(recipe, recipe.name, tuple(images))

    return write


def _dwi(study: Examination, options: PhantomOptions, recipe: Recipe) -> Iterator[_Series]:
    if not study.dwi:
        return
    scale = _scale([d.volume for d in study.dwi])
    stacks = []
    for count, dwi in enumerate(study.dwi):
        start = _EXAM_START_S + _STARTS_S[Role.DWI] + 60.0 * count
        stored = _to_stored(dwi.volume.array, scale)
        elements = _b_elements(dwi.b_value_s_per_mm2, f"*ep_b{dwi.b_value_s_per_mm2:.0f}t")
        stacks.append(_slices(stored, dwi.volume, start, elements))
    if options.dwi_layout is Layout.MANY_SERIES:
        for count, (dwi, images) in enumerate(zip(study.dwi, stacks, strict=True)):
            label = f"dwi-b{dwi.b_value_s_per_mm2:.0f}"
            numbered = replace(recipe, number=recipe.number * 100 + count)
            yield _Series(numbered, label, tuple(images))
        return
    in_turn = zip(*stacks, strict=True) if options.interleave_b else stacks
    yield _Series(recipe, recipe.name, tuple(image for group in in_turn for image in group))


def _b_elements(b_value: float, sequence_name: str) -> dict[str, Any]:
    directionality = "ISOTROPIC" if b_value else "NONE"
    return {
        "DiffusionBValue": float(b_value),
        "DiffusionDirectionality": directionality,
        "SequenceName": sequence_name,
    }


def _adc(study: Examination, options: PhantomOptions, recipe: Recipe) -> Iterator[_Series]:
    if study.adc is None:
        return
    start = _EXAM_START_S + _STARTS_S[Role.ADC]
    elements = {"RealWorldValueMappingSequence": [_um2_per_s()]}
    stored = _to_stored(study.adc.array, 1.0)
    yield _Series(recipe, recipe.name, tuple(_slices(stored, study.adc, start, elements)))


def _um2_per_s() -> Dataset:
    """Real world value mapping that says: stored values are um2/s (PS3.3 C.7.6.16.2.11)."""
    unit = Dataset()
    unit.CodeValue = "um2/s"
    unit.CodingSchemeDesignator = "UCUM"
    unit.CodeMeaning = "um2/s"
    item = Dataset()
    item.LUTExplanation = "ADC"
    item.LUTLabel = "ADC"
    item.MeasurementUnitsCodeSequence = [unit]
    item.RealWorldValueFirstValueMapped = 0
    item.RealWorldValueLastValueMapped = MAX_STORED
    item.RealWorldValueIntercept = 0.0
    item.RealWorldValueSlope = 1.0
    return item


def _high_b(study: Examination, options: PhantomOptions, recipe: Recipe) -> Iterator[_Series]:
    if study.high_b is None:
        return
    volume, b_value = study.high_b.volume, study.high_b.b_value_s_per_mm2
    if not study.high_b.computed:
        recipe = replace(recipe, description="ep2d_diff_tra_high_b")
    top = max((d.b_value_s_per_mm2 for d in study.dwi), default=0.0)
    name = f"*ep_b0_{top:.0f}" if study.high_b.computed else f"*ep_b{b_value:.0f}t"
    start = _EXAM_START_S + _STARTS_S[Role.HIGH_B]
    stored = _to_stored(volume.array, _scale([volume]))
    images = _slices(stored, volume, start, _b_elements(b_value, name))
    yield _Series(recipe, recipe.name, tuple(images))


def _dce(study: Examination, options: PhantomOptions, recipe: Recipe) -> Iterator[_Series]:
    if study.dce is None:
        return
    scale = _scale(study.dce.phases)
    start = _EXAM_START_S + _STARTS_S[Role.DCE]
    single: list[Slice] = []
    for count, (time_s, volume) in enumerate(_phases(study.dce, options.dce_phases)):
        elements = {"ContrastBolusAgent": "SYNTHETIC", "AcquisitionNumber": count + 1}
        if options.dce_layout is Layout.ONE_SERIES:
            elements["TemporalPositionIdentifier"] = count + 1
        stored = _to_stored(volume.array, scale)
        # a phase is one volume: all its slices have one acquisition time
        images = _slices(stored, volume, start + time_s, elements, step_s=0.0)
        if options.dce_layout is Layout.ONE_SERIES:
            single += images
            continue
        numbered = replace(
            recipe, number=_DCE_NUMBER + count, description=f"{recipe.description}_TT={time_s:.1f}s"
        )
        yield _Series(numbered, f"dce-{count + 1:03d}", tuple(images))
    if single:
        yield _Series(recipe, recipe.name, tuple(single))


def _phases(dce: DceSeries, count: int | None) -> Iterator[tuple[float, Volume]]:
    """Phases as simulated, or this many, interpolated in time between the simulated ones."""
    if count is None or count == len(dce.phases):
        yield from zip(dce.times_s, dce.phases, strict=True)
        return
    for time_s in np.linspace(dce.times_s[0], dce.times_s[-1], count):
        after = int(np.searchsorted(dce.times_s, time_s).clip(1, len(dce.phases) - 1))
        before = after - 1
        share = (time_s - dce.times_s[before]) / (dce.times_s[after] - dce.times_s[before])
        array = (1 - share) * dce.phases[before].array + share * dce.phases[after].array
        yield float(time_s), Volume(array, dce.phases[0].geometry)


def _scale(volumes: Sequence[Volume]) -> float:
    """One factor for images that belong together: the brightest 0.1 % end at 1,500."""
    top = max(float(np.percentile(volume.array.astype(np.float64), 99.9)) for volume in volumes)
    return 1500.0 / max(top, 1e-6)


def _to_stored(array: npt.NDArray[np.generic], scale: float) -> npt.NDArray[np.uint16]:
    values = np.rint(np.asarray(array, dtype=np.float64) * scale)
    return values.clip(0, MAX_STORED).astype(np.uint16)


def _slices(
    stored: npt.NDArray[np.uint16],
    volume: Volume,
    start_s: float,
    elements: Mapping[str, Any] | None = None,
    step_s: float = 0.25,
) -> list[Slice]:
    return [
        Slice(stored[z], volume.geometry, z, start_s + step_s * z, elements or {})
        for z in range(stored.shape[0])
    ]


_WRITERS: Mapping[Role, Callable[[Examination, PhantomOptions, Recipe], Iterator[_Series]]] = {
    Role.T2W_AXIAL: _t2w(lambda study: study.t2w, Role.T2W_AXIAL),
    Role.T2W_SAGITTAL: _t2w(lambda study: study.t2w_sagittal, Role.T2W_SAGITTAL),
    Role.T2W_CORONAL: _t2w(lambda study: study.t2w_coronal, Role.T2W_CORONAL),
    Role.DWI: _dwi,
    Role.ADC: _adc,
    Role.HIGH_B: _high_b,
    Role.DCE: _dce,
}
