"""Access to attributes of data sets that strangers wrote: absent, empty or of another type."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code

MAX_ITEMS = 50_000
MAX_DEPTH = 24


def text_of(dataset: Dataset | None, keyword: str) -> str:
    """Return an attribute as text without padding; '' where it is absent."""
    value = None if dataset is None else dataset.get(keyword)
    return "" if value is None else str(value).replace("\0", "").strip()


def number_of(dataset: Dataset | None, keyword: str) -> float | None:
    """Return a number; None where it is absent or not one."""
    try:
        return float(text_of(dataset, keyword))
    except ValueError:
        return None


def numbers_of(dataset: Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return so many numbers; None where they are absent or others."""
    value = None if dataset is None else dataset.get(keyword)
    try:
        found = tuple(float(one) for one in value or ())
    except (TypeError, ValueError):
        return None
    return found if len(found) == count else None


def items_of(dataset: Dataset | None, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty where it is absent."""
    value = None if dataset is None else dataset.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def first_of(dataset: Dataset | None, keyword: str) -> Dataset | None:
    """Return the first item of a sequence."""
    items = items_of(dataset, keyword)
    return items[0] if items else None


def code_of(dataset: Dataset | None, keyword: str) -> Code | None:
    """Return the first code of a sequence."""
    item = first_of(dataset, keyword)
    value = text_of(item, "CodeValue") or text_of(item, "LongCodeValue")
    scheme = text_of(item, "CodingSchemeDesignator")
    return Code(value, scheme, text_of(item, "CodeMeaning")) if value and scheme else None


def same_code(one: Code | None, other: Code) -> bool:
    """Whether two codes are equal; SNOMED RT and SNOMED CT values of one concept are."""
    return one is not None and bool(one == other)


def nested(dataset: Dataset, *, pixels: bool = False) -> Iterator[Dataset]:
    """Yield a data set and every item in it, the outer ones first.

    Args:
        dataset: the outermost.
        pixels: also go into the functional groups of frames, which may be thousands.
    """
    waiting: deque[tuple[Dataset, int]] = deque([(dataset, 0)])
    seen = 0
    while waiting and seen < MAX_ITEMS:
        current, depth = waiting.popleft()
        seen += 1
        yield current
        if depth >= MAX_DEPTH:
            continue
        for element in current:
            if element.VR != "SQ" or (not pixels and element.tag == 0x52009230):
                continue
            waiting.extend((item, depth + 1) for item in _items(element.value))


def _items(value: Any) -> list[Dataset]:
    return list(value) if isinstance(value, Sequence) else []
