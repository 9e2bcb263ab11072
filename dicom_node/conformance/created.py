"""What created objects contain, read from encoded objects of the samples.

Presence and source are in the words of PS3.2 Annex N: ALWAYS (with a value), VNAP (always, the
value may be empty), EMPTY (always empty), ANAP (only where it applies). Sources: COPY (from the
images, byte for byte or as geometry), FIXED (one value), AUTO (made by the node).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from pydicom import dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from dicom_node.conformance.document import Cell, Table
from dicom_node.conformance.sample import sample_requests
from dicom_node.conformance.services import class_name
from dicom_node.results.build import build_results
from dicom_node.results.header import read_sources, tolerant
from dicom_node.results.series import SERIES

_LONGEST_VALUE = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """One encoded object, and the image whose identity it carries."""

    kind: str
    variant: str
    dataset: Dataset
    source: Dataset

    @property
    def sop_class(self) -> str:
        """SOP Class UID."""
        return str(self.dataset.SOPClassUID)


@dataclass(frozen=True)
class Attribute:
    """An attribute of the objects of a kind: presence, source, and its value where fixed."""

    tag: int
    keyword: str
    vr: str
    presence: str
    source: str
    value: str

    def row(self) -> tuple[Cell, ...]:
        """Return the cells of a table of attributes."""
        tag = f"({self.tag >> 16:04X},{self.tag & 0xFFFF:04X})"
        return (self.keyword, tag, self.vr, self.presence, self.source, self.value)


ATTRIBUTE_COLUMNS = ("attribute", "tag", "VR", "presence", "source", "value")


@cache
def samples() -> tuple[Sample, ...]:
    """Encode the samples, once in a process."""
    made = []
    with tolerant():
        for request in sample_requests():
            source = read_sources(request).base
            made += [
                Sample(item.kind, item.variant, dcmread(BytesIO(item.data)), source)
                for item in build_results(request)
            ]
    return tuple(made)


def objects() -> Table:
    """Return the kinds of object that are created, with what a destination asks for them by."""
    rows: list[tuple[Cell, ...]] = []
    for kind, found in by_kind().items():
        classes = dict.fromkeys(sample.sop_class for sample in found)
        rows += [
            (
                kind,
                class_name(uid),
                uid,
                str(found[0].dataset.get("Modality", "")),
                SERIES[kind].number,  # type: ignore[index]
                "; ".join({UID(s.dataset.file_meta.TransferSyntaxUID).name for s in found}),
            )
            for uid in classes
        ]
    columns = ("object", "SOP class", "UID", "modality", "series", "stored as")
    return Table("created_objects", "Objects created", columns, tuple(rows))


def by_kind() -> Mapping[str, Sequence[Sample]]:
    """Return the samples by kind of object, in order of their series."""
    kinds = sorted({s.kind for s in samples()}, key=lambda k: SERIES[k].number)  # type: ignore[index]
    return {kind: [s for s in samples() if s.kind == kind] for kind in kinds}


def attributes() -> Mapping[str, Sequence[Attribute]]:
    """Return the attributes (of the first level) of each kind of object."""
    return {kind: _attributes(found) for kind, found in by_kind().items()}


def attribute_tables() -> list[Table]:
    """Return what every object has, then what each kind has beside that."""
    of_kinds = attributes()
    common = set.intersection(*(set(found) for found in of_kinds.values()))
    shared = sorted(common, key=lambda attribute: attribute.tag)
    tables = [_table("attributes_common", "Attributes of every object", shared)]
    for kind, found in of_kinds.items():
        own = [attribute for attribute in found if attribute not in common]
        tables.append(_table(f"attributes_{kind}", f"Further attributes of {kind}", own))
    return tables


def private_attributes() -> list[str]:
    """Return every private attribute in any created object, at any depth."""
    found = {
        str(element.tag)
        for sample in samples()
        for element in sample.dataset.iterall()
        if element.tag.is_private
    }
    return sorted(found)


def _table(key: str, title: str, found: Sequence[Attribute]) -> Table:
    return Table(key, title, ATTRIBUTE_COLUMNS, tuple(attribute.row() for attribute in found))


def _attributes(found: Sequence[Sample]) -> list[Attribute]:
    tags = sorted({element.tag for sample in found for element in sample.dataset})
    return [_attribute(tag, found) for tag in tags]


def _attribute(tag: BaseTag, found: Sequence[Sample]) -> Attribute:
    elements = [s.dataset[tag] for s in found if tag in s.dataset]
    filled = [not element.is_empty for element in elements]
    if len(elements) < len(found):
        presence = "ANAP"
    else:
        presence = "ALWAYS" if all(filled) else "VNAP" if any(filled) else "EMPTY"
    source, value = "AUTO", ""
    if _is_copy(tag, found):
        source = "COPY"
    elif all(_same(element, elements[0]) for element in elements) and elements[0].VR != "SQ":
        source, value = "FIXED", _short(elements[0])
    return Attribute(int(tag), keyword_for_tag(tag), elements[0].VR, presence, source, value)


def _is_copy(tag: BaseTag, found: Sequence[Sample]) -> bool:
    """Whether every object has what its source has, and sources differ in it."""
    pairs = [(s.dataset.get(tag), s.source.get(tag)) for s in found]
    if not all(_agree(mine, theirs) for mine, theirs in pairs):
        return False
    theirs = [value for _, value in pairs]
    return any(not _agree(value, theirs[0]) for value in theirs[1:])


def _agree(one: DataElement | None, other: DataElement | None) -> bool:
    if one is None or other is None:
        return (one is None or one.is_empty) and (other is None or other.is_empty)
    return _same(one, other) or (one.is_empty and other.is_empty)


def _same(one: DataElement, other: DataElement) -> bool:
    return bool(one.value == other.value)


def _short(element: DataElement) -> str:
    text = "\\".join(map(str, element.value)) if element.VM > 1 else str(element.value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
