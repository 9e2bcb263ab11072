"""Requests for tests: a real study with a synthetic result, and generated oblique stacks."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from ai_core.geometry import index_of_lps, lps_of_index
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
from dicom_node.domain.profile import ResultKind
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.results.build import (
    Analysed,
    EarlierObject,
    KeyImageVolumes,
    NotAnalysed,
    Psa,
    ResultRequest,
    SelectionSummary,
)
from dicom_node.results.header import tolerant

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVERYTHING = {
    "kinds": frozenset(str(kind) for kind in ResultKind), "variants": True,
    "psa": Psa(7.2, "given by the test"), "revision": 2,
    "earlier": (
        EarlierObject("sr", "", 1, "1.2.840.10008.5.1.4.1.1.88.34", "2.25.881", "2.25.882"),
        EarlierObject("seg-gland", "", 1, "1.2.840.10008.5.1.4.1.1.66.4", "2.25.883", "2.25.884"),
    ),
}  # fmt: skip
"""Every kind of object in every form, of a later revision."""
RELEASE = ReleaseInfo("prostate-net", "0.1.0", hashlib.sha256(b"weights").hexdigest())


def geometry_of(slices: list[Dataset]) -> Geometry:
    """Grid of single-frame slices in stack order."""
    first, last = slices[0], slices[-1]
    row = np.asarray(first.ImageOrientationPatient[:3], dtype=float)
    column = np.asarray(first.ImageOrientationPatient[3:], dtype=float)
    start = np.asarray(first.ImagePositionPatient, dtype=float)
    step = (np.asarray(last.ImagePositionPatient, dtype=float) - start) / (len(slices) - 1)
    thickness = float(np.linalg.norm(step))
    direction = np.stack([row, column, step / thickness], axis=1)
    spacing = [float(v) for v in first.PixelSpacing]
    return Geometry(
        (int(first.Columns), int(first.Rows), len(slices)),
        (spacing[1], spacing[0], thickness),
        tuple(map(float, start)),
        tuple(tuple(map(float, r)) for r in direction),
    )


def ball(
    geometry: Geometry, centre_lps_mm: tuple[float, float, float], radii_mm: tuple
) -> np.ndarray:
    """Ellipsoid with axes along the grid."""
    z0, y0, x0 = index_of_lps(geometry, centre_lps_mm)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in geometry.shape_zyx)]
    sx, sy, sz = geometry.spacing_xyz_mm
    rx, ry, rz = radii_mm
    return (
        ((x - x0) * sx / rx) ** 2 + ((y - y0) * sy / ry) ** 2 + ((z - z0) * sz / rz) ** 2
    ) <= 1.0


def finding(rank: int, centre: tuple[float, float, float], mask: np.ndarray, ml: float) -> Finding:
    return Finding(
        rank=rank, center_lps_mm=centre, volume_ml=float(mask.sum()) * ml,
        longest_diameter_mm=14.2 - rank, likelihood=0.71 - 0.1 * rank, significant=rank == 1,
        suspicion_score=4.1 - rank, sector="PZ/pl/mid/R" if rank == 1 else "TZ/a/mid/L",
        mean_adc_um2_s=812.4 if rank == 1 else None, uncertainty=0.2,
    )  # fmt: skip


def case_result(
    geometry: Geometry, gland_centre: tuple[float, float, float],
    lesions: tuple[tuple[tuple[float, float, float], float], ...] = (),
    quality: tuple[QualityFinding, ...] = (),
) -> CaseResult:  # fmt: skip
    """A made-up result: an ellipsoid gland, balls as lesions (centre, radius in mm)."""
    gland = ball(geometry, gland_centre, (23.0, 19.0, 20.0))
    labels = np.zeros(geometry.shape_zyx, dtype=np.uint8)
    findings = []
    ml = geometry.voxel_volume_mm3 / 1000
    for rank, (centre, radius) in enumerate(lesions, start=1):
        mask = ball(geometry, centre, (radius,) * 3) & (labels == 0)
        labels[mask] = rank
        findings.append(finding(rank, centre, mask, ml))
    heat = np.where(labels > 0, 0.7, 0.1 * gland).astype(np.float32)
    zones = np.where(gland, 1 + (np.arange(geometry.shape_zyx[1])[:, None] % 2), 0)
    return CaseResult(
        geometry=geometry,
        gland=Gland(float(gland.sum()) * ml, gland_centre, True),
        gland_mask=gland.astype(np.uint8), zones=zones.astype(np.uint8), lesions=labels,
        likelihood=heat, relevance=heat, modality_maps={Modality.T2W: heat},
        findings=tuple(findings), case_likelihood=0.61 if findings else 0.08,
        case_significant=bool(findings), quality=quality, release=RELEASE,
    )  # fmt: skip


def digest(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()


def request_for(
    slices: list[Dataset], outcome: Analysed | NotAnalysed, **more: object
) -> ResultRequest:
    request = ResultRequest(
        sources=slices, outcome=outcome, inputs_digest=digest("input"),
        config_digest=digest("settings"), content_time=NOW, installation_id="test-installation",
        software_version="0.1.0",
        selection=SelectionSummary(("T2W: t2_tse_tra",), ("t2_tse_sag: not axial",)),
    )  # fmt: skip
    return replace(request, **more)


def not_analysed(reason: Reason = Reason.NO_DIFFUSION) -> NotAnalysed:
    state = "failed" if reason in (Reason.TIMEOUT, Reason.INTERNAL_ERROR) else "not_analysable"
    return NotAnalysed(state, reason, REASONS[reason].message)


# --- the public study ------------------------------------------------------------------------

REAL_GLAND = (30.0, 24.0, -37.0)
REAL_LESIONS = (((25.7, 31.9, -38.5), 6.0), ((38.0, 17.0, -35.0), 5.0))


def read_series(folder: Path) -> list[Dataset]:
    """Images of a folder, sorted along their normal; text elements are not touched."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    orientation = np.asarray(slices[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    return sorted(slices, key=lambda s: float(np.dot(normal, np.asarray(s.ImagePositionPatient))))


