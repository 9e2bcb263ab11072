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
from dicom_node.domain.profile import ResultKind
from dicom_node.results.encode import copied_element
from dicom_node.results.gate_report import GateError, check_codes, check_report, require
from dicom_node.results.header import IDENTITY, TYPE_2, SourceImages
from dicom_node.results.request import Analysed, ResultObject, ResultRequest
from dicom_node.results.seg import Segment

__all__ = ["GateError", "check_objects", "masks_in_patient"]

_POSITION_TOLERANCE_VOXELS = 0.2
"""Slices jitter by hundredths of a millimetre; half a voxel would put a mask elsewhere."""
_DIRECTION_TOLERANCE = 1e-3


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
        check_codes(made.kind, dataset)
        if made.kind in segments:
            _check_segmentation(made.kind, dataset, request, segments[made.kind])
        if made.kind == ResultKind.PARAMETRIC_MAP:
            _check_map(dataset, request)
        if made.kind == ResultKind.PDF:
            require(dataset.EncapsulatedDocument.startswith(b"%PDF-"), "pdf: not a PDF document.")
    segmentations = {made.kind: dataset for made, dataset in files if made.kind in segments}
    for made, dataset in files:
        if made.kind == ResultKind.SR:
            check_report(made.variant, dataset, (request, sources), segments, segmentations)


# --- identity and references -----------------------------------------------------------------


def _check_identity(made: ResultObject, dataset: Dataset, sources: SourceImages) -> None:
    for keyword in IDENTITY:
        given = copied_element(sources.base, keyword)
        written = copied_element(dataset, keyword)
        expected = given.value if given else (b"" if keyword in TYPE_2 else None)
        found = written.value if written else None
        require(expected == found, f"{made.kind}: {keyword} differs from the source images.")
    require(
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
    known |= {earlier.sop_instance_uid for earlier in request.earlier}
    return known


def _check_references(made: ResultObject, dataset: Dataset, known: set[str]) -> None:
    for uid in _referenced(dataset):
        require(uid in known, f"{made.kind}: refers to {uid}, which is not part of this study.")


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
    kind: str, dataset: Dataset, request: ResultRequest, segments: Sequence[Segment]
) -> None:
    geometry = _check_place(kind, dataset, request)
    masks = masks_in_patient(dataset, geometry)
    require(set(masks) == {s.number for s in segments}, f"{kind}: other segments than findings.")
    for segment in segments:
        require(
            np.array_equal(masks[segment.number], segment.mask),
            f"{kind}: '{segment.label}' read back is not where it was found.",
        )


def _check_place(kind: str, dataset: Dataset, request: ResultRequest) -> Geometry:
    """Check frame of reference, series and plane; returns the grid of the analysis."""
    assert isinstance(request.outcome, Analysed)  # noqa: S101 - such objects exist only then
    geometry = request.outcome.result.geometry
    first = request.sources[0]
    require(
        dataset.FrameOfReferenceUID == first.FrameOfReferenceUID,
        f"{kind}: another frame of reference than the T2W.",
    )
    require(
        dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID,
        f"{kind}: does not refer to the T2W series.",
    )
    _check_plane(kind, dataset, geometry)
    return geometry


def _check_map(dataset: Dataset, request: ResultRequest) -> None:
    """Check that the values of the map lie in the patient where the analysis had them."""
    assert isinstance(request.outcome, Analysed)  # noqa: S101 - such objects exist only then
    geometry = _check_place("parametric-map", dataset, request)
    shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
    values = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(shape)
    found = np.full(geometry.shape_zyx, np.nan, dtype=np.float32)
    for pixels, groups in zip(values, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        found[_slice_of(groups, geometry)] = pixels
    expected = np.clip(request.outcome.result.likelihood, 0.0, 1.0).astype(np.float32)
    require(np.array_equal(found, expected), "parametric-map: read back it is not what was found.")


def _check_plane(kind: str, dataset: Dataset, geometry: Geometry) -> None:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    direction = np.asarray(geometry.direction)
    expected = np.concatenate([direction[:, 0], direction[:, 1]])
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    columns, rows = geometry.spacing_xyz_mm[0], geometry.spacing_xyz_mm[1]
    require(
        np.allclose(np.asarray(orientation, dtype=float), expected, atol=_DIRECTION_TOLERANCE),
        f"{kind}: another orientation than the analysis.",
    )
    require(
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
        z = _slice_of(groups, geometry)
        require(pixels.shape == geometry.shape_zyx[1:], "a frame has another size than the T2W.")
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        mask = masks.setdefault(number, np.zeros(geometry.shape_zyx, dtype=bool))
        mask[z] |= pixels
    return masks


def _slice_of(groups: Dataset, geometry: Geometry) -> int:
    """Return the slice of the grid on which a frame lies; GateError where on none."""
    x, y, z = (float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient)
    index = index_of_lps(geometry, (x, y, z))
    nearest = round(index[0])
    on_grid = np.abs(np.subtract(index, (nearest, 0, 0))).max() <= _POSITION_TOLERANCE_VOXELS
    require(
        on_grid and 0 <= nearest < geometry.size_xyz[2],
        "a segmentation frame lies on no T2W slice.",
    )
    return nearest
