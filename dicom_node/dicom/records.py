"""What selection and identity need of one instance, as plain values with a compact JSON form."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

Floats = tuple[float, ...]
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What one frame of a multi-frame image says differently from its instance.

    None or empty: the value of the instance holds. Positions and spacings in mm (LPS), times in
    ms as in DICOM, b-value in s/mm^2. ``index`` counts frames from 0.
    """

    index: int
    ipp: Floats | None = None
    iop: Floats | None = None
    pixel_spacing: Floats | None = None
    slice_thickness: float | None = None
    image_type: Words = ()
    b_value: float | None = None
    b_source: str = ""
    directionality: str = ""
    echo_time: float | None = None
    temporal_position: int | None = None
    time_offset_s: float | None = None
    acquisition_datetime: str = ""
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    rwvm_unit: str = ""
    rwvm_slope: float | None = None
    rwvm_intercept: float | None = None


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """Header of one instance. Units as in DICOM: mm, ms, degrees, s/mm^2.

    Texts are '' and numbers None where absent. ``pixel_spacing`` is (between rows, between
    columns), ``iop`` six direction cosines, ``ipp`` the centre of the first voxel (LPS).
    ``demographics_digest`` is SHA-256 over the patient elements as received.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    modality: str = ""
    patient_id: str = ""
    issuer: str = ""
    birth_date: str = ""
    patient_name: str = ""
    patient_sex: str = ""
    body_part: str = ""
    study_description: str = ""
    series_description: str = ""
    protocol_name: str = ""
    study_date: str = ""
    study_time: str = ""
    accession_number: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    acquisition_number: int | None = None
    image_type: Words = ()
    rows: int | None = None
    columns: int | None = None
    bits_allocated: int | None = None
    samples_per_pixel: int | None = None
    pixel_spacing: Floats | None = None
    slice_thickness: float | None = None
    spacing_between: float | None = None
    iop: Floats | None = None
    ipp: Floats | None = None
    frame_of_reference_uid: str = ""
    echo_time: float | None = None
    repetition_time: float | None = None
    flip_angle: float | None = None
    echo_train_length: float | None = None
    scanning_sequence: Words = ()
    sequence_variant: Words = ()
    scan_options: Words = ()
    sequence_name: str = ""
    mr_acquisition_type: str = ""
    acquisition_date: str = ""
    acquisition_time: str = ""
    acquisition_datetime: str = ""
    content_date: str = ""
    content_time: str = ""
    trigger_time: float | None = None
    temporal_position: int | None = None
    temporal_resolution: float | None = None
    field_strength_t: float | None = None
    b_value: float | None = None
    b_source: str = ""
    directionality: str = ""
    contrast_agent: str = ""
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    rescale_type: str = ""
    rwvm_unit: str = ""
    rwvm_slope: float | None = None
    rwvm_intercept: float | None = None
    manufacturer: str = ""
    model: str = ""
    device_serial: str = ""
    software: str = ""
    station: str = ""
    institution: str = ""
    number_of_frames: int = 1
    frames: tuple[FrameRecord, ...] = ()
    has_pixel_data: bool = False
    demographics_digest: str = ""

    def to_json(self) -> str:
        """Compact JSON: fields that differ from their default."""
        present = _present(self, _HEADER_DEFAULTS)
        if self.frames:
            present["frames"] = [_present(frame, _FRAME_DEFAULTS) for frame in self.frames]
        return json.dumps(present, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> InstanceHeader:
        """Inverse of ``to_json``; keys that this version does not know are left out.

        Raises:
            ValueError: the text is not a header.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not an instance header")
        frames = tuple(_frame(frame) for frame in values.pop("frames", ()))
        try:
            return cls(frames=frames, **_known(values, _HEADER_DEFAULTS, _HEADER_TUPLES))
        except TypeError as error:
            raise ValueError(f"not an instance header: {error}") from None


def _frame(values: dict[str, Any]) -> FrameRecord:
    return FrameRecord(**_known(values, _FRAME_DEFAULTS, _FRAME_TUPLES))


def _present(record: object, defaults: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, default in defaults.items():
        value = getattr(record, name)
        if value != default:
            found[name] = value
    return found


def _known(
    values: dict[str, Any], defaults: dict[str, Any], tuples: frozenset[str]
) -> dict[str, Any]:
    for name in tuples & values.keys():
        values[name] = tuple(values[name])
    unknown = values.keys() - defaults.keys()
    return {k: v for k, v in values.items() if k not in unknown} if unknown else values


def _defaults(record: type) -> dict[str, Any]:
    return {field.name: field.default for field in fields(record) if field.name != "frames"}


_HEADER_DEFAULTS = _defaults(InstanceHeader)
_FRAME_DEFAULTS = _defaults(FrameRecord)
_FRAME_TUPLES = frozenset(("ipp", "iop", "pixel_spacing", "image_type"))
_HEADER_TUPLES = _FRAME_TUPLES | {"scanning_sequence", "sequence_variant", "scan_options"}
