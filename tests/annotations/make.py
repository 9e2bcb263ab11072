"""Annotations as viewers write them, on a small study with a made-up result of the node.

OHIF (dcmjs): generic type "Tissue", labels kept, no creator, frames that mark something only.
3D Slicer (dcmqi): coded types, a creator, slices from the top. Others: a copy with all kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ai_core.geometry import lps_of_index
from ai_core.types import Geometry
from dicom_node.annotations.agreement import NodeResult
from dicom_node.annotations.reading import StudyGrid
from dicom_node.annotations.result import SENT_KINDS, SentResult, read_result
from dicom_node.annotations.segmentation import Source
from dicom_node.domain.annotation import LABEL_MAP, SEGMENTATION
from dicom_node.results.build import Analysed, KeyImageVolumes, ResultObject, build_results
from tests.flow.conftest import T2W, series
from tests.results import result_cases as cases

Mask = npt.NDArray[np.bool_]
GLAND_AT = (0.0, 0.0, -1.5)
LESIONS_AT = (((12.0, 10.0, -4.5), 6.0), ((-10.0, -6.0, 4.5), 5.0))
TISSUE = ("T-D0050", "SRT", "Tissue")
LESION = ("52988006", "SCT", "Lesion")
PROSTATE = ("41216001", "SCT", "Prostate")
KINDS = frozenset({"seg-lesions", "seg-gland", "seg-zones", "sr"})


@dataclass(frozen=True)
class Scene:
    """A study of axial T2W slices, and what the node sent of it."""

    lesions: tuple[tuple[tuple[float, float, float], float], ...] = LESIONS_AT
    slices: list[Dataset] = field(default_factory=lambda: [_image(one) for one in series(T2W)])

    def __post_init__(self) -> None:
        geometry = cases.geometry_of(self.slices)
        result = cases.case_result(geometry, GLAND_AT, self.lesions)
        shown = Analysed(result, KeyImageVolumes(cases.volume_of(self.slices)))
        request = replace(cases.request_for(self.slices, shown), kinds=KINDS)
        sent: list[ResultObject] = build_results(request)
        for name, value in (("geometry", geometry), ("result", result), ("sent", sent)):
            object.__setattr__(self, name, value)

    geometry: Geometry = field(init=False)
    result: cases.CaseResult = field(init=False)
    sent: list[ResultObject] = field(init=False)

    def lesion(self, rank: int) -> Mask:
        return np.asarray(self.result.lesions == rank)

    @property
    def gland(self) -> Mask:
        return np.asarray(self.result.gland_mask > 0)

    def object(self, kind: str) -> Dataset:
        """A result object as a viewer loads it."""
        data = next(one.data for one in self.sent if one.kind == kind)
        return pydicom.dcmread(io.BytesIO(data))

    @property
    def grid(self) -> StudyGrid:
        first = self.slices[0]
        sources = {
            (str(one.SOPInstanceUID), 1): Source(
                tuple(map(float, one.ImagePositionPatient)),
                tuple(map(float, one.ImageOrientationPatient)),
                tuple(map(float, one.PixelSpacing)),
            )
            for one in self.slices
        }
        frame = str(first.FrameOfReferenceUID)
        return StudyGrid(self.geometry, frame, {str(first.SeriesInstanceUID): frame}, sources)

    @property
    def node(self) -> NodeResult:
        objects = {one.sop_instance_uid: str(one.kind) for one in self.sent}
        kinds = {str(one.kind) for one in self.sent} & set(SENT_KINDS)
        found = {SENT_KINDS[kind]: self.object(kind) for kind in kinds}
        return read_result(SentResult(1, objects, **found), self.grid)


def _image(image: Dataset) -> Dataset:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.StudyID, image.AccessionNumber, image.ReferringPhysicianName = "1", "A1", "Doc^Tor"
    return image


def ball(geometry: Geometry, centre: tuple[float, float, float], radius_mm: float) -> Mask:
    return np.asarray(cases.ball(geometry, centre, (radius_mm,) * 3))


def code(value: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value
    return item


@dataclass(frozen=True)
class Drawn:
    """A segment: mask on the grid it was drawn on, and what the viewer writes about it."""

    mask: Mask
    label: str
    type: tuple[str, str, str] = TISSUE
    category: tuple[str, str, str] = TISSUE
    algorithm: tuple[str, str] = ("MANUAL", "OHIF Brush")
    tracking_uid: str = ""

    def item(self, number: int) -> Dataset:
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel = number, self.label
        item.SegmentedPropertyCategoryCodeSequence = [code(self.category)]
        item.SegmentedPropertyTypeCodeSequence = [code(self.type)]
        item.SegmentAlgorithmType, item.SegmentAlgorithmName = self.algorithm
        if self.tracking_uid:
            item.TrackingID, item.TrackingUID = self.label, self.tracking_uid
        return item


@dataclass(frozen=True)
class Style:
    """How a viewer writes: type, who it is, order of frames, empty frames."""

    kind: str = "BINARY"
    manufacturer: tuple[str, str] = ("Unspecified", "Unspecified")
    creator: str = ""
    reverse: bool = False
    empty_frames: bool = False
    slice_major: bool = False
    shared_segment: bool = False


OHIF = Style()
SLICER = Style(
    manufacturer=("QIICR", "https://github.com/QIICR/dcmqi.git"), creator="Reader^One",
    reverse=True,
)  # fmt: skip


def drawn(
    scene: Scene, segments: Sequence[Drawn], style: Style = OHIF, grid: Geometry | None = None
) -> Dataset:
    """A segmentation object drawn on a grid (the T2W of the study)."""
    grid = grid or scene.geometry
    dataset = _head(scene, style)
    dataset.SegmentSequence = [one.item(n) for n, one in enumerate(segments, start=1)]
    frames = _frames(segments, grid, style)
    dataset.Rows, dataset.Columns = grid.size_xyz[1], grid.size_xyz[0]
    dataset.NumberOfFrames = len(frames)
    dataset.SharedFunctionalGroupsSequence = [_shared(grid)]
    dataset.PerFrameFunctionalGroupsSequence = [
        _own(grid, z, number, scene if grid is scene.geometry else None) for z, number, _ in frames
    ]
    pixels = np.stack([plane for _, _, plane in frames])
    bits = 1 if style.kind == "BINARY" else 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    if style.kind == "FRACTIONAL":
        dataset.MaximumFractionalValue, dataset.SegmentationFractionalType = 200, "PROBABILITY"
        pixels = pixels * 160 + 20
    packed = np.packbits(pixels.ravel(), bitorder="little") if bits == 1 else pixels.ravel()
    data = packed.astype(np.uint8).tobytes()
    dataset.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    return stored(dataset)


def _head(scene: Scene, style: Style) -> Dataset:
    source, dataset = scene.slices[0], Dataset()
    for name in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
        "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "FrameOfReferenceUID",
    ):  # fmt: skip
        setattr(dataset, name, source.get(name))
    dataset.SOPClassUID = LABEL_MAP if style.kind == "LABELMAP" else SEGMENTATION
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.SegmentationType = "SEG", style.kind
    dataset.Manufacturer, dataset.ManufacturerModelName = style.manufacturer
    dataset.ContentDate, dataset.ContentTime = "20260203", "101112.5"
    dataset.SeriesDescription, dataset.ContentLabel = "Research Derived Series", "SEGMENTATION"
    if style.creator:
        dataset.ContentCreatorName = style.creator
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = 0
    referenced = Dataset()
    referenced.SeriesInstanceUID = source.SeriesInstanceUID
    dataset.ReferencedSeriesSequence = [referenced]
    return dataset


def _frames(
    segments: Sequence[Drawn], grid: Geometry, style: Style
) -> list[tuple[int, int, npt.NDArray[np.uint8]]]:
    levels: Iterable[int] = range(grid.size_xyz[2])
    levels = list(levels)[::-1] if style.reverse else list(levels)
    if style.kind == "LABELMAP":
        labels = np.zeros(grid.shape_zyx, dtype=np.uint8)
        for number, segment in enumerate(segments, start=1):
            labels[segment.mask] = number
        return [(z, 0, labels[z]) for z in levels if labels[z].any() or style.empty_frames]
    found = [
        (z, number, segment.mask[z].astype(np.uint8))
        for number, segment in enumerate(segments, start=1)
        for z in levels
        if segment.mask[z].any() or style.empty_frames
    ]
    return sorted(found, key=lambda frame: frame[0]) if style.slice_major else found


def _shared(grid: Geometry) -> Dataset:
    plane, measures, shared = Dataset(), Dataset(), Dataset()
    axes = np.asarray(grid.direction)
    plane.ImageOrientationPatient = [f"{v:.9g}" for v in (*axes[:, 0], *axes[:, 1])]
    sx, sy, sz = grid.spacing_xyz_mm
    measures.PixelSpacing = [f"{sy:.9g}", f"{sx:.9g}"]
    measures.SliceThickness = measures.SpacingBetweenSlices = f"{sz:.9g}"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    return shared


def _own(grid: Geometry, z: int, number: int, scene: Scene | None) -> Dataset:
    own, place = Dataset(), Dataset()
    place.ImagePositionPatient = [f"{v:.9g}" for v in lps_of_index(grid, (z, 0, 0))]
    own.PlanePositionSequence = [place]
    if number:
        segment = Dataset()
        segment.ReferencedSegmentNumber = number
        own.SegmentIdentificationSequence = [segment]
    if scene is not None:
        image, derivation = Dataset(), Dataset()
        image.ReferencedSOPClassUID = scene.slices[z].SOPClassUID
        image.ReferencedSOPInstanceUID = scene.slices[z].SOPInstanceUID
        derivation.SourceImageSequence = [image]
        own.DerivationImageSequence = [derivation]
    return own


def stored(dataset: Dataset) -> Dataset:
    """Write and read back: what the node gets."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    buffer.seek(0)
    return pydicom.dcmread(buffer)


