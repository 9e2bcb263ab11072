"""From an examination to findings: the story of one analysis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from ai_core.candidates import Candidate, Mask, dilate_mm, extract_candidates
from ai_core.features import Scene, candidate_features
from ai_core.findings import Region, to_findings, to_t2w_grid
from ai_core.geometry import centre_lps, lps_of_index
from ai_core.gland import GlandFound, find_gland, overlap_on
from ai_core.localize import Maps, SecondOpinion, classify, localize, second_opinion, zones_in
from ai_core.prepare.assemble import Prepared, assemble, check_case
from ai_core.prepare.geometry import Window, resample, resample_map, to_sitk, working_grid
from ai_core.prepare.normalise import network_input
from ai_core.quality import gland_cut_off, judge_measures, signal_to_noise
from ai_core.release import Release
from ai_core.synthesis.compare import Abnormality
from ai_core.synthesis.complete import Prostate
from ai_core.synthesis.result import in_words, on_t2w
from ai_core.types import (
    Case,
    CaseResult,
    FloatArray,
    Geometry,
    Gland,
    LabelArray,
    Modality,
    Quality,
    QualityFinding,
    Vector3,
    Volume,
)

#: A gland whose middle lies further than this from the grid's is looked at again, centred.
OFF_CENTRE_MM = 5.0


@dataclass
class _Run:
    """One analysis: the case, the release, images to withhold, and wall time by stage."""

    case: Case
    release: Release
    without: frozenset[Modality]
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Examination:
    """A result with what evaluation looks at behind it.

    ``regions``: all candidates, most likely first, also those below the reporting threshold, on
    ``grid``; ``scene``: the images they were measured on; ``abnormality``: opinion of the synthesis
    branch on that grid, also where it abstains. No gland: none of them.
    """

    result: CaseResult
    regions: tuple[Region, ...] = ()
    grid: Geometry | None = None
    scene: Scene | None = None
    abnormality: Abnormality | None = None


def analyse(case: Case, release: Release) -> CaseResult:
    """Find the prostate and suspicious lesions.

    Same case, release and machine: same result. Quality is reported and never refuses.

    Raises:
        GeometryError: a volume cannot be placed in the patient.
        InputError: the case has neither ADC nor diffusion with two b-values.
    """
    return examine(case, release).result


def examine(
    case: Case, release: Release, without: frozenset[Modality] = frozenset()
) -> Examination:
    """Analyse a case and keep the candidates behind the result; raises as `analyse`.

    ``without``: prepared images that the networks do not get to see.
    """
    check_case(case)
    run = _Run(case, release, without)
    with run.stage("gland"):
        found = find_gland(case.t2w, release)
    if not found.credible:
        doubt = str(found.doubt)
        return Examination(_without_gland(run, found.volume_ml, doubt))
    view = _look(run, found.center_lps_mm, _outline(found), found.grid)
    unsure = _doubt(view.opinion, release)
    if unsure is not None:
        return Examination(_without_gland(run, found.volume_ml, unsure))
    if _off_centre(view):
        grid = view.prepared.grid
        center = lps_of_index(grid, _centroid(view.gland))
        view = _look(run, center, view.gland.astype(np.float32), grid)
    opinion = _second_look(run, view)
    with run.stage("findings"):
        scene = _scene(view, release, opinion)
        regions = _regions(view, scene, release)
        result = _result(run, view, regions, opinion)
    return Examination(result, tuple(regions), view.prepared.grid, scene, opinion)


def _second_look(run: _Run, view: _View) -> Abnormality | None:
    """Return what the synthesis branch says; None where there is none, or no gland."""
    branch = run.release.synthesis
    if branch is None or not view.gland.any():
        return None
    with run.stage("synthesis"), run.release.computing():
        return branch.opinion(_prostate(view), run.release.config)


def _prostate(view: _View) -> Prostate:
    image = view.maps.image[0].cpu().numpy()
    return Prostate(image, view.prepared.images.present(), view.zones)


@dataclass(frozen=True)
class _View:
    """Prepared images of one working grid, the maps found on them, gland and zones."""

    prepared: Prepared
    maps: Maps
    opinion: SecondOpinion
    zones: LabelArray

    @property
    def gland(self) -> Mask:
        """The gland at the resolution of this grid."""
        return self.opinion.gland


def _look(run: _Run, center_lps_mm: Vector3, outline: FloatArray, outline_grid: Geometry) -> _View:
    """Prepare images around a point and localize. ``outline``: what is known of the gland, 0-1."""
    case, release = run.case, run.release
    with run.stage("prepare"):
        grid = working_grid(case.t2w.geometry, center_lps_mm, release.config.lesion_grid)
        t2w = resample(to_sitk(case.t2w), grid)
        rough = resample_map(outline, outline_grid, grid) > 0.5
        prepared = assemble(case, t2w, rough, grid, release.config)
        prepared = replace(prepared, images=prepared.images.without(run.without))
        rules = release.config.normalise
        stack = network_input(prepared.images, rough, rules, release.profile)
    with run.stage("infer"):
        maps = localize(stack, prepared.images.present(), release)
        opinion = second_opinion(maps, rough)
    return _View(prepared, maps, opinion, zones_in(opinion.gland, maps))


def _doubt(opinion: SecondOpinion, release: Release) -> str | None:
    """Why the localizer, which sees all images, does not confirm the finder's prostate."""
    rules = release.config.credible
    if opinion.agreement < rules.minimum_agreement:
        return f"the images do not agree where it is, overlap {opinion.agreement:.2f}"
    if opinion.sureness < rules.minimum_sureness:
        return f"all images together show none, sureness {opinion.sureness:.2f}"
    voxel_ml = float(np.prod(release.config.lesion_grid.spacing_zyx_mm)) / 1000.0
    volume_ml = float(opinion.gland.sum()) * voxel_ml
    low, high = rules.volume_ml
    if not low <= volume_ml <= high:
        return f"volume {volume_ml:.0f} mL"
    return None


