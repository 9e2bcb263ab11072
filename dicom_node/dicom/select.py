"""Choose the input series of a study from the headers of its instances. Pure and deterministic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dicom_node.dicom.classify import FAT_SAT_TEXT, Kind, Verdict, classify
from dicom_node.dicom.diffusion import Diffusion, choose_diffusion
from dicom_node.dicom.dynamic import find_dynamic
from dicom_node.dicom.eligibility import MR_CLASSES, business_problem, identity_differences
from dicom_node.dicom.frames import Unplaced, expand
from dicom_node.dicom.records import InstanceHeader
from dicom_node.dicom.stacks import FrameRef, Stack, split
from dicom_node.domain.reasons import Reason

__all__ = ["Chosen", "FrameRef", "Rejected", "Selection", "Stack", "select"]

MIN_T2W_COVERAGE_MM = 50.0
_MIN_OVERLAP = 0.25


class Rejected(NamedTuple):
    """A series, or a part of one, that is not used, and why."""

    series_uid: str
    description: str
    reason: str


class Chosen(NamedTuple):
    """A series in its role. ``b_value`` in s/mm^2; ``computed``: extrapolated, not acquired."""

    series_uid: str
    description: str
    b_value: float | None = None
    computed: bool = False
    images: int = 0


@dataclass(frozen=True)
class Selection:
    """The chosen input of one study.

    ``dwi``: one stack per b-value, ascending; ``dce``: phases in time order (long series thinned),
    ``dce_times_s`` from the first. ``adc_to_um2_s`` multiplies ADC values (after the mapping that
    ``volume`` applies) to um2/s, None: unit not proven. ``complete``: axial T2W and diffusion are
    there and no slice is missing. ``problem``: why the study cannot be analysed as it stands;
    ``detail`` adds to its words. ``business`` is False where nothing may be sent at all.
    """

    t2w: Stack | None = None
    adc: Stack | None = None
    adc_to_um2_s: float | None = None
    dwi: tuple[Stack, ...] = ()
    high_b: Stack | None = None
    high_b_computed: bool = False
    dce: tuple[Stack, ...] = ()
    dce_times_s: tuple[float, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    complete: bool = False
    problem: Reason | None = None
    detail: str = ""
    business: bool = True
    notes: tuple[str, ...] = ()

    def roles(self) -> tuple[tuple[str, Stack], ...]:
        """Every chosen stack with its role: t2w, adc, dwi, high_b, dce."""
        single = (("t2w", self.t2w), ("adc", self.adc), ("high_b", self.high_b))
        many = [("dwi", stack) for stack in self.dwi] + [("dce", stack) for stack in self.dce]
        return (*((role, s) for role, s in single if s is not None), *many)

    def instances_used(self) -> tuple[str, ...]:
        """SOP Instance UIDs of all chosen stacks, sorted."""
        return tuple(sorted({uid for _, s in self.roles() for uid in s.sop_instance_uids}))

    def input_key(self) -> str:
        """SHA-256 over roles, b-values and images: equal keys mean equal input."""
        lines = sorted(
            f"{role} {stack.b_value if role in _B_ROLES else None} {i} {ref.sop_instance_uid} "
            f"{ref.frame_index}"
            for role, stack in self.roles()
            for i, ref in enumerate(stack.refs)
        )
        lines.append(repr((self.adc_to_um2_s, self.high_b_computed, self.dce_times_s)))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def chosen(self) -> dict[str, tuple[Chosen, ...]]:
        """Role to the series used in it, for reports."""
        found: dict[str, tuple[Chosen, ...]] = {}
        for role, stack in self.roles():
            computed = role == "high_b" and self.high_b_computed
            entry = Chosen(
                stack.series_uid,
                stack.description,
                stack.b_value if role in _B_ROLES else None,
                computed,
                len(stack.frames),
            )
            found[role] = (*found.get(role, ()), entry)
        return found

    def inputs(self) -> dict[str, str | None]:
        """Role to Series Instance UID (DCE in many series: the first), as in the JSON output."""
        chosen = self.chosen()
        return {
            role: chosen[role][0].series_uid if role in chosen else None
            for role in ("t2w", "adc", "high_b", "dce")
        }


_B_ROLES = frozenset(("dwi", "high_b"))


class _Sorted(NamedTuple):
    """Stacks by kind, and what cannot be used."""

    stacks: dict[Kind, list[Stack]]
    unusable: list[tuple[Stack, Verdict]]
    unplaced: list[Unplaced]


def select(headers: Sequence[InstanceHeader]) -> Selection:
    """Choose the input of one study.

    The result does not depend on the order of the headers. It never raises for what a study
    holds: what is wrong stands in ``problem``.
    """
    conflicts, notes = identity_differences(headers)
    foreign = business_problem(headers)
    sorted_ = _sort(headers)
    selection = _choose(sorted_, notes)
    if conflicts:
        return _with_problem(selection, Reason.IDENTITY_CONFLICT, ", ".join(conflicts) + ".")
    if foreign is not None:
        return _with_problem(selection, foreign, business=False)
    return selection


def _with_problem(
    selection: Selection, problem: Reason, detail: str = "", *, business: bool = True
) -> Selection:
    return replace(selection, problem=problem, detail=detail, business=business)


def _sort(headers: Sequence[InstanceHeader]) -> _Sorted:
    images = [h for h in headers if h.sop_class_uid in MR_CLASSES]
    unplaced = [
        Unplaced(h, "not an MR image")
        for h in sorted(headers, key=lambda h: h.sop_instance_uid)
        if h.sop_class_uid not in MR_CLASSES
    ]
    frames, without_geometry = expand(images)
    stacks: dict[Kind, list[Stack]] = {kind: [] for kind in Kind}
    unusable: list[tuple[Stack, Verdict]] = []
    for stack in split(frames):
        verdict = classify(stack)
        if verdict.kind is Kind.OTHER:
            unusable.append((stack, verdict))
        else:
            stacks[verdict.kind].append(stack)
    return _Sorted(stacks, unusable, without_geometry + unplaced)


def _choose(found: _Sorted, notes: list[str]) -> Selection:
    diffusion = choose_diffusion(
        found.stacks[Kind.ADC], found.stacks[Kind.DWI], found.stacks[Kind.COMPUTED_DWI]
    )
    t2w, other_t2w = _choose_t2w(found.stacks[Kind.T2W], diffusion)
    near, elsewhere = _near(found.stacks, t2w)
    if elsewhere:
        again = choose_diffusion(near[Kind.ADC], near[Kind.DWI], near[Kind.COMPUTED_DWI])
        diffusion = again if again.usable is not None else diffusion
    dynamic = find_dynamic(near[Kind.DCE])
    problem, detail = _problem(found, t2w, diffusion)
    notes = [*notes, *diffusion.notes, *_remarks(t2w, diffusion, dynamic.stacks)]
    used = {id(stack) for stack in (diffusion.adc, diffusion.high_b, *diffusion.dwi)}
    left_out = (
        *other_t2w, *diffusion.left_out, *dynamic.left_out,
        *((stack, _WHY_ELSEWHERE) for stack in elsewhere if id(stack) not in used),
    )  # fmt: skip
    return Selection(
        t2w=t2w,
        adc=diffusion.adc,
        adc_to_um2_s=diffusion.adc_to_um2_s,
        dwi=diffusion.dwi,
        high_b=diffusion.high_b,
        high_b_computed=diffusion.high_b_computed,
        dce=dynamic.stacks,
        dce_times_s=dynamic.times_s,
        rejected=_rejected(found, left_out),
        complete=t2w is not None and t2w.uniform and diffusion.complete,
        problem=problem,
        detail=detail,
        notes=tuple(notes),
    )


_WHY_ELSEWHERE = "another frame of reference than the T2W images, and another place"


def _near(
    stacks: dict[Kind, list[Stack]], t2w: Stack | None
) -> tuple[dict[Kind, list[Stack]], list[Stack]]:
    """Part the stacks that show the place of the T2W images from those that do not.

    With one frame of reference positions can be compared and nothing is parted.
    """
    near: dict[Kind, list[Stack]] = {kind: [] for kind in Kind}
    elsewhere: list[Stack] = []
    for kind, some in stacks.items():
        for stack in some:
            away = kind is not Kind.T2W and t2w is not None and _is_elsewhere(t2w, stack)
            (elsewhere if away else near[kind]).append(stack)
    return near, elsewhere


def _is_elsewhere(t2w: Stack, stack: Stack) -> bool:
    return not _same_frame(t2w, stack) and _overlap(t2w, stack) < _MIN_OVERLAP


def _same_frame(a: Stack, b: Stack) -> bool:
    return a.header.frame_of_reference_uid == b.header.frame_of_reference_uid


def _choose_t2w(
    stacks: list[Stack], diffusion: Diffusion
) -> tuple[Stack | None, list[tuple[Stack, str]]]:
    """Choose the axial T2W by completeness, coverage, contrast, slices, pixels, place and time.

    No missing slice, coverage, no fat saturation, more slices, smaller pixels, closest to the
    diffusion images, latest (a repeat is usually because of motion).
    """
    if not stacks:
        return None, []
    reference = diffusion.adc or (diffusion.dwi[0] if diffusion.dwi else None)

    def rank(stack: Stack) -> tuple[object, ...]:
        return (
            stack.uniform,
            stack.coverage_mm >= MIN_T2W_COVERAGE_MM,
            not is_fat_saturated(stack),
            len(stack.frames),
            -round(max(stack.frames[0].spacing), 2),
            reference is not None and _same_frame(reference, stack),
            -_distance_mm(stack, reference),
            stack.time_s or 0.0,
            stack.series_uid,
        )

    ordered = sorted(stacks, key=rank, reverse=True)
    reason = "another axial T2-weighted series was preferred (coverage, slices, pixels, latest)"
    return ordered[0], [(stack, reason) for stack in ordered[1:]]


def is_fat_saturated(stack: Stack) -> bool:
    """Whether scan options or the description name fat suppression."""
    return "FS" in stack.header.scan_options or bool(FAT_SAT_TEXT.search(stack.description))


def _distance_mm(stack: Stack, reference: Stack | None) -> float:
    """Distance of the middles, rounded so that a shift of a voxel does not decide."""
    if reference is None:
        return 0.0
    return float(
        round(
            sum(
                ((a + b - c - d) / 2) ** 2
                for a, b, c, d in zip(*stack.corners_lps_mm, *reference.corners_lps_mm, strict=True)
            )
            ** 0.5,
            -1,
        )
    )


def _problem(found: _Sorted, t2w: Stack | None, diffusion: Diffusion) -> tuple[Reason | None, str]:
    """Why the study cannot be analysed as it stands: the first thing missing."""
    if t2w is None:
        return _missing(found, (Kind.T2W,), Reason.NO_T2W, Reason.T2W_INCOMPLETE)
    if not t2w.uniform:
        return Reason.T2W_INCOMPLETE, f"Series {t2w.description!r}."
    if diffusion.usable is None:
        if diffusion.b_unknown:
            return Reason.B_VALUES_UNKNOWN, ""
        return _missing(
            found,
            (Kind.ADC, Kind.DWI),
            Reason.NO_DIFFUSION,
            Reason.DIFFUSION_INCOMPLETE,
        )
    if not diffusion.complete:
        return Reason.DIFFUSION_INCOMPLETE, f"Series {diffusion.usable.description!r}."
    if _is_elsewhere(t2w, diffusion.usable):
        return Reason.FRAME_OF_REFERENCE_DIFFERS, ""
    return None, ""


def _missing(
    found: _Sorted, kinds: tuple[Kind, ...], absent: Reason, incomplete: Reason
) -> tuple[Reason, str]:
    """Tell a series that is absent from one that is there but cannot be used."""
    wanted = [(stack, v) for stack, v in found.unusable if v.wanted in kinds]
    without_pixels = [stack for stack, _ in wanted if not stack.header.has_pixel_data]
    if without_pixels:
        return Reason.NO_PIXEL_DATA, f"Series {without_pixels[0].description!r}."
    if wanted:
        stack, verdict = wanted[0]
        return incomplete, f"Series {stack.description!r}: {verdict.reason}."
    broken = [u for u in found.unplaced if u.header.sop_class_uid in MR_CLASSES]
    if broken:
        header, reason = broken[0]
        return Reason.GEOMETRY_UNREADABLE, f"Series {header.series_description!r}: {reason}."
    for stack, verdict in found.unusable:
        if absent is Reason.NO_DIFFUSION and "DIFFUSION" in stack.frames[0].image_type:
            return absent, f"Series {stack.description!r} cannot be used: {verdict.reason}."
    return absent, ""


def _overlap(a: Stack, b: Stack) -> float:
    """Shared part of two boxes along the patient axes, as a share of the smaller one."""
    shared = volume_a = volume_b = 1.0
    for low_a, high_a, low_b, high_b in zip(*a.corners_lps_mm, *b.corners_lps_mm, strict=True):
        shared *= max(0.0, min(high_a, high_b) - max(low_a, low_b))
        volume_a *= high_a - low_a
        volume_b *= high_b - low_b
    return shared / max(min(volume_a, volume_b), 1e-6)


def _remarks(t2w: Stack | None, diffusion: Diffusion, dynamic: Sequence[Stack]) -> list[str]:
    notes = []
    if t2w is not None and t2w.coverage_mm < MIN_T2W_COVERAGE_MM:
        notes.append(f"axial T2W covers {t2w.coverage_mm:.0f} mm only")
    if t2w is not None and t2w.duplicates:
        notes.append("axial T2W holds slices twice; the latest acquisition is used")
    named = (
        ("diffusion", (diffusion.usable, *diffusion.dwi)),
        ("the high-b image", (diffusion.high_b,)),
        ("the dynamic series", dynamic[:1]),
    )
    for name, stacks in named:
        if t2w is not None and any(s is not None and not _same_frame(t2w, s) for s in stacks):
            notes.append(f"T2W and {name} have different frames of reference")
    return notes


def _rejected(found: _Sorted, left_out: Sequence[tuple[Stack, str]]) -> tuple[Rejected, ...]:
    """Every series or part that is not used, each reason once, ordered by series number."""
    entries: dict[Rejected, int] = {}
    for stack, reason in (*((s, v.reason) for s, v in found.unusable), *left_out):
        entry = Rejected(stack.series_uid, stack.description, reason)
        entries.setdefault(entry, stack.header.series_number or 0)
    for header, reason in found.unplaced:
        entry = Rejected(header.series_uid, header.series_description, reason)
        entries.setdefault(entry, header.series_number or 0)
    return tuple(sorted(entries, key=lambda entry: (entries[entry], entry)))
