"""What a stack shows: image type first, then public and private elements, physics, description."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.dicom.bvalue import acquired_range
from dicom_node.dicom.frames import is_adc_type, is_trace_type, stated_by_tag
from dicom_node.dicom.stacks import (
    MIN_POSITIONS,
    Orientation,
    Stack,
)


class Kind(StrEnum):
    """Role a stack can play."""

    T2W = "t2w"
    ADC = "adc"
    DWI = "dwi"
    COMPUTED_DWI = "computed_dwi"
    DCE = "dce"
    OTHER = "other"


@dataclass(frozen=True)
class Verdict:
    """Kind of a stack, or OTHER with the reason it is not used. ``fault``: right kind, unusable."""

    kind: Kind
    reason: str = ""
    wanted: Kind | None = None


_UNUSABLE_TYPES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset(("LOCALIZER",)), "localizer"),
    (frozenset(("MOSAIC",)), "mosaic: all slices in one image"),
    (
        frozenset(("MPR", "MIP", "MINIP", "PROJECTION", "PROJECTION IMAGE", "MIN_IP", "MAX_IP")),
        "projection or reformatted images",
    ),
    (
        frozenset(
            ("P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "PHASE_MAP", "VELOCITY")
        ),
        "phase, real or imaginary images",
    ),
    (frozenset(("SCREEN SAVE", "SCREENSAVE", "CSAPARALLEL")), "screen save"),
    (frozenset(("SUBTRACTION", "SUBTRACT", "SUB")), "subtraction"),
    (
        frozenset(("T1 MAP", "T1_MAP", "T2 MAP", "T2_MAP", "T2_STAR MAP", "R2 MAP")),
        "relaxation map",
    ),
)
_DERIVED_DIFFUSION = frozenset(
    ("FA", "EADC", "EXP", "EXPONENTIAL", "RA", "VR", "TENSOR", "TENSOR_B0", "COLFA", "EXPADC")
)
_COMPUTED = frozenset(("CALC_BVALUE", "CALC_BVAL", "COMPUTED_BVALUE", "SYNTHETIC"))

_ADC_TEXT = re.compile(r"(?<![a-z])d?adc(?![a-z])|apparent diff", re.IGNORECASE)
_DERIVED_TEXT = re.compile(
    r"(?<![a-z])(e-?adc|exp(onential)?|fa|fractional anisotropy|coloured fa|colfa)(?![a-z])",
    re.IGNORECASE,
)
_COMPUTED_TEXT = re.compile(
    r"calc|comput|synth|extrapol|(?<![a-z])cb[\s_-]?\d{3,4}|(?<![a-z])cdwi", re.IGNORECASE
)
# appended by the scanner; a protocol name may hold "calc" and pass it on to acquired images
_COMPUTED_SUFFIX = re.compile(r"_calc_bval(ue)?$", re.IGNORECASE)
_T2_TEXT = re.compile(r"(?<![a-z0-9])t2", re.IGNORECASE)
_LOCALIZER_TEXT = re.compile(
    r"(?<![a-z])(loc|localizer|localiser|scout|survey|haste|smartbrain)(?![a-z])|3[\s-]?plane",
    re.IGNORECASE,
)
_DYNAMIC_TEXT = re.compile(
    r"dyn|dce|twist|perf|vibe|lava|thrive|disco|(?<![a-z])tt=", re.IGNORECASE
)
FAT_SAT_TEXT = re.compile(r"(?<![a-z])(fs|fat[\s_-]?sat|spair|spir|stir|dixon)", re.IGNORECASE)


def classify(stack: Stack) -> Verdict:
    """Kind of a stack. The first rule that applies decides."""
    for rule in _RULES:
        verdict = rule(stack)
        if verdict is not None:
            return verdict
    return Verdict(Kind.OTHER, "not T2-weighted, diffusion or dynamic contrast-enhanced")


def _types(stack: Stack) -> frozenset[str]:
    return stack.frames[0].image_type


def _unusable(stack: Stack) -> Verdict | None:
    # the first two values say how the pixels came about; what they show stands behind
    for tokens, reason in _UNUSABLE_TYPES:
        if tokens & {token.upper() for token in _types(stack)}:
            return Verdict(Kind.OTHER, reason)
    if _LOCALIZER_TEXT.search(stack.description):
        return Verdict(Kind.OTHER, "localizer, by its description")
    return None


def _adc(stack: Stack) -> Verdict | None:
    types = _types(stack)
    if is_adc_type(types):
        return _sized(stack, Kind.ADC)
    if (
        is_trace_type(types)
        or types & _DERIVED_DIFFUSION
        or _DERIVED_TEXT.search(stack.description)
    ):
        return None
    acquired = "ORIGINAL" in types and stated_by_tag(stack.frames[0])
    if _ADC_TEXT.search(stack.description) and not acquired:
        return _sized(stack, Kind.ADC)
    return None


def _derived_diffusion(stack: Stack) -> Verdict | None:
    types = _types(stack)
    diffusion = "DIFFUSION" in types or is_adc_type(types) or stack.b_value is not None
    if types & _DERIVED_DIFFUSION or (
        not is_trace_type(types) and diffusion and _DERIVED_TEXT.search(stack.description)
    ):
        return Verdict(Kind.OTHER, "derived diffusion map that is not an ADC map")
    return None


def _dwi(stack: Stack) -> Verdict | None:
    frame, header = stack.frames[0], stack.header
    planar = "EP" in header.scanning_sequence
    weighted = bool(frame.b_value) and stated_by_tag(frame)
    trace = is_trace_type(frame.image_type)
    named = "DIFFUSION" in frame.image_type or (trace and planar)
    if not (named or weighted or (planar and frame.b_value is not None)):
        return None
    if frame.directionality == "DIRECTIONAL" or (frame.directionality == "BMATRIX" and not trace):
        return Verdict(Kind.OTHER, "single diffusion directions; the trace image is used")
    return _sized(stack, Kind.COMPUTED_DWI if _is_computed(stack) else Kind.DWI)


def _is_computed(stack: Stack) -> bool:
    """Made by extrapolation: by image type, by b beyond the acquired range, or by description."""
    if _types(stack) & _COMPUTED or _COMPUTED_SUFFIX.search(stack.description.strip()):
        return True
    acquired = acquired_range(stack.header.sequence_name)
    if acquired is not None and stack.b_value is not None and stated_by_tag(stack.frames[0]):
        return stack.b_value > acquired
    return bool(_COMPUTED_TEXT.search(stack.description))


def _dce(stack: Stack) -> Verdict | None:
    """Three-dimensional T1 gradient echo: TR below 10 ms, TE below 3 ms."""
    header = stack.header
    if "GR" not in header.scanning_sequence or header.mr_acquisition_type == "2D":
        return None
    described = bool(_DYNAMIC_TEXT.search(stack.description))
    repetition, echo = header.repetition_time, stack.frames[0].echo_time
    fast = repetition < 10 if repetition is not None else described
    short = echo < 3 if echo is not None else described
    return _sized(stack, Kind.DCE) if fast and short else None


def _t2w(stack: Stack) -> Verdict | None:
    header = stack.header
    volume = header.mr_acquisition_type == "3D"
    described = bool(_T2_TEXT.search(stack.description))
    sequence, echo = header.scanning_sequence, stack.frames[0].echo_time
    if sequence and ("SE" not in sequence or "EP" in sequence):
        return None
    checks = (
        # 3-D turbo spin echo (SPACE, CUBE, VISTA) states long nominal echo times and shorter TR
        (echo, 60.0, 350.0 if volume else 180.0, "echo time"),
        (header.repetition_time, 1000.0 if volume else 1500.0, 1e6, "repetition time"),
        (header.echo_train_length, 5.001, 1e4, "echo train"),
    )
    if any(value is not None and not low <= value <= high for value, low, high, _ in checks):
        return None
    if not (described or (sequence and echo is not None)):
        return None
    return _t2w_shape(stack)


def _t2w_shape(stack: Stack) -> Verdict:
    thickness = stack.header.slice_thickness or stack.slice_spacing_mm
    if stack.orientation is not Orientation.AXIAL:
        return Verdict(Kind.OTHER, f"T2-weighted, but {stack.orientation}")
    if max(stack.frames[0].spacing) > 1.0:
        return Verdict(Kind.OTHER, "T2-weighted, but pixels larger than 1 mm")
    if thickness > 5.0:
        return Verdict(Kind.OTHER, "T2-weighted, but slices thicker than 5 mm")
    return _sized(stack, Kind.T2W)


def _sized(stack: Stack, kind: Kind) -> Verdict:
    """Hold a stack of the right kind to what every input needs."""
    if stack.orientation is not Orientation.AXIAL:
        return Verdict(Kind.OTHER, f"{kind}, but {stack.orientation}")
    if not stack.header.has_pixel_data:
        return Verdict(Kind.OTHER, f"{kind}, but without pixel data", kind)
    if len(stack.frames) < MIN_POSITIONS:
        return Verdict(Kind.OTHER, f"{kind}, but fewer than {MIN_POSITIONS} slice positions", kind)
    return Verdict(kind)


_RULES: tuple[Callable[[Stack], Verdict | None], ...] = (
    _unusable,
    _adc,
    _derived_diffusion,
    _dwi,
    _dce,
    _t2w,
)