def _outline(found: GlandFound) -> FloatArray:
    return np.where(found.mask, found.probability, 0.0).astype(np.float32)


def _off_centre(view: _View) -> bool:
    """Whether the gland lies far from the middle of the grid: the outline was rough."""
    grid = view.prepared.grid
    center = lps_of_index(grid, _centroid(view.gland))
    return float(np.linalg.norm(np.subtract(center, centre_lps(grid)))) > OFF_CENTRE_MM


def _centroid(mask: Mask) -> tuple[float, float, float]:
    z, y, x = np.argwhere(mask).mean(0)
    return (float(z), float(y), float(x))


def _scene(view: _View, release: Release, opinion: Abnormality | None) -> Scene:
    names = frozenset(m.value for m in view.prepared.images.present())
    image = view.maps.image[0].cpu().numpy()
    spacing = release.config.lesion_grid.spacing_zyx_mm
    believed = opinion.map if opinion is not None and opinion.credible else None
    return Scene(image, names, view.gland, view.zones, spacing, believed)


def _regions(view: _View, scene: Scene, release: Release) -> list[Region]:
    """Return candidates with likelihood, suspicion and significance, most likely first."""
    prepared, maps = view.prepared, view.maps
    rules = release.config.candidates
    candidates = extract_candidates(maps.heat, view.gland, scene.spacing_zyx_mm, rules)
    scores = classify(candidates, maps, release)
    regions = []
    for candidate, score in zip(candidates, scores, strict=True):
        features = candidate_features(candidate, scene)
        significance = release.significance.probability(features)
        regions.append(
            Region(
                candidate,
                release.calibration.likelihood(candidate.heat, score.logit, significance),
                score.suspicion,
                significance,
                score.spread,
                _mean_adc(candidate, prepared),
                score.logit,
                features["abnormality"],
            )
        )
    return sorted(regions, key=lambda region: -region.likelihood)


def _mean_adc(candidate: Candidate, prepared: Prepared) -> float | None:
    """Mean ADC (um2/s) where its unit is known and the map covers the region."""
    adc = prepared.images.adc_um2_s
    if adc is None or not prepared.adc_unit_known:
        return None
    values = adc[candidate.mask & (adc > 0)]
    return float(values.mean()) if values.size else None


