"""Judging a second copy of an instance: the same after decoding, corrected, or contradicting.

Runs beside the worker, never in the receive path: it decodes pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.values import convert_SQ

from dicom_node.domain.identity import Difference, classify_difference
from dicom_node.logs import pseudonym
from dicom_node.store.rows import ConflictRow
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

PIXEL_DATA = 0x7FE00010
MAX_JUDGINGS = 2
MAX_DECODED_BYTES = 512 * 2**20
_TRAILING_PADDING = 0xFFFCFFFC


def judge_copies(store: Store, data_dir: Path) -> int:
    """Judge every copy that waits for it; returns how many."""
    waiting = store.conflicts_to_judge()
    for conflict in waiting:
        if store.begin_judging(conflict.id) > MAX_JUDGINGS:
            verdict, detail = Difference.OTHER, "the copies could not be compared"
        else:
            verdict, detail = _judge(conflict, data_dir)
        store.judge(conflict, verdict, detail)
        if verdict is Difference.DEMOGRAPHICS:
            store.adopt_demographics(conflict.study_uid)
        level = logging.ERROR if verdict is Difference.OTHER else logging.INFO
        study = pseudonym(conflict.study_uid)
        log.log(level, "second copy judged", extra={"verdict": str(verdict), "study": study})
    return len(waiting)


def _judge(conflict: ConflictRow, data_dir: Path) -> tuple[Difference, str]:
    try:
        kept = pydicom.dcmread(data_dir / conflict.kept_path)
        copy = pydicom.dcmread(data_dir / conflict.path)
        tags = differing_tags(kept, copy)
    except Exception as error:  # whatever a decoder meets: a copy that cannot be read differs
        detail = f"({conflict.sop_instance_uid}: {type(error).__name__})"
        return Difference.OTHER, detail
    names = ", ".join(str(Tag(tag)) for tag in sorted(tags)[:8])
    return classify_difference(tags), f"({conflict.sop_instance_uid}: {names})" if names else ""


def differing_tags(one: Dataset, other: Dataset) -> set[int]:
    """Return the top-level elements in which two data sets differ after decoding.

    The transfer syntax, padding of text and group lengths do not count.
    """
    tags = {int(tag) for dataset in (one, other) for tag in dataset.keys()}  # noqa: SIM118
    found = set()
    for tag in tags:
        if tag & 0xFFFF == 0 or tag == _TRAILING_PADDING:
            continue
        if tag == PIXEL_DATA and tag in one and tag in other:
            same = _same_pixels(one, other)
        else:
            same = _same_element(one, other, tag)
        if not same:
            found.add(tag)
    return found


def _same_element(one: Dataset, other: Dataset, tag: int) -> bool:
    if tag not in one or tag not in other:
        return False
    first, second = (getattr(dataset.get_item(tag), "value", None) for dataset in (one, other))
    if isinstance(first, bytes) and first == second:
        return True  # as encoded; no need to decode
    return _same_value(one[tag].value, other[tag].value)


def _same_value(first: Any, second: Any) -> bool:
    if isinstance(first, Sequence) or isinstance(second, Sequence):
        items, others = _as_sequence(first), _as_sequence(second)
        return (
            items is not None
            and others is not None
            and len(items) == len(others)
            and all(not differing_tags(a, b) for a, b in zip(items, others, strict=True))
        )
    return bool(first == second)


def _as_sequence(value: Any) -> Sequence | None:
    """Return a sequence; one that came as bytes of unknown VR is implicit VR (PS3.5 6.2.2)."""
    if isinstance(value, Sequence):
        return value
    if isinstance(value, bytes):
        decode: Callable[..., Any] = convert_SQ
        return Sequence(decode(value, True, True))
    return None


def _same_pixels(one: Dataset, other: Dataset) -> bool:
    native = [not dataset.file_meta.TransferSyntaxUID.is_compressed for dataset in (one, other)]
    if all(native):
        return bool(one.PixelData == other.PixelData)
    for dataset in (one, other):
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        samples = int(dataset.get("SamplesPerPixel", 1)) * int(dataset.BitsAllocated) // 8
        if int(dataset.Rows) * int(dataset.Columns) * frames * samples > MAX_DECODED_BYTES:
            raise ValueError("the pixel data is too large to compare")
    return bool(np.array_equal(one.pixel_array, other.pixel_array))
