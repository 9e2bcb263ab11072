"""Data sets to bytes: Explicit VR Little Endian, Part 10, with elements copied byte for byte.

pydicom re-encodes text when a data set changes its home; identity must not be re-encoded (a wrong
declaration of the character set would change it). So elements copied from the source are kept
beside the data set, as bytes, and merged when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, STR_VR

from dicom_node.results.equipment import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

Verbatim = Mapping[BaseTag, RawDataElement]
"""Elements of the source to be written as they are, by tag."""

_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"})
"""VRs whose bytes depend on the byte order."""


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    return buffer


def raw_element(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    """Return an element that is written with exactly these value bytes (padded to even length)."""
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def copied_element(source: Dataset, keyword: str) -> RawDataElement | None:
    """Return an element of ``source`` as it was received (None: absent), sequences included."""
    tag = BaseTag(Tag(keyword))
    if tag not in source:
        return None
    element: Any = source.get_item(tag)
    vr = dictionary_VR(tag)
    if vr == "SQ":
        return sequence_element(tag, [_copied_item(item) for item in source[tag].value])
    if isinstance(element, RawDataElement):
        return raw_element(tag, vr, element.value or b"")
    return raw_element(tag, vr, _value_bytes(source, source[tag]))


def sequence_element(tag: BaseTag, items: list[bytes]) -> RawDataElement:
    """Return a sequence of encoded items, with explicit lengths."""
    body = b"".join(b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item for item in items)
    return raw_element(tag, "SQ", body)


def _copied_item(item: Dataset) -> bytes:
    copies = {
        element.tag: _copied_any(item, element.tag)
        for element in item.elements()
        if not element.tag.is_private
    }
    return encode_elements(Dataset(), copies)


def _copied_any(item: Dataset, tag: BaseTag) -> RawDataElement:
    element: Any = item.get_item(tag)
    if isinstance(element, RawDataElement):
        vr = _vr_of(element)
        if vr in STR_VR or (vr in _NUMBERS and element.is_little_endian):
            return raw_element(tag, vr, element.value or b"")
    converted = item[tag]
    if converted.VR == "SQ":
        return sequence_element(tag, [_copied_item(child) for child in converted.value])
    return raw_element(tag, converted.VR, _value_bytes(item, converted))


def _vr_of(element: RawDataElement) -> str:
    """Return the VR of an element as received: Implicit VR writes none, some write UN."""
    if element.VR not in (None, "UN") or not dictionary_has_tag(element.tag):
        return element.VR or "UN"
    return dictionary_VR(element.tag)


def _value_bytes(source: Dataset, element: DataElement) -> bytes:
    """Value bytes of an element that was decoded before: encoded in the source's character set."""
    buffer = _buffer()
    is_text = element.VR in CUSTOMIZABLE_CHARSET_VR
    write_data_element(
        buffer, element, source.get("SpecificCharacterSet", "iso8859") if is_text else "iso8859"
    )
    header = 12 if element.VR in ("OB", "OW", "UN", "UT", "UC", "UR", "SQ") else 8
    return bytes(buffer.getvalue()[header:])


def encode_elements(dataset: Dataset, verbatim: Verbatim) -> bytes:
    """Encode the elements of a data set (ASCII text only) with ``verbatim`` merged in."""
    buffer = _buffer()
    for tag in sorted({*dataset.keys(), *verbatim}):
        element: Any = verbatim.get(tag)
        if element is None:
            element = dataset[tag]
            if element.VR == "SQ":
                items = [encode_elements(item, {}) for item in element.value]
                element = sequence_element(tag, items)
        write_data_element(buffer, element, "iso8859")
    return bytes(buffer.getvalue())


def part10(sop_class_uid: str, sop_instance_uid: str, body: bytes) -> bytes:
    """Return a complete file around an encoded data set (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    buffer = _buffer()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return bytes(buffer.getvalue()) + body


def replace_uids(dataset: Dataset, uids: Mapping[str, str]) -> None:
    """Replace UIDs everywhere in a data set, in place."""
    for element in _all_elements(dataset):
        if element.VR != "UI":
            continue
        value = element.value
        if isinstance(value, str):
            element.value = uids.get(str(value), value)
        elif value:
            element.value = [uids.get(str(uid), uid) for uid in value]


def _all_elements(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _all_elements(item)
