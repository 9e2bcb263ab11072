"""Two made-up examinations, whose result objects show what the builders write.

They differ in everything that may differ, and in what a hospital may leave out: what is equal in
the objects of both is fixed, what is absent from one is conditional. Nothing of them is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from ai_core.types import (
    CaseResult,
    Finding,
    Geometry,
    Gland,
    Modality,
    Quality,
    QualityFinding,
    ReleaseInfo,
    Volume,
)
from dicom_node.domain.profile import COMPREHENSIVE_3D_SR, SEGMENTATION, ResultKind
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.results.equipment import uid_of
from dicom_node.results.header import IDENTITY, TYPE_2
from dicom_node.results.request import (
    Analysed,
    EarlierObject,
    KeyImageVolumes,
    NotAnalysed,
    Psa,
    ResultRequest,
)

_TEXT = {
    "AS": "060Y", "CS": "YES", "DA": "19500102", "DS": "70.5", "LO": "sample", "LT": "sample",
    "PN": "Sample^Name", "SH": "sample", "ST": "sample", "TM": "101010", "UI": "2.25.1",
    "UC": "sample", "UT": "sample",
}  # fmt: skip
_OWN_VALUES = {
    "SpecificCharacterSet": "ISO_IR 192", "TimezoneOffsetFromUTC": "+0100", "PatientSex": "M",
    "PatientIdentityRemoved": "NO",
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What one sample differs in: its number, grid, and whether its header is filled."""

    number: int
    size_xyz: tuple[int, int, int]
    spacing_xyz_mm: tuple[float, float, float]
    filled: bool


FULL = Shape(1, (40, 36, 5), (1.5, 1.6, 4.0), True)
BARE = Shape(2, (36, 44, 4), (1.7, 1.4, 3.5), False)


def sample_requests() -> list[ResultRequest]:
    """Return requests whose objects, together, show every kind in every form."""
    everything = frozenset(str(kind) for kind in ResultKind)
    full = replace(
        _request(FULL), kinds=everything, variants=True, psa=Psa(6.5, "sample"), revision=2,
        earlier=_earlier(1),
    )  # fmt: skip
    bare = replace(_request(BARE), kinds=everything, variants=True, revision=3, earlier=_earlier(2))
    nothing_found = replace(bare, outcome=_analysed(BARE, found=False), earlier=(), revision=1)
    return [full, bare, nothing_found, _not_analysed()]


def _earlier(revision: int) -> tuple[EarlierObject, ...]:
    made = (("sr", COMPREHENSIVE_3D_SR), ("seg-gland", SEGMENTATION))
    return tuple(
        EarlierObject(
            kind, "", revision, sop_class, uid_of("sample", f"{revision}{kind}"),
            uid_of("sample series", f"{revision}{kind}"),
        )
        for kind, sop_class in made
    )  # fmt: skip


def _request(shape: Shape) -> ResultRequest:
    images = _images(shape, "T2W")
    return ResultRequest(
        sources=images,
        outcome=_analysed(shape, found=True),
        inputs_digest=f"{shape.number:064x}",
        config_digest=f"{shape.number + 8:064x}",
        content_time=datetime(2000 + shape.number, shape.number, 3, 4, 5, shape.number, tzinfo=UTC),
        installation_id=f"installation {shape.number}",
        software_version=f"0.0.{shape.number}",
        other_sources=_images(shape, "ADC"),
    )


def _not_analysed() -> ResultRequest:
    request = _request(BARE)
    reason = Reason.NO_DIFFUSION
    return replace(
        request, sources=(), other_sources=request.sources, variants=True,
        outcome=NotAnalysed("not_analysable", reason, REASONS[reason].message),
        kinds=frozenset(str(kind) for kind in ResultKind),
    )  # fmt: skip


def _images(shape: Shape, series: str) -> Sequence[Dataset]:
    return [_image(shape, series, z) for z in range(shape.size_xyz[2])]


