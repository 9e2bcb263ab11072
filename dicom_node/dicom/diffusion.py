"""Choose the ADC map, the diffusion-weighted images and the high-b image that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dicom_node.dicom.frames import Frame, is_trace_type
from dicom_node.dicom.stacks import Stack

HIGH_B = 1400.0
MIN_HIGH_B = 800.0
_IDEAL_HIGH_B = 1500.0


@dataclass(frozen=True)
class Diffusion:
    """The chosen diffusion images of a study; ``b_unknown``: images without a readable b-value."""

    adc: Stack | None = None
    adc_to_um2_s: float | None = None
    dwi: tuple[Stack, ...] = ()
    high_b: Stack | None = None
    high_b_computed: bool = False
    b_unknown: bool = False
    left_out: tuple[tuple[Stack, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> Stack | None:
        """ADC map, or the first of at least two b-values; None where neither is there."""
        if self.adc is not None:
            return self.adc
        return self.dwi[0] if len(self.dwi) >= 2 else None

    @property
    def complete(self) -> bool:
        """Whether no slice is missing in what is needed, and all b-values have the same slices."""
        if self.usable is None:
            return False
        if self.adc is not None and not self.adc.uniform:
            return False
        counts = {len(stack.frames) for stack in self.dwi}
        return all(stack.uniform for stack in self.dwi) and len(counts) <= 1


def choose_diffusion(
    adcs: Sequence[Stack], acquired: Sequence[Stack], computed: Sequence[Stack]
) -> Diffusion:
    """Choose images of one acquisition: an ADC map and the DWI it was made of.

    DWI stacks of one grid and echo time are one acquisition, in one series or one per b-value.
    Preferred: no missing slice, an ADC map on the same grid, two or more b-values of which one is
    at least 800, the latest.
    """
    known = [stack for stack in acquired if stack.b_value is not None]
    groups = _acquisitions(known)
    group = max(groups, key=lambda g: _group_rank(g, adcs)) if groups else []
    adc = max(adcs, key=lambda a: _adc_rank(a, group)) if adcs else None
    dwi, repeats = _one_per_b(group)
    high_b, is_computed = _high_b(adc or (dwi[0] if dwi else None), known, computed)
    used = {id(stack) for stack in (adc, high_b, *dwi) if stack is not None}
    left_out = [(stack, "no readable b-value") for stack in acquired if stack.b_value is None]
    left_out += [(s, "another ADC map was preferred") for s in adcs if id(s) not in used]
    left_out += [
        (s, _WHY_REPEAT if s in repeats else "diffusion images of another acquisition")
        for s in known
        if id(s) not in used
    ]
    left_out += [(s, "another high-b image was preferred") for s in computed if id(s) not in used]
    return Diffusion(
        adc=adc,
        adc_to_um2_s=adc_unit(adc) if adc is not None else None,
        dwi=dwi,
        high_b=high_b,
        high_b_computed=is_computed,
        b_unknown=bool(acquired) and adc is None and len(dwi) < 2 and len(known) < len(acquired),
        left_out=tuple(left_out),
        notes=_NO_HIGH_B if high_b is None and (adc or dwi) else (),
    )


_WHY_REPEAT = "repeated b-value; the trace image of the latest acquisition is used"
_NO_HIGH_B = (f"no diffusion image with b of {MIN_HIGH_B:.0f} or more",)


def _acquisitions(stacks: Sequence[Stack]) -> list[list[Stack]]:
    groups: list[list[Stack]] = []
    for stack in stacks:
        for group in groups:
            if _one_acquisition(stack, group[0]):
                group.append(stack)
                break
        else:
            groups.append([stack])
    return groups


def _one_acquisition(a: Stack, b: Stack) -> bool:
    """Compare echo time and grid; while slices are missing, the same series is enough."""
    echo_a, echo_b = a.frames[0].echo_time, b.frames[0].echo_time
    if echo_a is not None and echo_b is not None and abs(echo_a - echo_b) > 1.0:
        return False
    same_matrix = (a.header.rows, a.header.columns) == (b.header.rows, b.header.columns)
    return a.same_grid(b) or (a.series_uid == b.series_uid and same_matrix)


def _group_rank(group: list[Stack], adcs: Sequence[Stack]) -> tuple[bool, bool, bool, float, str]:
    b_values = {stack.b_value or 0.0 for stack in group}
    return (
        all(stack.uniform for stack in group),
        len(b_values) >= 2 and max(b_values) >= MIN_HIGH_B,
        any(adc.same_grid(group[0]) for adc in adcs),
        max(stack.time_s or 0.0 for stack in group),
        group[0].series_uid,
    )


def _adc_rank(adc: Stack, group: list[Stack]) -> tuple[bool, bool, float, str]:
    return (
        adc.uniform,
        any(adc.same_grid(stack) for stack in group),
        adc.time_s or 0.0,
        adc.series_uid,
    )


def _one_per_b(group: Sequence[Stack]) -> tuple[tuple[Stack, ...], list[Stack]]:
    """One stack per b-value, ascending, and the rest: earlier ones, directions beside a trace."""
    latest: dict[float, Stack] = {}
    repeats: list[Stack] = []
    for stack in sorted(group, key=_rank_in_group):
        b_value = stack.b_value or 0.0
        if b_value in latest:
            repeats.append(latest[b_value])
        latest[b_value] = stack
    return tuple(latest[b] for b in sorted(latest)), repeats


def _rank_in_group(stack: Stack) -> tuple[bool, bool, float, str]:
    frame = stack.frames[0]
    trace = is_trace_type(frame.image_type) or frame.directionality == "ISOTROPIC"
    return (stack.uniform, trace, stack.time_s or 0.0, stack.series_uid)


def _high_b(
    reference: Stack | None, acquired: Sequence[Stack], computed: Sequence[Stack]
) -> tuple[Stack | None, bool]:
    """Choose b of 1400 or more (acquired first, nearest to 1500), else the largest from 800."""
    synthetic = {id(stack) for stack in computed}
    usable = [
        stack
        for stack in (*acquired, *computed)
        if stack.b_value is not None and stack.b_value >= MIN_HIGH_B and stack.uniform
    ]
    if not usable:
        return None, False

    def rank(stack: Stack) -> tuple[bool, bool, bool, float, float, str]:
        b_value = stack.b_value or 0.0
        high, made = b_value >= HIGH_B, id(stack) in synthetic
        return (
            reference is not None and _same_place(stack, reference),
            high,
            high and not made,
            -abs(b_value - _IDEAL_HIGH_B) if high else b_value,
            stack.time_s or 0.0,
            stack.series_uid,
        )

    best = max(usable, key=rank)
    return best, id(best) in synthetic


def _same_place(a: Stack, b: Stack) -> bool:
    return a.header.frame_of_reference_uid == b.header.frame_of_reference_uid


# UCUM units of ADC maps and their factor to um2/s (CID 7273 and what scanners write)
_UNITS = {
    "um2/s": 1.0,
    "10-6.mm2/s": 1.0,
    "10*-6.mm2/s": 1.0,
    "10*-6mm2/s": 1.0,
    "10^-6 mm2/s": 1.0,
    "1e-6 mm2/s": 1.0,
    "10*-3.mm2/s": 1000.0,
    "10-3.mm2/s": 1000.0,
    "mm2/s": 1e6,
    "cm2/s": 1e8,
}
# Makers whose ADC maps are proven to hold integers in 10^-6 mm^2/s where no unit is stated
_INTEGER_UM2_S = ("SIEMENS",)


class Mapping(NamedTuple):
    """Real-world mapping of stored ADC values: ``value * slope + intercept`` in a unit."""

    slope: float
    intercept: float
    to_um2_s: float


def real_world_mapping(frame: Frame) -> Mapping | None:
    """Return the real world value mapping of an ADC slice, None without slope or known unit."""
    header, record = frame.header, frame.record
    source = record if record is not None and record.rwvm_unit else header
    factor = _UNITS.get(source.rwvm_unit.lower())
    if factor is None or not source.rwvm_slope:
        return None
    return Mapping(source.rwvm_slope, source.rwvm_intercept or 0.0, factor)


def adc_unit(adc: Stack) -> float | None:
    """Return the factor from ADC values to um2/s, None where the source does not prove it.

    Order: unit of the real world value mapping, unit of the rescaled values, the maker's habit.
    """
    header = adc.header
    mapping = real_world_mapping(adc.frames[0])
    if mapping is not None:
        return mapping.to_um2_s
    if header.rescale_type.lower() in _UNITS:
        return _UNITS[header.rescale_type.lower()]
    plain = header.rescale_slope in (None, 1.0) and not header.rescale_intercept
    if plain and header.manufacturer.upper().startswith(_INTEGER_UM2_S):
        return 1.0
    return None
