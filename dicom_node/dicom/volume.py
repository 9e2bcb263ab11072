"""Volumes of a study: pixels decoded, values mapped, slices in order, geometry in LPS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ai_core.types import Case, DceSeries, DwiVolume, Geometry, Vector3, Volume
from dicom_node.dicom.diffusion import real_world_mapping
from dicom_node.dicom.frames import Frame
from dicom_node.dicom.pixels import decode_slice
from dicom_node.dicom.select import Selection
from dicom_node.dicom.stacks import Stack
from dicom_node.domain.reasons import Reason
from dicom_node.errors import InputProblem

Load = Callable[[str], Dataset]
_MAX_SHEAR_MM = 1.0


def build_case(selection: Selection, load: Load) -> Case:
    """Read the pixels of the chosen series.

    Args:
        selection: what ``select`` chose.
        load: SOP Instance UID to the data set with pixel data and file meta information.

    Raises:
        InputProblem: the selection has a problem, or images cannot be read (which one).
    """
    if selection.problem is not None or selection.t2w is None:
        raise InputProblem(selection.problem or Reason.NO_T2W, selection.detail)
    reader = _Reader(load)
    dwi = tuple(_dwi(reader, stack) for stack in selection.dwi)
    high_b = None
    if selection.high_b is not None:
        high_b = _dwi(reader, selection.high_b, computed=selection.high_b_computed)
    dce = None
    if selection.dce:
        phases = tuple(reader.volume(stack) for stack in selection.dce)
        dce = DceSeries(phases, selection.dce_times_s)
    return Case(
        t2w=reader.volume(selection.t2w),
        adc=reader.volume(selection.adc, real_world=True) if selection.adc else None,
        adc_to_um2_s=selection.adc_to_um2_s,
        dwi=dwi,
        high_b=high_b,
        dce=dce,
    )


def _dwi(reader: _Reader, stack: Stack, *, computed: bool = False) -> DwiVolume:
    return DwiVolume(reader.volume(stack), stack.b_value or 0.0, computed)


class _Reader:
    """Reads stacks; a stack in two roles is decoded once, a multi-frame file is opened once."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._uid = ""
        self._dataset = Dataset()
        self._volumes: dict[tuple[object, ...], Volume] = {}

    def volume(self, stack: Stack, *, real_world: bool = False) -> Volume:
        """Read one stack as float32 [z, y, x], z along the slice normal."""
        key = (*stack.refs, real_world)
        if key not in self._volumes:
            geometry = stack_geometry(stack)
            array = np.empty(geometry.shape_zyx, dtype=np.float32)
            for z, frame in enumerate(stack.frames):
                slope, intercept = value_mapping(frame, real_world=real_world)
                array[z] = self._slice(frame)
                if (slope, intercept) != (1.0, 0.0):
                    array[z] = array[z] * np.float32(slope) + np.float32(intercept)
            self._volumes[key] = Volume(array, geometry)
        return self._volumes[key]

    def _slice(self, frame: Frame) -> npt.NDArray[np.float32]:
        uid = frame.header.sop_instance_uid
        if uid != self._uid:
            self._dataset, self._uid = self._load(uid), uid
        decoded = decode_slice(self._dataset, frame.index)
        if decoded.shape != (frame.header.rows, frame.header.columns):
            text = f"Image {uid}: its matrix differs from the one received."
            raise InputProblem(Reason.CORRUPT_PIXEL_DATA, text)
        return decoded


def value_mapping(frame: Frame, *, real_world: bool) -> tuple[float, float]:
    """Slope and intercept from stored to output values: real world (ADC only), else rescale."""
    if real_world and (mapping := real_world_mapping(frame)) is not None:
        return mapping.slope, mapping.intercept
    header, record = frame.header, frame.record
    slope = record.rescale_slope if record else None
    intercept = record.rescale_intercept if record else None
    slope = slope if slope is not None else header.rescale_slope
    intercept = intercept if intercept is not None else header.rescale_intercept
    return slope or 1.0, intercept or 0.0


def stack_geometry(stack: Stack) -> Geometry:
    """Grid of a stack: x along rows, y along columns, z along row x column.

    Raises:
        InputProblem: the slices do not lie above one another (sheared stack).
    """
    first, last = stack.frames[0], stack.frames[-1]
    # the cosines are rounded decimal text: made orthonormal again (Gram-Schmidt)
    row = np.asarray(first.iop[:3]) / np.linalg.norm(first.iop[:3])
    column = np.asarray(first.iop[3:]) - np.dot(first.iop[3:], row) * row
    column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    steps = max(len(stack.frames) - 1, 1)
    way = np.asarray(last.ipp) - np.asarray(first.ipp)
    shear_mm = float(np.linalg.norm(way - np.dot(way, normal) * normal))
    if shear_mm > _MAX_SHEAR_MM:
        text = f"Series {stack.description!r}: slices are shifted sideways by {shear_mm:.1f} mm."
        raise InputProblem(Reason.GEOMETRY_UNREADABLE, text)
    spacing = float(np.dot(way, normal)) / steps if len(stack.frames) > 1 else 0.0
    return Geometry(
        size_xyz=(first.header.columns or 0, first.header.rows or 0, len(stack.frames)),
        spacing_xyz_mm=(first.spacing[1], first.spacing[0], spacing or stack.slice_spacing_mm),
        origin_lps_mm=_vector(first.ipp),
        direction=(
            _vector((row[0], column[0], normal[0])),
            _vector((row[1], column[1], normal[1])),
            _vector((row[2], column[2], normal[2])),
        ),
    )


def _vector(values: tuple[float, ...]) -> Vector3:
    x, y, z = values
    return (float(x), float(y), float(z))
