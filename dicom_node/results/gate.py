"""The output gate: every object is read back and checked before anything may be sent.

It holds what validators of single files cannot know: that an object belongs to this patient and
study, refers only to what is there, agrees with the other objects of its set, and puts every voxel
where the analysis put it in the patient.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.utils import unpack_bits

from ai_core.geometry import index_of_lps
from ai_core.types import Geometry
from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.errors import NodeError
from dicom_node.results import codes
from dicom_node.results.encode import copied_element
from dicom_node.results.header import IDENTITY, TYPE_2, SourceImages
from dicom_node.results.request import Analysed, ResultObject, ResultRequest
from dicom_node.results.seg import Segment

_POSITION_TOLERANCE_VOXELS = 0.2
"""Slices jitter by hundredths of a millimetre; half a voxel would put a mask elsewhere."""
_DIRECTION_TOLERANCE = 1e-3


class GateError(NodeError):
    """A result object did not pass the checks before sending; nothing of its set may be sent."""

    reason = Reason.OUTPUT_GATE

    def __init__(self, detail: str) -> None:
        text = REASONS[Reason.OUTPUT_GATE]
        super().__init__(f"{text.message} {detail}", text.advice)
        self.detail = detail


def check_objects(
    objects: Sequence[ResultObject],
    request: ResultRequest,
    sources: SourceImages,
    segments: Mapping[str, Sequence[Segment]],
) -> None:
    """Check the encoded objects of one result set.

    Args:
        objects: what is about to be handed out.
        request: what they were made from.
        sources: the source images of the request.
        segments: the masks by kind of segmentation.

    Raises:
        GateError: with the first thing that is wrong.
    """
    files = [(made, pydicom.dcmread(io.BytesIO(made.data))) for made in objects]
    known = _known_instances(files, request, sources)
    for made, dataset in files:
        _check_identity(made, dataset, sources)
        _check_references(made, dataset, known)
    for made, dataset in files:
        if made.kind in segments:
            _check_segmentation(made.kind, dataset, request, sources, segments[made.kind])
        if made.kind == "sr":
            _check_report(dataset, request, segments, [d for m, d in files if m.kind in segments])


def _require(condition: object, detail: str) -> None:
    if not condition:
        raise GateError(detail)


# --- identity and references -----------------------------------------------------------------


def _check_identity(made: ResultObject, dataset: Dataset, sources: SourceImages) -> None:
    for keyword in IDENTITY:
        given = copied_element(sources.base, keyword)
        written = copied_element(dataset, keyword)
        expected = given.value if given else (b"" if keyword in TYPE_2 else None)
        found = written.value if written else None
        _require(expected == found, f"{made.kind}: {keyword} differs from the source images.")
    _require(
        (dataset.SOPInstanceUID, dataset.SOPClassUID, dataset.SeriesInstanceUID)
        == (made.sop_instance_uid, made.sop_class_uid, made.series_uid),
        f"{made.kind}: the file does not carry the UIDs it is known by.",
    )


def _known_instances(
    files: Sequence[tuple[ResultObject, Dataset]], request: ResultRequest, sources: SourceImages
) -> set[str]:
    images = [sources.base, *request.sources, *request.other_sources]
    known = {str(image.SOPInstanceUID) for image in images}
    known |= {str(dataset.SOPInstanceUID) for _, dataset in files}
    if request.predecessor:
        known.add(request.predecessor.sop_instance_uid)
    return known


def _check_references(made: ResultObject, dataset: Dataset, known: set[str]) -> None:
    for uid in _referenced(dataset):
        _require(uid in known, f"{made.kind}: refers to {uid}, which is not part of this study.")


def _referenced(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.keyword == "ReferencedStudySequence":
            continue  # names studies, not images; copied from the order
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ":
            for item in element.value:
                yield from _referenced(item)


# --- segmentations ---------------------------------------------------------------------------


def _check_segmentation(
    kind: str,
    dataset: Dataset,
    request: ResultRequest,
    sources: SourceImages,
    segments: Sequence[Segment],
) -> None:
    assert isinstance(request.outcome, Analysed)  # noqa: S101 - segments exist only then
    geometry = request.outcome.result.geometry
    first = request.sources[0]
    _require(
        dataset.FrameOfReferenceUID == first.FrameOfReferenceUID,
        f"{kind}: another frame of reference than the T2W.",
    )
    _require(
        dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID,
        f"{kind}: does not refer to the T2W series.",
    )
    _check_plane(kind, dataset, geometry)
    masks = masks_in_patient(dataset, geometry)
    _require(set(masks) == {s.number for s in segments}, f"{kind}: other segments than findings.")
    for segment in segments:
        _require(
            np.array_equal(masks[segment.number], segment.mask),
            f"{kind}: '{segment.label}' read back is not where it was found.",
        )


def _check_plane(kind: str, dataset: Dataset, geometry: Geometry) -> None:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    direction = np.asarray(geometry.direction)
    expected = np.concatenate([direction[:, 0], direction[:, 1]])
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    columns, rows = geometry.spacing_xyz_mm[0], geometry.spacing_xyz_mm[1]
    _require(
        np.allclose(np.asarray(orientation, dtype=float), expected, atol=_DIRECTION_TOLERANCE),
        f"{kind}: another orientation than the analysis.",
    )
    _require(
        np.allclose(spacing, [rows, columns], rtol=1e-4),
        f"{kind}: another pixel spacing than the analysis.",
    )


def masks_in_patient(dataset: Dataset, geometry: Geometry) -> dict[int, npt.NDArray[np.bool_]]:
    """Masks [z, y, x] by segment number, each frame put where its patient position says.

    Raises:
        GateError: a frame lies on no slice of the grid.
    """
    frames = int(dataset.NumberOfFrames)
    shape = (frames, int(dataset.Rows), int(dataset.Columns))
    bits = np.asarray(unpack_bits(dataset.PixelData))[: int(np.prod(shape))]
    frames_of_bits = bits.reshape(shape).astype(bool)
    masks: dict[int, npt.NDArray[np.bool_]] = {}
    for pixels, groups in zip(
        frames_of_bits, dataset.PerFrameFunctionalGroupsSequence, strict=True
    ):
        x, y, z = (float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient)
        index = index_of_lps(geometry, (x, y, z))
        nearest = (round(index[0]), 0, 0)
        on_grid = np.abs(np.subtract(index, nearest)).max() <= _POSITION_TOLERANCE_VOXELS
        _require(
            on_grid and 0 <= nearest[0] < geometry.size_xyz[2] and pixels.shape == shape[1:],
            "a segmentation frame lies on no T2W slice.",
        )
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        mask = masks.setdefault(number, np.zeros(geometry.shape_zyx, dtype=bool))
        mask[nearest[0]] |= pixels
    return masks


# --- the report ------------------------------------------------------------------------------


def _check_report(
    dataset: Dataset,
    request: ResultRequest,
    segments: Mapping[str, Sequence[Segment]],
    segmentations: Sequence[Dataset],
) -> None:
    items = [item for part in _measurements(dataset) for item in content_items(part)]
    numbers = [item for item in items if item.ValueType == "NUM"]
    _require(
        all(item.get("ContentSequence") for item in numbers),
        "sr: a number says nothing of the algorithm that made it.",
    )
    if not isinstance(request.outcome, Analysed):
        _check_says_nothing(dataset, items, numbers)
        return
    tracked = {
        str(item.UID)
        for item in items
        if item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == "112040"
    }
    segmented = {str(s.TrackingUID) for seg in segmentations for s in seg.SegmentSequence}
    _require(tracked == segmented, "sr: tracking UIDs differ from those of the segmentations.")
    outlines = sum(item.ValueType == "SCOORD" for item in items)
    expected = sum(len(parts) for parts in segments.values())
    _require(outlines >= expected, "sr: a region has no outline.")


def _check_says_nothing(
    dataset: Dataset, items: Sequence[Dataset], numbers: Sequence[Dataset]
) -> None:
    """Hold a report without a result that reads like a negative one."""
    values = {i.ConceptCodeSequence[0].CodeValue for i in items if i.ValueType == "CODE"}
    _require(
        not numbers and codes.ABSENT.value not in values and dataset.CompletionFlag == "PARTIAL",
        "sr: a study that was not analysed reads as if it had a result.",
    )


def _measurements(dataset: Dataset) -> list[Dataset]:
    """Return the containers of measurements; the image library may have numbers of its own."""
    return [
        part
        for part in dataset.ContentSequence
        if part.ValueType == "CONTAINER" and part.ConceptNameCodeSequence[0].CodeValue == "126010"
    ]


def content_items(dataset: Dataset) -> Iterator[Dataset]:
    """All content items of a report, from the root downwards."""
    for item in dataset.get("ContentSequence") or []:
        yield item
        yield from content_items(item)
