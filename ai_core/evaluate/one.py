"""Evaluates one case: the whole analysis, its candidates against the truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.calibration import sigmoid
from ai_core.candidates import Candidate
from ai_core.evaluate.detection import assign
from ai_core.evaluate.record import (
    ABNORMALITY,
    FULL,
    LIKELIHOOD,
    TISSUE_TABLE,
    AnalysisRecord,
    BenignRecord,
    CandidateRecord,
    CaseRecord,
    LesionRecord,
)
from ai_core.evaluate.tissue import tissue_candidates
from ai_core.findings import mask_on
from ai_core.geometry import index_of_lps, lps_of_index
from ai_core.labelled import LabelledCase, Reference, lesion_parts
from ai_core.pipeline import Examination, examine
from ai_core.prepare.geometry import Window
from ai_core.release import Release
from ai_core.synthesis.branch import in_gland
from ai_core.types import Geometry, LabelArray, Modality, Vector3

#: A candidate this near to the middle of a benign focus lies on it.
NEAR_MM = 5.0
ZONE_NAMES = {1: "PZ", 2: "TZ"}


@dataclass(frozen=True)
class Plan:
    """What to compute beside the likelihood: the tissue table, and analyses without an image."""

    tissue_table: bool = True
    without: tuple[Modality, ...] = ()


@dataclass(frozen=True)
class _Placed:
    """Candidates with scores by method and uncertainty, on the working grid."""

    candidates: tuple[Candidate, ...]
    scores: tuple[dict[str, float], ...]
    spread: tuple[float, ...]


def evaluate_case(labelled: LabelledCase, release: Release, plan: Plan) -> CaseRecord:
    """Analyse a case and compare with its truth; raises as `analyse`."""
    reference = labelled.reference
    lesions, grades = _lesions(labelled)
    analyses = {}
    seen = examine(labelled.case, release)
    analyses[FULL] = _stated(seen, labelled, lesions)
    if plan.tissue_table:
        analyses[TISSUE_TABLE] = _judge(seen, _of_table(seen, release), labelled, lesions)
    for modality in plan.without:
        if modality in seen.result.modality_maps:
            part = examine(labelled.case, release, frozenset({modality}))
            record = _stated(part, labelled, lesions)
        else:
            record = analyses[FULL]  # it was not there
        analyses[f"without_{modality.value}"] = record
    return CaseRecord(
        name=labelled.name,
        site=labelled.site,
        positive=reference.positive,
        lesions_drawn=reference.grades is not None,
        lesions=_describe(lesions, grades, reference, labelled.case.t2w.geometry),
        benign=tuple(
            BenignRecord(kind=f.kind, isup=f.isup, pirads=f.pirads) for f in reference.benign or ()
        ),
        highest_pirads=reference.highest_pirads,
        analyses=analyses,
        quality=tuple(q.code.value for q in seen.result.quality),
    )


def _stated(seen: Examination, labelled: LabelledCase, lesions: LabelArray) -> AnalysisRecord:
    """Judge the release's own candidates, and keep what it says of the case."""
    record = _judge(seen, _of_release(seen), labelled, lesions)
    said: dict[str, object] = {"case_likelihood": round(seen.result.case_likelihood, 6)}
    if seen.abnormality is not None and seen.scene is not None:
        voxel_ml = float(np.prod(seen.scene.spacing_zyx_mm)) / 1000.0
        peak = in_gland(seen.abnormality.map, seen.scene.gland, voxel_ml)
        said |= {"abnormality": round(peak, 4), "abstained": not seen.abnormality.credible}
    return record.model_copy(update=said)


def _lesions(labelled: LabelledCase) -> tuple[LabelArray, tuple[int, ...]]:
    grades = labelled.reference.grades
    if grades is None:
        return np.zeros(labelled.case.t2w.geometry.shape_zyx, dtype=np.uint8), ()
    return lesion_parts(grades)


def _of_release(seen: Examination) -> _Placed:
    regions = seen.regions
    return _Placed(
        tuple(r.candidate for r in regions),
        tuple(
            {
                LIKELIHOOD: r.likelihood,
                "map": r.candidate.heat,
                "classifier": sigmoid(r.classifier_logit),
                "features": r.significance,
                **({} if r.abnormality is None else {ABNORMALITY: r.abnormality}),
            }
            for r in regions
        ),
        tuple(r.spread for r in regions),
    )


