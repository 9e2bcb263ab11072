"""DICOM Segmentation objects on the exact T2W grid (PS3.3 A.51): BINARY, one per subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from ai_core.types import CaseResult, Finding, ReleaseInfo
from dicom_node.domain.profile import ResultKind
from dicom_node.results import codes, text
from dicom_node.results.equipment import CREATOR_NAME, MANUFACTURER, MODEL_NAME
from dicom_node.results.header import SourceImages, image_verbatim
from dicom_node.results.request import ResultRequest
from dicom_node.results.series import SERIES, instance_role, series_description, series_role
from dicom_node.results.uids import Draft, placeholder, without_times

Mask = npt.NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)

GLAND = ResultKind.SEG_GLAND
LESIONS = ResultKind.SEG_LESIONS
ZONES = ResultKind.SEG_ZONES

_CONTENT_LABEL = {LESIONS: "AI_LESIONS", GLAND: "AI_GLAND", ZONES: "AI_ZONES"}

GLAND_RGB = (60, 180, 255)
_ZONES = (
    (1, "Peripheral zone", codes.PERIPHERAL_ZONE, (90, 200, 120)),
    (2, "Transition zone", codes.TRANSITION_ZONE, (200, 160, 255)),
)
"""Label in the zones of a result, name, code, colour."""
LESION_RGB = ((255, 60, 60), (255, 170, 0), (255, 220, 60), (255, 120, 200))
"""Colours by rank; later ranks share the last."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One region: its mask [z, y, x] on the T2W grid and how it is called and coded."""

    number: int
    label: str
    description: str
    mask: Mask
    category: Code
    type: Code
    regions: tuple[Code, ...]
    rgb: tuple[int, int, int]
    tracking_role: str

    @property
    def tracking_uid(self) -> str:
        """Placeholder of the UID under which segment and report items belong together."""
        return placeholder(self.tracking_role)


def lesion_rgb(rank: int) -> tuple[int, int, int]:
    """Colour of the finding of this rank (1: most suspicious)."""
    return LESION_RGB[min(rank, len(LESION_RGB)) - 1]


def gland_segments(result: CaseResult) -> tuple[Segment, ...]:
    """Return the whole gland as one segment."""
    segment = Segment(
        number=1, label="Prostate", description="Whole gland", mask=result.gland_mask > 0,
        category=codes.ANATOMICAL_STRUCTURE, type=codes.PROSTATE, regions=(), rgb=GLAND_RGB,
        tracking_role=f"{GLAND}/tracking",
    )  # fmt: skip
    return (segment,)


def lesion_segments(result: CaseResult) -> tuple[Segment, ...]:
    """One segment for each finding, numbered in the order of the findings."""
    return tuple(
        _lesion_segment(number, finding, result)
        for number, finding in enumerate(result.findings, start=1)
    )


def _lesion_segment(number: int, finding: Finding, result: CaseResult) -> Segment:
    return Segment(
        number=number, label=f"Lesion {finding.rank}",
        description=text.index_words(finding, result.release),
        mask=result.lesions == finding.rank,
        category=codes.ABNORMAL_STRUCTURE, type=codes.LESION, regions=(codes.PROSTATE,),
        rgb=lesion_rgb(finding.rank), tracking_role=f"{LESIONS}/tracking/{finding.rank}",
    )  # fmt: skip


def zone_segments(result: CaseResult) -> tuple[Segment, ...]:
    """Return the zones of the gland that have voxels; they do not overlap."""
    found = [zone for zone in _ZONES if (result.zones == zone[0]).any()]
    return tuple(
        Segment(
            number=number, label=name, description=f"{name} of the prostate",
            mask=result.zones == label, category=codes.ANATOMICAL_STRUCTURE, type=code,
            regions=(codes.PROSTATE,), rgb=rgb, tracking_role=f"{ZONES}/tracking/{label}",
        )
        for number, (label, name, code, rgb) in enumerate(found, start=1)
    )  # fmt: skip


