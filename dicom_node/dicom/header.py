"""The header of one instance, read from its bytes without decoding pixels."""

from __future__ import annotations

import hashlib
import mmap
import zlib
from pathlib import Path
from typing import Any

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.dicom.bvalue import directionality, named_b_value, tagged_b_value
from dicom_node.dicom.elements import (
    UNDEFINED,
    Buffer,
    Elements,
    Encoding,
    HeaderError,
    looks_explicit,
    scan,
)
from dicom_node.dicom.enhanced import multi_frame_fields, real_world_fields
from dicom_node.dicom.records import FrameRecord, InstanceHeader

__all__ = ["FrameRecord", "HeaderError", "InstanceHeader", "read_header"]

MAX_HEADER_BYTES = 64 * 2**20
MAX_TEXT = 1024

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
LEGACY_ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.4"
MULTI_FRAME_CLASSES = frozenset((ENHANCED_MR, LEGACY_ENHANCED_MR))

_ASCII = {
    "sop_class_uid": 0x00080016,
    "sop_instance_uid": 0x00080018,
    "study_uid": 0x0020000D,
    "series_uid": 0x0020000E,
    "modality": 0x00080060,
    "birth_date": 0x00100030,
    "patient_sex": 0x00100040,
    "body_part": 0x00180015,
    "study_date": 0x00080020,
    "study_time": 0x00080030,
    "frame_of_reference_uid": 0x00200052,
    "mr_acquisition_type": 0x00180023,
    "acquisition_date": 0x00080022,
    "acquisition_time": 0x00080032,
    "acquisition_datetime": 0x0008002A,
    "content_date": 0x00080023,
    "content_time": 0x00080033,
    "rescale_type": 0x00281054,
}
_TEXT = {
    "patient_id": 0x00100020,
    "issuer": 0x00100021,
    "patient_name": 0x00100010,
    "accession_number": 0x00080050,
    "study_description": 0x00081030,
    "series_description": 0x0008103E,
    "protocol_name": 0x00181030,
    "sequence_name": 0x00180024,
    "contrast_agent": 0x00180010,
    "manufacturer": 0x00080070,
    "model": 0x00081090,
    "device_serial": 0x00181000,
    "software": 0x00181020,
    "station": 0x00081010,
    "institution": 0x00080080,
}
_WORDS = {
    "image_type": 0x00080008,
    "scanning_sequence": 0x00180020,
    "sequence_variant": 0x00180021,
    "scan_options": 0x00180022,
}
_WHOLE = {
    "series_number": 0x00200011,
    "instance_number": 0x00200013,
    "acquisition_number": 0x00200012,
    "temporal_position": 0x00200100,
}
_DECIMAL = {
    "slice_thickness": 0x00180050,
    "spacing_between": 0x00180088,
    "echo_time": 0x00180081,
    "repetition_time": 0x00180080,
    "flip_angle": 0x00181314,
    "echo_train_length": 0x00180091,
    "trigger_time": 0x00181060,
    "temporal_resolution": 0x00200110,
    "field_strength_t": 0x00180087,
    "rescale_slope": 0x00281053,
    "rescale_intercept": 0x00281052,
}
_VECTORS = {
    "pixel_spacing": (0x00280030, 2),
    "iop": (0x00200037, 6),
    "ipp": (0x00200032, 3),
}
_SHORTS = {
    "rows": 0x00280010,
    "columns": 0x00280011,
    "bits_allocated": 0x00280100,
    "samples_per_pixel": 0x00280002,
}
_REQUIRED = ("sop_class_uid", "sop_instance_uid", "study_uid", "series_uid")
_ACCESSION = 0x00080050
_CHARACTER_SET = 0x00080005
# (b"": implicit VR); as a number, the name of the character set would break who reads the text
_TEXT_VRS = frozenset((b"", *b"CS UN LO SH ST LT UC UT AE".split(b" ")))


def read_header(data: bytes | Path, transfer_syntax_uid: str | None = None) -> InstanceHeader:
    """Read the header of one instance.

    Args:
        data: a Part 10 file (bytes or path), or a data set without file meta information.
        transfer_syntax_uid: needed for a data set without file meta information.

    Raises:
        HeaderError: the bytes are not a readable data set, or exceed a limit.
    """
    if isinstance(data, Path):
        return _read_path(data, transfer_syntax_uid)
    return _read(data, transfer_syntax_uid)


def _read_path(path: Path, transfer_syntax_uid: str | None) -> InstanceHeader:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise HeaderError("malformed", "the file is empty")
        # mapped: only the pages of the header are read, the pixel data stays on disk
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read(mapped, transfer_syntax_uid)