def volume_of(slices: list[Dataset]) -> Volume:
    return Volume(np.stack([s.pixel_array for s in slices]), geometry_of(slices))


def real_request(
    folder: Path,
    lesions: tuple[tuple[tuple[float, float, float], float], ...] = REAL_LESIONS,
    **more: object,
) -> ResultRequest:
    """PROSTATEx-0000 with a made-up result."""
    t2w, adc, high_b = (
        read_series(next(folder.glob(f"{number}.000000-*"))) for number in (4, 7, 8)
    )
    images = KeyImageVolumes(volume_of(t2w), volume_of(adc), volume_of(high_b), "b1000 (computed)")
    quality = (
        QualityFinding(Quality.HIGH_B_COMPUTED, "The high b-value image was computed.", 1000.0),
    )
    result = case_result(images.t2w.geometry, REAL_GLAND, lesions, quality)
    return request_for(t2w, Analysed(result, images), other_sources=adc + high_b, **more)


# --- a generated stack -----------------------------------------------------------------------


def stack(
    *, slices: int = 9, rows: int = 80, columns: int = 72, spacing_mm: tuple = (0.9, 0.7),
    step_mm: float = 4.0, tilt: float = 0.3, turn: float = 0.0, reverse: bool = False,
    seed: int = 1,
) -> list[Dataset]:  # fmt: skip
    """A generated oblique T2W stack with non-square pixels, in stack order.

    ``tilt`` about the left-right axis, ``turn`` about the head-foot axis, in radians.
    """
    row = np.array([np.cos(turn), np.sin(turn), 0.0])
    flat = np.array([-np.sin(turn), np.cos(turn), 0.0])
    column = np.cos(tilt) * flat - np.sin(tilt) * np.array([0.0, 0.0, 1.0])
    normal = np.cross(row, column) * (-1 if reverse else 1)
    random = np.random.default_rng(seed)
    return [
        _slice(
            k, position=np.array([-25.0, -30.0, 10.0]) + k * step_mm * normal, row=row,
            column=column, shape=(rows, columns), spacing_mm=spacing_mm, step_mm=step_mm,
            random=random,
        )
        for k in range(slices)
    ]  # fmt: skip


