"""The content of reports: templates, content items and codes, read from encoded samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
            title = code_text(sample.dataset.ConceptNameCodeSequence[0])
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
    rows = content_rows(sample.dataset for sample in samples() if sample.kind == kind)
    columns = ("level", "concept name", "relationship", "value type", "unit, values")
    return Table(f"content_{kind}", f"Content items of {kind}", columns, tuple(rows))


def content_rows(documents: Iterable[Dataset]) -> Iterator[tuple[Cell, ...]]:
    """Return the content items of documents, those of one name in one place as one row."""
    top = _Node()
    for document in documents:
        _merge(document, top)
    yield from _rows(top, 0)


def _merge(item: Dataset, parent: _Node) -> None:
    names = item.get("ConceptNameCodeSequence")
    name = code_text(names[0]) if names else ""
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
        return code_text(item.ConceptCodeSequence[0])
    if item.ValueType == "NUM":
        return code_text(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])
    if item.ValueType == "SCOORD":
        return str(item.GraphicType)
    return ""


def code_text(item: Dataset) -> str:
    """Return a code as the standard prints it: value, coding scheme, meaning."""
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