def copied(dataset: Dataset, **changes: object) -> Dataset:
    """A copy under a new SOP Instance UID that keeps everything else."""
    copy = deepcopy(dataset)
    copy.SOPInstanceUID = generate_uid()
    for name, value in changes.items():
        setattr(copy, name, value)
    return stored(copy)


def without_group(report: Dataset, tracking_uid: str) -> Dataset:
    """A report without the measurement groups of one region."""
    copy = deepcopy(report)
    for item in copy.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "126010":
            item.ContentSequence = [
                group for group in item.ContentSequence if tracking_of(group) != tracking_uid
            ]
    return copy


def tracking_of(group: Dataset) -> str:
    for item in group.get("ContentSequence", ()):
        if item.ConceptNameCodeSequence[0].CodeValue == "112040":
            return str(item.UID)
    return ""


def groups_of(report: Dataset, tracking_uid: str) -> list[Dataset]:
    """The measurement groups of one region, to be changed in place."""
    return [
        group
        for item in report.ContentSequence
        for group in item.get("ContentSequence", ())
        if tracking_of(group) == tracking_uid
    ]


def replaced(before: Dataset) -> list[Dataset]:
    """Value of Predecessor Documents Sequence of an object made from ``before`` (PS3.3 C.18.8)."""
    instance, in_series, in_study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = before.SOPClassUID
    instance.ReferencedSOPInstanceUID = before.SOPInstanceUID
    in_series.SeriesInstanceUID = before.SeriesInstanceUID
    in_series.ReferencedSOPSequence = [instance]
    in_study.StudyInstanceUID = before.StudyInstanceUID
    in_study.ReferencedSeriesSequence = [in_series]
    return [in_study]


def verified(report: Dataset, name: str = "Reader^Two") -> Dataset:
    """A report as a person verified it: a new instance that names the one it replaces."""
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = name, "Hospital"
    observer.VerificationDateTime = "20260204080000"
    return copied(
        report, VerificationFlag="VERIFIED", PredecessorDocumentsSequence=replaced(report),
        VerifyingObserverSequence=[observer],
    )  # fmt: skip


def key_object(scene: Scene, title: tuple[str, str, str], kinds: Sequence[str]) -> Dataset:
    """A key object selection document that names result objects."""
    dataset = _head(scene, OHIF)
    for name in ("SegmentationType", "FrameOfReferenceUID", "ReferencedSeriesSequence"):
        delattr(dataset, name)
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.88.59", "KO"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [code(title)]
    dataset.ContentSequence = []
    for one in scene.sent:
        if one.kind in kinds:
            item, reference = Dataset(), Dataset()
            item.RelationshipType, item.ValueType = "CONTAINS", "COMPOSITE"
            reference.ReferencedSOPClassUID = one.sop_class_uid
            reference.ReferencedSOPInstanceUID = one.sop_instance_uid
            item.ReferencedSOPSequence = [reference]
            dataset.ContentSequence.append(item)
    return stored(dataset)
