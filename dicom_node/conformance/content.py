"""The content of reports: templates, content items and codes, read from encoded samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from dicom_node.conformance.created import samples
from dicom_node.conformance.document import Cell, Table
from dicom_node.results.codes import PINNED
from dicom_node.results.equipment import CODING_SCHEME, CODING_SCHEME_NAME

SR_KINDS = ("sr", "key-object", "rejection-note")


def root_templates() -> Table:
    """Return the root templates of created documents, with the title of each."""
    rows: dict[tuple[Cell, ...], None] = {}
    for sample in samples():
        for template in sample.dataset.get("ContentTemplateSequence", ()):
            title = _code(sample.dataset.ConceptNameCodeSequence[0])
            mapping = f"{template.MappingResource} {template.TemplateIdentifier}"
            rows[(sample.kind, sample.dataset.SOPClassUID.name, mapping, title)] = None
    columns = ("object", "SOP class", "root template", "document title")
    return Table("root_templates", "Structured report root templates", columns, tuple(rows))


@dataclass
class _Node:
    """Items of one name under one parent, of all samples together."""

    values: dict[str, None] = field(default_factory=dict)
    below: dict[tuple[str, str, str], _Node] = field(default_factory=dict)


def content_tree(kind: str) -> Table:
    """Return every content item that documents of a kind have, in any form, as one tree."""
    top = _Node()
    for sample in samples():
        if sample.kind == kind:
            _merge(sample.dataset, top)
    columns = ("level", "concept name", "relationship", "value type", "unit, values")
    return Table(f"content_{kind}", f"Content items of {kind}", columns, tuple(_rows(top, 0)))


def _merge(item: Dataset, parent: _Node) -> None:
    names = item.get("ConceptNameCodeSequence")
    name = _code(names[0]) if names else ""
    key = (name, str(item.get("RelationshipType", "")), str(item.ValueType))
    node = parent.below.setdefault(key, _Node())
    if value := _value(item):
        node.values[value] = None
    for child in item.get("ContentSequence", ()):
        _merge(child, node)


def _rows(node: _Node, level: int) -> Iterator[tuple[Cell, ...]]:
    for (name, relationship, value_type), child in node.below.items():
        values = "; ".join(child.values)
        yield ("> " * level, name, relationship, value_type, values)
        yield from _rows(child, level + 1)


def _value(item: Dataset) -> str:
    if item.ValueType == "CODE":
        return _code(item.ConceptCodeSequence[0])
    if item.ValueType == "NUM":
        return _code(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])
    if item.ValueType == "SCOORD":
        return str(item.GraphicType)
    return ""


def _code(item: Dataset) -> str:
    return f"({item.CodeValue}, {item.CodingSchemeDesignator}, {item.CodeMeaning})"


def code_sets() -> Table:
    """Return every code that may stand in a created object; others stop at the output gate."""
    rows = sorted(
        (scheme, value, meaning)
        for (value, scheme), meanings in PINNED.items()
        for meaning in meanings
    )
    columns = ("coding scheme", "code value", "code meaning")
    return Table("codes", "Codes used", columns, tuple(rows))


def coding_schemes() -> Table:
    """Return the coding schemes used, and how many codes of each."""
    schemes = sorted({scheme for _, scheme in PINNED})
    rows = tuple(
        (
            scheme,
            CODING_SCHEME_NAME if scheme == CODING_SCHEME else "",
            sum(1 for _, other in PINNED if other == scheme),
        )
        for scheme in schemes
    )
    columns = ("coding scheme", "private: name", "codes")
    return Table("coding_schemes", "Coding schemes", columns, rows)