def _slice(
    k: int, *, position: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple,
    spacing_mm: tuple, step_mm: float, random: np.random.Generator,
) -> Dataset:  # fmt: skip
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = f"2.25.7770{k + 1}"
    image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.7771", "2.25.7772"
    image.FrameOfReferenceUID = "2.25.7773"
    image.StudyDate, image.StudyTime = "20260101", "101010"
    image.PatientName, image.PatientID = "Test^Oblique", "T-1"
    image.PatientBirthDate, image.PatientSex = "19600101", "M"
    image.AccessionNumber, image.StudyID, image.ReferringPhysicianName = "A1", "S1", "Doc^Tor"
    image.Modality, image.Manufacturer = "MR", "Maker"
    image.Rows, image.Columns = shape
    image.PixelSpacing = [f"{v:.6g}" for v in spacing_mm]
    image.SliceThickness = f"{step_mm:.6g}"
    image.ImagePositionPatient = [f"{v:.9g}" for v in position]
    image.ImageOrientationPatient = [f"{v:.9g}" for v in (*row, *column)]
    image.InstanceNumber, image.SeriesNumber = k + 1, 3
    image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelRepresentation = 0
    image.add_new("PixelData", "OW", random.integers(0, 900, shape, dtype=np.uint16).tobytes())
    return image


def stack_request(
    slices: list[Dataset] | None = None, lesion: bool = True, **more: object
) -> ResultRequest:
    """A generated stack with a made-up result."""
    slices = slices or stack()
    t2w = volume_of(slices)
    z, y, x = t2w.array.shape
    middle = lps_of_index(t2w.geometry, (z // 2, y // 2, x // 2))
    lesions = ((middle, 5.5),) if lesion else ()
    result = case_result(t2w.geometry, middle, lesions)
    return request_for(slices, Analysed(result, KeyImageVolumes(t2w)), **more)


def with_gland(request: ResultRequest, mask: np.ndarray) -> ResultRequest:
    """The request with another gland."""
    assert isinstance(request.outcome, Analysed)
    result = replace(request.outcome.result, gland_mask=mask.astype(np.uint8))
    return replace(request, outcome=replace(request.outcome, result=result))


def stack_like(slices: list[Dataset]) -> list[Dataset]:
    """Copies of slices with what highdicom's converter needs: a plain name, type 2 elements."""
    copies = []
    for image in slices:
        copy = deepcopy(image)
        del copy[0x00080005], copy[0x00100010]  # as bytes: not every name can be decoded
        copy.SpecificCharacterSet, copy.PatientName = "ISO_IR 100", "Test^Oblique"
        for keyword in ("PatientBirthDate", "StudyID", "AccessionNumber", "SliceThickness"):
            copy.setdefault(keyword, "")
        copies.append(copy)
    return copies


def enhanced(slices: list[Dataset]) -> Dataset:
    """The slices as one multi-frame instance, converted by highdicom."""
    with tolerant():  # of the patient's name without a caret
        return LegacyConvertedEnhancedMRImage(
            legacy_datasets=slices, series_instance_uid="2.25.7781", series_number=3,
            sop_instance_uid="2.25.7782", instance_number=1,
        )  # fmt: skip


def frame_numbers(image: Dataset, slices: list[Dataset]) -> tuple[int, ...]:
    """Number of the frame that holds each slice."""
    positions = [
        np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        for groups in image.PerFrameFunctionalGroupsSequence
    ]
    return tuple(
        1 + int(np.argmin([np.abs(position - place).sum() for position in positions]))
        for place in (np.asarray(s.ImagePositionPatient, dtype=float) for s in slices)
    )
