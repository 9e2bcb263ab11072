"""Per-frame records of Enhanced MR and Legacy Converted Enhanced MR images (PS3.3 C.7.6.16)."""

from __future__ import annotations

from typing import Any

from dicom_node.dicom.bvalue import directionality, tagged_b_value
from dicom_node.dicom.elements import Elements, HeaderError
from dicom_node.dicom.records import FrameRecord

MAX_FRAMES = 20_000
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_UNASSIGNED_SHARED, _UNASSIGNED_PER_FRAME = 0x00209170, 0x00209171

# field, functional group sequence, element in it, how it is read
_GROUPS: tuple[tuple[str, int, int, str], ...] = (
    ("ipp", 0x00209113, 0x00200032, "vector3"),
    ("iop", 0x00209116, 0x00200037, "vector6"),
    ("pixel_spacing", 0x00289110, 0x00280030, "vector2"),
    ("slice_thickness", 0x00289110, 0x00180050, "decimal"),
    ("spacing_between", 0x00289110, 0x00180088, "decimal"),
    ("image_type", 0x00189226, 0x00089007, "words"),
    ("component", 0x00189226, 0x00089208, "ascii"),
    ("echo_time", 0x00189114, 0x00189082, "double"),
    ("repetition_time", 0x00189112, 0x00180080, "decimal"),
    ("flip_angle", 0x00189112, 0x00181314, "decimal"),
    ("echo_train_length", 0x00189112, 0x00189240, "short"),
    ("temporal_position", 0x00209111, 0x00209128, "long"),
    ("acquisition_datetime", 0x00209111, 0x00189074, "ascii"),
    ("time_offset_s", 0x00209310, 0x0020930D, "double"),
    ("rescale_slope", 0x00289145, 0x00281053, "decimal"),
    ("rescale_intercept", 0x00289145, 0x00281052, "decimal"),
    ("b_value", 0x00189117, 0x00189087, "double"),
    ("directionality", 0x00189117, 0x00189075, "ascii"),
)
_FRAME_FIELDS = frozenset(FrameRecord.__slots__)
# Enhanced MR spells the pulse sequence in elements of its own (PS3.3 C.8.13.4)
_ECHO_PULSE = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}


def multi_frame_fields(elements: Elements, values: dict[str, Any]) -> dict[str, Any]:
    """Fields of the instance from the shared functional groups, and one record for each frame.

    Raises:
        HeaderError: more frames than the limit.
    """
    found: dict[str, Any] = {}
    if not values["scanning_sequence"]:
        found["scanning_sequence"] = _scanning_sequence(elements)
    if not values["sequence_name"]:
        found["sequence_name"] = elements.ascii(0x00189005)
    shared = elements.item(_SHARED)
    if shared is not None:
        group = _group_fields(shared, _UNASSIGNED_SHARED)
        found.update((name, value) for name, value in group.items() if name != "time_offset_s")
    per_frame = elements.items(_PER_FRAME)
    if len(per_frame) > MAX_FRAMES:
        raise HeaderError("too_large", f"more than {MAX_FRAMES} frames in one image")
    frames = [_group_fields(item, _UNASSIGNED_PER_FRAME) for item in per_frame]
    for name in ("repetition_time", "flip_angle", "echo_train_length", "spacing_between"):
        if frames and name in frames[0]:
            found[name] = frames[0][name]
    found["frames"] = tuple(
        FrameRecord(index=i, **{k: v for k, v in frame.items() if k in _FRAME_FIELDS})
        for i, frame in enumerate(frames)
    )
    return found


def _scanning_sequence(elements: Elements) -> tuple[str, ...]:
    words = _ECHO_PULSE.get(elements.ascii(0x00189008), ())
    return (*words, "EP") if elements.ascii(0x00189018) == "YES" else words


def _group_fields(item: Elements, unassigned: int) -> dict[str, Any]:
    """Fields of one item of the shared or per-frame functional groups sequence."""
    found: dict[str, Any] = {}
    groups: dict[int, Elements | None] = {}
    for name, sequence, tag, kind in _GROUPS:
        if sequence not in groups:
            groups[sequence] = item.item(sequence)
        group = groups[sequence]
        value = _read(group, tag, kind) if group is not None and tag in group else None
        if value not in (None, "", ()):
            found[name] = value
    if "b_value" in found:
        found["b_source"] = "public"
    # Complex Image Component (PS3.3 C.8.13.3.1): phase and real images are told by it alone
    if (component := found.pop("component", "MAGNITUDE")) != "MAGNITUDE":
        found["image_type"] = (*found.get("image_type", ()), component)
    found.update(real_world_fields(item))
    converted = item.item(unassigned)
    if converted is not None:
        _add_converted(found, converted)
    return found


def real_world_fields(elements: Elements) -> dict[str, Any]:
    """Read unit (UCUM), slope and intercept of Real World Value Mapping (PS3.3 C.7.6.16.2.11)."""
    item = elements.item(0x00409096)
    units = item.item(0x004008EA) if item else None
    if item is None or units is None:
        return {}
    return {
        "rwvm_unit": units.ascii(0x00080100),
        "rwvm_slope": item.double(0x00409225),
        "rwvm_intercept": item.double(0x00409224),
    }


def _add_converted(found: dict[str, Any], converted: Elements) -> None:
    """Legacy conversion keeps what has no functional group in a sequence of its own."""
    if "b_value" not in found:
        value, source = tagged_b_value(converted)
        if value is not None:
            found.update(b_value=value, b_source=source)
    if "directionality" not in found and (text := directionality(converted)):
        found["directionality"] = text
    if "echo_time" not in found and (value := converted.decimal(0x00180081)) is not None:
        found["echo_time"] = value
    for name, tag in (("repetition_time", 0x00180080), ("flip_angle", 0x00181314)):
        if name not in found and (value := converted.decimal(tag)) is not None:
            found[name] = value


def _read(group: Elements, tag: int, kind: str) -> Any:
    if kind.startswith("vector"):
        numbers = group.decimals(tag)
        return numbers if numbers and len(numbers) == int(kind[6:]) else None
    return getattr(group, kind)(tag)