def _image(shape: Shape, series: str, z: int) -> Dataset:
    columns, rows, _ = shape.size_xyz
    dx, dy, dz = shape.spacing_xyz_mm
    name = f"{shape.number}{series}"
    image = Dataset()
    for keyword in IDENTITY if shape.filled else TYPE_2:
        _fill(image, keyword, shape)
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = uid_of("sample image", f"{name}{z}")
    image.StudyInstanceUID = uid_of("sample study", str(shape.number))
    image.SeriesInstanceUID = uid_of("sample series", name)
    image.FrameOfReferenceUID = uid_of("sample frame", str(shape.number))
    image.Modality, image.Manufacturer = "MR", f"scanner {shape.number}"
    image.Rows, image.Columns = rows, columns
    image.PixelSpacing, image.SliceThickness = [dy, dx], dz
    image.ImagePositionPatient = [-30.0, -30.0, z * dz]
    image.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    image.InstanceNumber, image.SeriesNumber = z + 1, 3
    if shape.filled:
        image.PositionReferenceIndicator = "SAMPLE"
        image.LossyImageCompression = "01"
        image.LossyImageCompressionRatio = "5.5"
        image.LossyImageCompressionMethod = "ISO_15444_1"
    return image


def _fill(image: Dataset, keyword: str, shape: Shape) -> None:
    vr = dictionary_VR(keyword)
    if vr == "SQ":
        setattr(image, keyword, [_code_item()])
    elif shape.filled:
        value = _OWN_VALUES.get(keyword, _TEXT[vr])
        several = dictionary_VM(keyword) != "1" and keyword != "SpecificCharacterSet"
        setattr(image, keyword, [value, value] if several else value)
    else:
        setattr(image, keyword, "")


def _code_item() -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99SAMPLE", "sample"
    return item


def _analysed(shape: Shape, *, found: bool) -> Analysed:
    geometry = Geometry(shape.size_xyz, shape.spacing_xyz_mm, (-30.0, -30.0, 0.0))
    gland = _box(geometry, 0.25)
    lesion = _box(geometry, 0.4) if found else np.zeros_like(gland)
    heat = lesion.astype(np.float32) * np.float32(0.1 * shape.number + 0.5)
    result = CaseResult(
        geometry=geometry, gland=Gland(30.0 + shape.number, (0.0, 0.0, 5.0), True),
        gland_mask=gland, zones=gland + _box(geometry, 0.35), lesions=lesion,
        likelihood=heat, relevance=heat, modality_maps={Modality.T2W: heat},
        findings=(_finding(shape),) if found else (), case_likelihood=0.1 * shape.number,
        case_significant=found, quality=_quality(shape),
        release=ReleaseInfo(f"sample {shape.number}", f"0.{shape.number}", f"{shape.number:064x}"),
    )  # fmt: skip
    t2w = Volume(np.zeros(geometry.shape_zyx, dtype=np.uint16), geometry)
    return Analysed(result, KeyImageVolumes(t2w, t2w if shape.filled else None))


def _quality(shape: Shape) -> tuple[QualityFinding, ...]:
    return (QualityFinding(Quality.LOW_SNR, "sample"),) if shape.filled else ()


def _finding(shape: Shape) -> Finding:
    return Finding(
        rank=1, center_lps_mm=(0.0, 0.0, 5.0), volume_ml=shape.number / 2,
        longest_diameter_mm=9.0 + shape.number, likelihood=0.4 + 0.1 * shape.number,
        significant=shape.filled, suspicion_score=3.0 + shape.number / 2,
        sector="PZ/pl/mid/R" if shape.filled else "PZ/L",
        mean_adc_um2_s=800.0 if shape.filled else None, uncertainty=0.1,
        abnormality=2.5 if shape.filled else None,
    )  # fmt: skip


def _box(geometry: Geometry, margin: float) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a mask that leaves this share of each axis free at both ends (slices: one)."""
    mask = np.zeros(geometry.shape_zyx, dtype=np.uint8)
    _, rows, columns = mask.shape
    y, x = int(rows * margin), int(columns * margin)
    mask[1:-1, y : rows - y, x : columns - x] = 1
    return mask
