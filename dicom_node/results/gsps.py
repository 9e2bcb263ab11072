"""Outlines as a Grayscale Softcopy Presentation State (PS3.3 A.33.1).

For viewers that draw neither segmentations nor the graphics of reports: the gland and every
finding, outlined on each T2W slice, one layer each.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom import pr
from pydicom.dataset import Dataset

from ai_core.types import Volume
from dicom_node.domain.profile import ResultKind
from dicom_node.results.contour import outlines, slice_of_largest_area
from dicom_node.results.equipment import CREATOR_NAME, MANUFACTURER, MODEL_NAME
from dicom_node.results.header import SourceImages
from dicom_node.results.request import Analysed, ResultRequest
from dicom_node.results.seg import Segment, gland_segments, lesion_segments
from dicom_node.results.series import SERIES, instance_role, series_description, series_role
from dicom_node.results.uids import Draft, placeholder, without_times

KIND = ResultKind.PRESENTATION_STATE
_FEWEST_POINTS = 3


def draft_presentation_state(
    outcome: Analysed, request: ResultRequest, sources: SourceImages
) -> Draft:
    """Return the outlines of gland and findings on the T2W images."""
    segments = [*gland_segments(outcome.result), *lesion_segments(outcome.result)]
    layers = [_layer(order, segment) for order, segment in enumerate(segments, start=1)]
    annotations = [
        annotation
        for segment, layer in zip(segments, layers, strict=True)
        for annotation in _annotations(segment, layer, sources)
    ]
    dataset = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=list(sources.templates),
        series_instance_uid=placeholder(series_role(KIND)),
        series_number=SERIES[KIND].number,
        sop_instance_uid=placeholder(instance_role(KIND)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=request.software_version,
        device_serial_number=request.installation_id,
        content_label="AI_CONTOURS",
        content_description=SERIES[KIND].description,
        content_creator_name=CREATOR_NAME,
        graphic_annotations=annotations,
        graphic_layers=layers,
        modality_lut_transformation=_modality_lut(request.sources[0]),
        voi_lut_transformations=_windows(request.sources, outcome.images.t2w),
        series_description=series_description(KIND, request),
    )
    without_times(dataset)
    dataset.BodyPartExamined = "PROSTATE"
    return Draft(KIND, dataset, sources.verbatim, (instance_role(KIND), series_role(KIND)))


def _layer(order: int, segment: Segment) -> pr.GraphicLayer:
    return pr.GraphicLayer(
        layer_name="AI_GLAND" if order == 1 else f"AI_LESION_{order - 1}",
        order=order,
        description=segment.label,
        display_color=hd.color.CIELabColor.from_rgb(*segment.rgb),
    )


def _annotations(
    segment: Segment, layer: pr.GraphicLayer, sources: SourceImages
) -> list[pr.GraphicAnnotation]:
    """Outlines of a segment slice by slice; its name stands on the slice of largest area."""
    largest = slice_of_largest_area(segment.mask)
    found = []
    for z in np.flatnonzero(segment.mask.any(axis=(1, 2))):
        # origin of the coordinates: the corner of the first pixel (PS3.3 C.10.5.1.1)
        contours = [points + 0.5 for points in outlines(segment.mask[z])]
        graphics = [
            pr.GraphicObject(
                graphic_type=pr.GraphicTypeValues.POLYLINE,
                graphic_data=np.round(points, 3),
                units=pr.AnnotationUnitsValues.PIXEL,
                tracking_id=segment.label,
                tracking_uid=segment.tracking_uid,
            )
            for points in contours
            if len(points) > _FEWEST_POINTS
        ]
        texts = [_label(segment, contours[0])] if z == largest else None
        frame = sources.references[z].frame_number
        found.append(
            pr.GraphicAnnotation(
                referenced_images=[sources.templates[0 if frame is not None else z]],
                graphic_layer=layer,
                referenced_frame_number=frame,
                graphic_objects=graphics,
                text_objects=texts,
            )
        )
    return found


def _label(segment: Segment, points: npt.NDArray[np.float64]) -> pr.TextObject:
    column, row = points[np.argmin(points[:, 1])]
    return pr.TextObject(
        text_value=segment.label,
        units=pr.AnnotationUnitsValues.PIXEL,
        anchor_point=(round(float(column), 3), round(float(row), 3)),
        anchor_point_visible=False,
        tracking_id=segment.label,
        tracking_uid=segment.tracking_uid,
    )


def _modality_lut(image: Dataset) -> hd.ModalityLUTTransformation | None:
    """Return the rescaling of the images: windows count on its output (PS3.3 C.11.1)."""
    rescaling = _rescaling(image)
    slope, intercept = rescaling.get("RescaleSlope"), rescaling.get("RescaleIntercept")
    if slope is None or intercept is None:
        return None
    return hd.ModalityLUTTransformation(
        rescale_intercept=float(intercept), rescale_slope=float(slope), rescale_type="US"
    )


def _rescaling(image: Dataset) -> Dataset:
    """Return what holds the rescaling: of a multi-frame image a functional group, of one frame."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        first: Dataset = next(iter(image.get(groups) or []), Dataset())
        if rescaling := first.get("PixelValueTransformationSequence"):
            return Dataset(rescaling[0])
    return image


def _windows(images: Sequence[Dataset], t2w: Volume) -> list[pr.SoftcopyVOILUTTransformation]:
    """Return the window of the first image that has one, else one from the grey values.

    A presentation state without would be shown over the full range of values: nearly black.
    """
    for image in images:
        centre, width = image.get("WindowCenter"), image.get("WindowWidth")
        if centre is not None and width is not None and image.get("Rows"):
            first = [float(np.atleast_1d(np.asarray(v, dtype=float))[0]) for v in (centre, width)]
            return [pr.SoftcopyVOILUTTransformation(first[0], first[1])]
    low, high = np.percentile(t2w.array.astype(np.float64), (1.0, 99.5))
    centre, width = float(low + high) / 2, max(float(high - low), 1.0)
    return [pr.SoftcopyVOILUTTransformation(round(centre, 1), round(width, 1))]