def _result(
    run: _Run, view: _View, regions: list[Region], opinion: Abnormality | None
) -> CaseResult:
    case, release = run.case, run.release
    prepared, maps, gland = view.prepared, view.maps, view.gland
    grid = prepared.grid
    window = Window.over(grid, case.t2w.geometry)
    if window is None:
        return _without_gland(run, 0.0, "it lies outside the image")
    target, whole = window.part, window.embed
    margin = release.config.candidates.gland_margin_mm
    near = dilate_mm(gland, margin, release.config.lesion_grid.spacing_zyx_mm)
    masks = to_t2w_grid(gland, maps, np.where(near, maps.heat, 0.0), grid, target)
    reported = [r for r in regions if r.likelihood >= release.calibration.report_from]
    findings, lesions, relevance = to_findings(
        reported, masks, grid, target, release.significance.yes_from
    )
    gland_mask = whole(masks.gland)
    measures = _measures(run, view)
    cut = gland_cut_off(gland_mask > 0, case.t2w.geometry)
    remarks = [*prepared.quality, *judge_measures(measures), *([cut] if cut else [])]
    remarks += in_words(opinion)
    highest = max((region.likelihood for region in regions), default=0.0)
    return CaseResult(
        geometry=case.t2w.geometry,
        gland=masks.as_gland(target),
        gland_mask=gland_mask,
        zones=whole(masks.zones),
        lesions=whole(lesions),
        likelihood=whole(masks.heat),
        relevance=whole(relevance),
        modality_maps=MappingProxyType(
            {
                name: whole(
                    resample_map(np.where(near, values, 0.0).astype(np.float32), grid, target)
                )
                for name, values in maps.modality.items()
            }
        ),
        findings=findings,
        case_likelihood=release.calibration.case_likelihood(highest),
        case_significant=any(finding.significant for finding in findings),
        quality=tuple(remarks),
        release=release.info,
        used=MappingProxyType(prepared.used),
        timings_s=MappingProxyType(run.stages),
        measures=MappingProxyType(measures),
        synthesis=on_t2w(opinion, _prostate(view), grid, window),
    )


def _measures(run: _Run, view: _View) -> dict[str, float]:
    """Measure what input quality is judged on; what cannot be measured is left out."""
    case, grid = run.case, view.prepared.grid
    soft = view.gland.astype(np.float32)

    def snr(volume: Volume) -> float | None:
        box = Window.over(grid, volume.geometry)
        if box is None:
            return None
        there = resample_map(soft, grid, box.part) > 0.5
        return signal_to_noise(box.cut(volume.array).astype(np.float32), there)

    found: dict[str, float | None] = {"snr_t2w": snr(case.t2w)}
    if case.dwi:
        by_b = sorted(case.dwi, key=lambda image: image.b_value_s_per_mm2)
        gland = Volume(view.gland.astype(np.uint8), grid)
        center = lps_of_index(grid, _centroid(view.gland))
        found["snr_dwi"] = snr(by_b[-1].volume)
        found["gland_overlap_dwi_t2w"] = overlap_on(by_b[0].volume, center, gland, run.release)
    if run.release.familiarity is not None:
        embedding = view.maps.embedding(view.gland)
        found["out_of_distribution"] = run.release.familiarity.score(embedding)
    return {name: value for name, value in found.items() if value is not None}


def _without_gland(run: _Run, volume_ml: float, doubt: str) -> CaseResult:
    """Return the result where no prostate was recognised: empty maps, and the reason."""
    case, release = run.case, run.release
    shape = case.t2w.geometry.shape_zyx
    labels: LabelArray = np.zeros(shape, dtype=np.uint8)
    empty: FloatArray = np.zeros(shape, dtype=np.float32)
    return CaseResult(
        geometry=case.t2w.geometry,
        gland=Gland(round(volume_ml, 1), None, False),
        gland_mask=labels,
        zones=labels,
        lesions=labels,
        likelihood=empty,
        relevance=empty,
        modality_maps=MappingProxyType({}),
        findings=(),
        case_likelihood=0.0,
        case_significant=False,
        quality=(
            QualityFinding(Quality.NO_CREDIBLE_GLAND, f"No prostate was recognised ({doubt})."),
        ),
        release=release.info,
        used=MappingProxyType({"t2w": "as acquired"}),
        timings_s=MappingProxyType(run.stages),
    )