def _read(data: Buffer, transfer_syntax_uid: str | None) -> InstanceHeader:
    offset = 0
    if data[128:132] == b"DICM":  # PS3.10 section 7.1
        transfer_syntax_uid, offset = _file_meta(data)
    if not transfer_syntax_uid:
        raise HeaderError("not_dicom", "not a DICOM file: no file meta information")
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        data, offset = _inflate(data[offset:]), 0
    try:
        elements, _ = scan(
            data, offset, UNDEFINED, _encoding(data, offset, transfer_syntax_uid), top=True
        )
        return _header(elements, offset)
    except HeaderError:
        raise
    except (ValueError, IndexError, OverflowError) as error:
        raise HeaderError("malformed", f"the data set cannot be read: {error}") from error


def _file_meta(data: Buffer) -> tuple[str, int]:
    """Transfer syntax and offset of the data set of a Part 10 file."""
    meta = Encoding(True)
    length_element, _ = scan(data, 132, 12, meta)
    length = length_element.long(0x00020000)
    if length is None:
        raise HeaderError("malformed", "the file meta information has no group length")
    content, end = scan(data, 144, length, meta)
    return content.ascii(0x00020010), end


def _encoding(data: Buffer, offset: int, transfer_syntax_uid: str) -> Encoding:
    """Derive the encoding; a VR that is (not) there overrules a wrong declaration."""
    if transfer_syntax_uid == ExplicitVRBigEndian:
        return Encoding(True, ">")
    explicit = looks_explicit(data, offset)
    if explicit and transfer_syntax_uid == ImplicitVRLittleEndian:
        # as implicit VR these bytes would be a length of more than 16 kB for the first element
        return Encoding(True)
    return Encoding(explicit)


def _inflate(data: bytes) -> bytes:
    """PS3.5 A.5: raw deflate, no header. Bounded: a small stream can grow a thousandfold."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, MAX_HEADER_BYTES)
    except zlib.error as error:
        raise HeaderError("malformed", f"deflated data set is damaged: {error}") from error
    if inflater.unconsumed_tail:
        raise HeaderError("too_large", "the deflated data set is too large; send it uncompressed")
    return inflated


def _header(elements: Elements, start: int) -> InstanceHeader:
    end = elements.pixels.offset if elements.pixels else len(elements.data)
    if end - start > MAX_HEADER_BYTES:
        raise HeaderError("too_large", f"the header is larger than {MAX_HEADER_BYTES} bytes")
    if elements.index.get(_CHARACTER_SET, (0, 0, b""))[2] not in _TEXT_VRS:
        raise HeaderError("malformed", "the character set (0008,0005) is no text")
    values = _plain_fields(elements)
    missing = [name for name in _REQUIRED if not values.get(name)]
    if missing:
        raise HeaderError("missing_element", f"the data set has no {', '.join(missing)}")
    values["has_pixel_data"] = bool(elements.pixels and elements.pixels.length)
    values["number_of_frames"] = max(1, elements.whole(0x00280008) or 1)
    values["demographics_digest"] = _demographics(elements)
    if values["modality"] == "MR":
        values.update(_diffusion_fields(elements, values))
        values.update(real_world_fields(elements))
    if values["sop_class_uid"] in MULTI_FRAME_CLASSES:
        values.update(multi_frame_fields(elements, values))
    return InstanceHeader(**values)


def _plain_fields(elements: Elements) -> dict[str, Any]:
    charset = elements.ascii(_CHARACTER_SET)
    values: dict[str, Any] = {}
    for name, tag in _ASCII.items():
        values[name] = elements.ascii(tag)[:MAX_TEXT]
    for name, tag in _TEXT.items():
        values[name] = elements.text(tag, charset)[:MAX_TEXT] if tag in elements else ""
    for name, tag in _WORDS.items():
        values[name] = elements.words(tag)
    for name, tag in _WHOLE.items():
        values[name] = elements.whole(tag) if tag in elements else None
    for name, tag in _DECIMAL.items():
        values[name] = elements.decimal(tag) if tag in elements else None
    for name, tag in _SHORTS.items():
        values[name] = elements.short(tag)
    for name, (tag, count) in _VECTORS.items():
        numbers = elements.decimals(tag) if tag in elements else None
        values[name] = numbers if numbers and len(numbers) == count else None
    return values


def _diffusion_fields(elements: Elements, values: dict[str, Any]) -> dict[str, Any]:
    value, source = tagged_b_value(elements)
    if value is None:
        value, source = named_b_value(values["sequence_name"], values["series_description"])
    return {"b_value": value, "b_source": source, "directionality": directionality(elements)}


def _demographics(elements: Elements) -> str:
    """SHA-256 over the patient group and the accession number, values as received."""
    digest = hashlib.sha256()
    for tag in sorted(elements.index):
        if tag >> 16 == 0x0010 or tag == _ACCESSION:
            digest.update(tag.to_bytes(4, "big") + elements.raw(tag).strip(b" \0") + b"\0")
    return digest.hexdigest()