def _of_table(seen: Examination, release: Release) -> _Placed:
    if seen.scene is None:
        return _Placed((), (), ())
    found = tuple(tissue_candidates(seen.scene, release.config.candidates))
    return _Placed(found, tuple({LIKELIHOOD: c.heat} for c in found), (0.0,) * len(found))


def _judge(
    seen: Examination, placed: _Placed, labelled: LabelledCase, lesions: LabelArray
) -> AnalysisRecord:
    target, reference = seen.result.geometry, labelled.reference
    start = time.perf_counter()
    numbers, kept = _paint(placed.candidates, seen.grid, target)
    rows = []
    for index, result in zip(kept, assign(numbers, lesions), strict=True):
        rows.append(
            CandidateRecord(
                lesion=result.lesion,
                false=result.false,
                overlap=round(result.overlap, 4),
                peak_inside=_peak_inside(placed.candidates[index], seen.grid, target, lesions),
                scores={k: round(v, 6) for k, v in placed.scores[index].items()},
                uncertainty=round(placed.spread[index], 4),
            )
        )
    gland, zones = seen.result.gland_mask, seen.result.zones
    centers = [focus.center_lps_mm for focus in reference.benign or ()]
    spent = sum(seen.result.timings_s.values()) + time.perf_counter() - start
    return AnalysisRecord(
        candidates=tuple(rows),
        benign_candidates=tuple(_on(center, numbers, target) for center in centers),
        gland_found=seen.result.gland.credible,
        gland_dice=_dice(gland, reference.gland, 1),
        pz_dice=_dice(zones, reference.zones, 1),
        tz_dice=_dice(zones, reference.zones, 2),
        seconds=round(spent, 3),
    )


def _paint(
    candidates: Sequence[Candidate], grid: Geometry | None, target: Geometry
) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Paint candidates 1.. on the T2W grid, stronger ones first; also which have voxels there."""
    kept: list[int] = []
    window = None if grid is None else Window.over(grid, target)
    if grid is None or window is None:
        return np.zeros(target.shape_zyx, dtype=np.uint8), kept
    numbers = np.zeros(window.part.shape_zyx, dtype=np.uint8)
    for index, candidate in enumerate(candidates):
        mask = mask_on(candidate, grid, window.part) & (numbers == 0)
        if mask.any():
            kept.append(index)
            numbers[mask] = len(kept)
    return window.embed(numbers), kept


def _peak_inside(
    candidate: Candidate, grid: Geometry | None, target: Geometry, lesions: LabelArray
) -> bool:
    if grid is None:
        return False
    place = index_of_lps(target, lps_of_index(grid, candidate.peak_zyx))
    index = tuple(round(v) for v in place)
    inside = all(0 <= i < n for i, n in zip(index, lesions.shape, strict=True))
    return inside and bool(lesions[index] > 0)


def _on(center_lps_mm: Vector3, numbers: npt.NDArray[np.uint8], grid: Geometry) -> tuple[int, ...]:
    """Candidates (0-based) with a voxel within `NEAR_MM` of a point."""
    spacing = np.array(grid.spacing_xyz_mm[::-1])
    middle = np.array(index_of_lps(grid, center_lps_mm))
    low = np.maximum(0, np.floor(middle - NEAR_MM / spacing)).astype(int)
    high = np.maximum(0, np.ceil(middle + NEAR_MM / spacing) + 1).astype(int)
    part = numbers[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    places = np.argwhere(part)
    distance = (((places + low - middle) * spacing) ** 2).sum(1)
    near = places[distance <= NEAR_MM**2]
    return tuple(sorted({int(v) - 1 for v in part[tuple(near.T)]}))


def _dice(found: LabelArray, truth: LabelArray | None, label: int) -> float | None:
    if truth is None:
        return None
    one, other = found == label, truth == label
    total = int(one.sum()) + int(other.sum())
    return None if total == 0 else round(2.0 * int((one & other).sum()) / total, 5)


def _describe(
    lesions: LabelArray, grades: tuple[int, ...], reference: Reference, grid: Geometry
) -> tuple[LesionRecord, ...]:
    rows = []
    for number, grade in enumerate(grades, start=1):
        mask = lesions == number
        zone = "unknown"
        if reference.zones is not None:
            zones = reference.zones[mask]
            counts = np.bincount(zones[zones > 0], minlength=3)
            zone = ZONE_NAMES.get(int(counts.argmax()), "unknown") if counts.any() else "unknown"
        volume = float(mask.sum()) * grid.voxel_volume_mm3 / 1000.0
        rows.append(LesionRecord(isup=grade, volume_ml=round(volume, 4), zone=zone))
    return tuple(rows)
