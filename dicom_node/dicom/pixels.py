"""Decode one slice to float32, with sizes checked before a decoder sees the data."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, RLELossless

from dicom_node.domain.reasons import Reason
from dicom_node.errors import InputProblem

MAX_SLICE_PIXELS = 2**24
MAX_FRAMES = 20_000
# JPEG start-of-frame markers (ISO/IEC 10918-1 table B.1) and JPEG-LS (ISO/IEC 14495-1: FFF7)
_START_OF_FRAME = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


def decode_slice(dataset: Dataset, frame_index: int | None) -> npt.NDArray[np.float32]:
    """Decode the stored values of one slice.

    Args:
        dataset: with pixel data and file meta information (native, RLE, JPEG, JPEG-LS, JPEG 2000).
        frame_index: frame counted from 0; None for a single-frame image.

    Returns:
        Stored values [row, column] before any rescale.

    Raises:
        InputProblem: there is no pixel data, or it cannot be decoded (which image).
    """
    if "PixelData" not in dataset or not dataset.PixelData:
        raise InputProblem(Reason.NO_PIXEL_DATA, _which(dataset))
    shape = _declared_shape(dataset)
    syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
    if syntax.is_compressed:
        _check_codestream(dataset, syntax, frame_index or 0, shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks about padding; the shape is checked below
            array, _ = get_decoder(syntax).as_array(dataset, index=frame_index or 0)
    except Exception as error:  # each codec raises errors of its own
        text = " ".join(str(error).split())[:200]
        raise InputProblem(Reason.CORRUPT_PIXEL_DATA, f"{_which(dataset)}: {text}") from error
    if array.shape != shape:
        found = f"{_which(dataset)}: decoded to {array.shape}, the header says {shape}."
        raise InputProblem(Reason.CORRUPT_PIXEL_DATA, found)
    return array.astype(np.float32)


def _which(dataset: Dataset) -> str:
    return f"Image {dataset.get('SOPInstanceUID', 'without UID')}"


def _declared_shape(dataset: Dataset) -> tuple[int, int]:
    """Rows and columns, refused before anything of that size is allocated."""
    try:
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples, bits = dataset.get("SamplesPerPixel", 1), dataset.get("BitsAllocated")
    except Exception as error:  # a value that is none of its representation: many error types
        text = f"{_which(dataset)}: its image description cannot be read."
        raise InputProblem(Reason.CORRUPT_PIXEL_DATA, text) from error
    plain = samples == 1 and bits in (8, 16, 32)
    if rows * columns == 0 or rows * columns > MAX_SLICE_PIXELS or frames > MAX_FRAMES or not plain:
        text = f"{_which(dataset)}: {frames} frames of {rows} x {columns} pixels cannot be read."
        raise InputProblem(Reason.CORRUPT_PIXEL_DATA, text)
    return rows, columns


def _check_codestream(
    dataset: Dataset, syntax: UID, frame_index: int, shape: tuple[int, int]
) -> None:
    """Hold the size in the compressed frame against the header: a decoder trusts the former."""
    if syntax == RLELossless:
        return  # has no size of its own; its output is bounded by the header
    frames = int(dataset.get("NumberOfFrames") or 1)
    try:
        frame = get_frame(dataset.PixelData, frame_index, number_of_frames=frames)
    except (ValueError, EOFError, struct.error) as error:
        raise InputProblem(Reason.CORRUPT_PIXEL_DATA, f"{_which(dataset)}: {error}") from error
    found = codestream_shape(frame)
    if found != shape:
        text = f"{_which(dataset)}: the compressed frame says {found}, the header {shape}."
        raise InputProblem(Reason.CORRUPT_PIXEL_DATA, text)


def codestream_shape(frame: bytes) -> tuple[int, int] | None:
    """Read rows and columns from a JPEG, JPEG-LS or JPEG 2000 codestream, None if unreadable."""
    try:
        if frame[:2] == b"\xff\xd8":
            return _jpeg_shape(frame)
        # ISO/IEC 15444-1 A.4.1, A.5.1: SOC, then SIZ with the reference grid and its offset
        start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
        if start < 0:
            return None
        x, y, x0, y0 = struct.unpack_from(">4I", frame, start + 8)
        return y - y0, x - x0
    except struct.error:
        return None


def _jpeg_shape(frame: bytes) -> tuple[int, int] | None:
    offset = 2
    while offset + 9 <= len(frame):
        if frame[offset] != 0xFF or frame[offset + 1] == _START_OF_SCAN:
            return None
        marker = frame[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if marker in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", frame, offset + 5)
            return rows, columns
        offset += 2 + struct.unpack_from(">H", frame, offset + 2)[0]
    return None
