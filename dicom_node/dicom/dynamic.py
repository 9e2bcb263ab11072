"""Dynamic contrast-enhanced imaging: one time point per stack, in one series or in many."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dicom_node.dicom.stacks import Stack

MIN_PHASES = 5
MIN_DURATION_S = 60.0
MAX_PHASES = 24
_DENSE_PHASES = 12
Clock = Callable[[Stack], float | None]
_TT = re.compile(r"(?<![A-Za-z])TT\s*=\s*(\d+(?:\.\d+)?)\s*s", re.IGNORECASE)


class Dynamic(NamedTuple):
    """Time points in order; times in seconds from the first. ``left_out``: stack and reason."""

    stacks: tuple[Stack, ...]
    times_s: tuple[float, ...]
    left_out: tuple[tuple[Stack, str], ...]


def find_dynamic(candidates: Sequence[Stack]) -> Dynamic:
    """Find the dynamic series among fast T1-weighted stacks.

    At least 5 stacks of one geometry, image type, echo time and flip angle over at least 60 s;
    pre-scans with other flip angles, subtractions and single volumes fall away. Of several series
    the one with more phases, then the later one. Long series are thinned (``_thin``), so that
    memory stays bounded.
    """
    groups: list[list[Stack]] = []
    for stack in candidates:
        for group in groups:
            if _alike(stack, group[0]):
                group.append(stack)
                break
        else:
            groups.append([stack])
    found = [ordered for group in groups if (ordered := _in_time(group))]
    if not found:
        return Dynamic((), (), tuple((s, _NOT_DYNAMIC) for s in candidates))
    best = max(found, key=lambda g: (len(g), g[0][1].time_s or 0.0, g[0][1].series_uid))
    chosen = {id(stack) for _, stack in best}
    rejected = [(s, _NOT_DYNAMIC) for s in candidates if id(s) not in chosen]
    kept = _thin(best)
    start = kept[0][0]
    return Dynamic(
        tuple(stack for _, stack in kept),
        tuple(round(time - start, 3) for time, _ in kept),
        tuple(rejected),
    )


_NOT_DYNAMIC = (
    f"T1-weighted gradient echo, but not one of at least {MIN_PHASES} phases over "
    f"{MIN_DURATION_S:.0f} s (pre-scan or single volume)"
)


def _alike(a: Stack, b: Stack) -> bool:
    return (
        a.header.flip_angle == b.header.flip_angle
        and a.frames[0].image_type == b.frames[0].image_type
        and _rounded_echo(a) == _rounded_echo(b)
        and a.same_grid(b)
    )


def _rounded_echo(stack: Stack) -> float | None:
    echo = stack.frames[0].echo_time
    return None if echo is None else round(echo, 1)


def _in_time(group: list[Stack]) -> list[tuple[float, Stack]] | None:
    """Stacks with their times, or None where they are too few, too short or have no times."""
    group = [stack for stack in group if stack.uniform]
    if len(group) < MIN_PHASES:
        return None
    for every_phase in (True, False):
        for clock in _CLOCKS:
            timed = _timed(group, clock)
            complete = len(timed) == len(group) or not every_phase
            long = len(timed) >= MIN_PHASES and timed[-1][0] - timed[0][0] >= MIN_DURATION_S
            if complete and long:
                return timed
    return None


def _timed(group: list[Stack], clock: Clock) -> list[tuple[float, Stack]]:
    """Stacks in order of time; [] where a time is missing. Of two at one time one is kept."""
    known: dict[float, Stack] = {}
    for stack in sorted(group, key=_filed):
        time = clock(stack)
        if time is None:
            return []
        known[time] = stack
    return sorted(known.items(), key=lambda pair: pair[0])


def _filed(stack: Stack) -> tuple[int, tuple[str, int]]:
    return (stack.header.series_number or 0, stack.frames[0].key)


def _trigger(stack: Stack) -> float | None:
    trigger = stack.header.trigger_time
    return None if trigger is None else trigger / 1000.0


def _offset(stack: Stack) -> float | None:
    record = stack.frames[0].record
    return None if record is None else record.time_offset_s


def _temporal(stack: Stack) -> float | None:
    position, step = stack.frames[0].temporal_position, stack.header.temporal_resolution
    return None if position is None or not step else (position - 1) * step / 1000.0


def _described(stack: Stack) -> float | None:
    match = _TT.search(stack.header.series_description)
    return float(match.group(1)) if match else None


def _acquisition(stack: Stack) -> float | None:
    number, step = stack.header.acquisition_number, stack.header.temporal_resolution
    return None if number is None or not step else (number - 1) * step / 1000.0


_CLOCKS: tuple[Clock, ...] = (
    lambda stack: stack.time_s,
    _trigger,
    _offset,
    _temporal,
    _acquisition,
    _described,
)
"""Where the time of a phase stands, best first.

The first that tells all phases apart decides. Where none does, a phase was filed twice: the first
that spans the series does, and of two at one time the one filed later is used.
"""


def _thin(timed: list[tuple[float, Stack]]) -> list[tuple[float, Stack]]:
    """At most 24 phases: half of them dense in the wash-in, the others even to the end.

    The first 90 s (baseline, arrival and wash-in of the contrast agent) decide about a lesion, so
    12 phases are spread over them; 12 are spread over the wash-out. The last phase is kept.
    """
    if len(timed) <= MAX_PHASES:
        return timed
    start = timed[0][0]
    early = [pair for pair in timed if pair[0] - start <= 90.0]
    early_share = min(len(early), max(_DENSE_PHASES, MAX_PHASES - (len(timed) - len(early))))
    late = timed[len(early) :]
    return _spread(early, early_share) + _spread(late, MAX_PHASES - early_share)


def _spread(timed: list[tuple[float, Stack]], count: int) -> list[tuple[float, Stack]]:
    if len(timed) <= count:
        return timed
    if count <= 1:
        return timed[-1:] if count else []
    step = (len(timed) - 1) / (count - 1)
    return [timed[round(i * step)] for i in range(count)]