def draft_segmentation(
    kind: ResultKind, segments: Sequence[Segment], request: ResultRequest, sources: SourceImages,
    release: ReleaseInfo,
) -> Draft:  # fmt: skip
    """Return a Segmentation of these segments, with placeholder UIDs.

    Raises:
        ValueError: a segment is empty; an empty segmentation must never be written.
    """
    if not segments or not all(segment.mask.any() for segment in segments):
        raise ValueError(f"{kind}: every segment needs at least one voxel")
    roles = (instance_role(kind), series_role(kind), f"{kind}/dimensions")
    dataset = hd.seg.Segmentation(
        source_images=list(sources.templates),
        pixel_array=stack_for(
            sources, np.stack([s.mask for s in segments], axis=-1).astype(np.uint8)
        ),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(segment, release, request) for segment in segments],
        series_instance_uid=placeholder(roles[1]),
        series_number=SERIES[kind].number,
        sop_instance_uid=placeholder(roles[0]),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=request.software_version,
        device_serial_number=request.installation_id,
        content_label=_CONTENT_LABEL[kind],
        content_description=SERIES[kind].description,
        content_creator_name=CREATOR_NAME,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=True,
        series_description=series_description(kind, request),
    )
    _complete(dataset, sources, placeholder(roles[2]))
    return Draft(kind, dataset, image_verbatim(sources), roles)


def stack_for(sources: SourceImages, stacked: npt.NDArray[_T]) -> npt.NDArray[_T]:
    """Return an array [z, row, column, ...] with its first axis as the source's frames lie."""
    if not sources.multi_frame:
        return stacked
    frames = int(sources.templates[0].NumberOfFrames)
    in_file_order = np.zeros((frames, *stacked.shape[1:]), dtype=stacked.dtype)
    for z, reference in enumerate(sources.references):
        in_file_order[(reference.frame_number or 1) - 1] = stacked[z]
    return in_file_order


def _description(
    segment: Segment, release: ReleaseInfo, request: ResultRequest
) -> hd.seg.SegmentDescription:
    description = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=segment.category,
        segmented_property_type=segment.type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=text.ascii_text(release.name),
            family=codes.ARTIFICIAL_INTELLIGENCE,
            version=text.ascii_text(release.version),
            source=MANUFACTURER,
            parameters={"weights-sha256": release.sha256, "settings": request.config_digest},
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.label,
        anatomic_regions=list(segment.regions) or None,
        display_color=hd.color.CIELabColor.from_rgb(*segment.rgb),
    )
    description.SegmentDescription = segment.description
    return description


def _complete(dataset: Dataset, sources: SourceImages, dimensions_uid: str) -> None:
    """Set what highdicom leaves out, draws by chance or places where viewers do not look."""
    without_times(dataset)
    dataset.BodyPartExamined = "PROSTATE"
    fix_dimensions(dataset, dimensions_uid)
    dataset["PixelData"].VR = "OB"  # PS3.5 8.1.1: bits packed in bytes, not words
    _identify_segments_per_frame(dataset)
    keep_lossy(dataset, sources)


def fix_dimensions(dataset: Dataset, dimensions_uid: str) -> None:
    """Replace the dimension organization UID, which highdicom draws by chance."""
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimensions_uid
    for item in dataset.DimensionIndexSequence:
        item.DimensionOrganizationUID = dimensions_uid


def keep_lossy(dataset: Dataset, sources: SourceImages) -> None:
    """Say that the source was compressed with loss: once lossy, always (PS3.3 C.7.6.1.1.5)."""
    if str(sources.base.get("LossyImageCompression", "")) != "01":
        return
    dataset.LossyImageCompression = "01"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if sources.base.get(keyword) is not None:
            setattr(dataset, keyword, sources.base.get(keyword))


def _identify_segments_per_frame(dataset: Dataset) -> None:
    """Both places are legal (PS3.3 C.8.20.2); some viewers read the per-frame groups only."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" not in shared:
        return
    number = shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    del shared.SegmentIdentificationSequence
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.ReferencedSegmentNumber = number
        frame.SegmentIdentificationSequence = DicomSequence([item])
