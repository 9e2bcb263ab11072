"""What can be said about a candidate in numbers (claim 14): size, intensity, texture, lexicon.

Each feature has a plain name and unit; the significance model weighs them, and its contributions
can be read. Texture and shape follow the definitions of the Image Biomarker Standardisation
Initiative (IBSI) where one exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ai_core.candidates import Candidate, Mask, dilate_mm
from ai_core.synthesis.branch import in_region
from ai_core.texture import co_occurrence, principal_axes, wedge_index
from ai_core.types import FloatArray

LARGE_MM = 15.0  # PI-RADS v2.1: 15 mm separates category 4 from 5
CONTACT_MM = 1.5
RING_MM = 6.0
CORE_MM = 3.7
CORE_SHARE = 0.6
HISTOGRAM_BINS = 16
#: Mean and spread of tissue relative to the gland's own median, simulated tissue table:
#: (cancer mean, other mean, spread) of ADC ratio, high-b ratio and T2W z.
TISSUE_TABLE: dict[str, tuple[float, float, float]] = {
    "adc": (0.68, 1.0, 0.15),
    "high_b": (1.5, 1.0, 0.25),
    "t2w": (-0.8, 0.0, 0.8),
}


@dataclass(frozen=True)
class Scene:
    """What features are measured on, all on one grid.

    ``image`` is the normalised input ``(5, z, y, x)``; ``present`` names its valid channels among
    ``t2w, adc, high_b, dce``. ``abnormality``: the map of the synthesis branch; None where there is
    none, or it is not believed.
    """

    image: FloatArray
    present: frozenset[str]
    gland: Mask
    zones: npt.NDArray[np.uint8]
    spacing_zyx_mm: tuple[float, float, float]
    abnormality: FloatArray | None = None


#: Texture is measured between these normalised values (T2W: z-score; ADC: 10^-3 mm2/s).
TEXTURE_LIMITS = {"t2w": (-3.0, 3.0), "adc": (0.2, 2.6)}
TEXTURE = ("glcm_contrast", "glcm_homogeneity", "glcm_correlation")
CHANNEL = {"t2w": 0, "adc": 1, "high_b": 2, "dce": 3}
Features = dict[str, float | None]


def longest_diameter_mm(mask: Mask, spacing_zyx_mm: tuple[float, float, float]) -> float:
    """Longest extent within one slice: largest distance of voxel centres plus one voxel."""
    best = 0.0
    _, sy, sx = spacing_zyx_mm
    for plane in mask[mask.any(axis=(1, 2))]:
        edge = plane & ~ndimage.binary_erosion(plane)
        points = np.argwhere(edge) * np.array([sy, sx])
        squared = ((points[:, None] - points[None]) ** 2).sum(-1)
        best = max(best, float(np.sqrt(squared.max())))
    return best + (sy + sx) / 2 if mask.any() else 0.0


def candidate_features(candidate: Candidate, scene: Scene) -> Features:
    """All features of a candidate; None where a modality is missing."""
    mask, spacing = candidate.mask, scene.spacing_zyx_mm
    diameter = longest_diameter_mm(mask, spacing)
    axes = principal_axes(mask, spacing)
    volume_ml = float(mask.sum() * np.prod(spacing)) / 1000.0
    table: Features = {
        "volume_ml_log": float(np.log(max(volume_ml, 1e-3))),
        "diameter_mm": diameter,
        "heat_peak": candidate.heat,
        "lexicon_large": float(diameter >= LARGE_MM),
        "share_in_pz": float((scene.zones[mask] == 1).mean()),
        "sphericity": _sphericity(mask, spacing),
        "capsule_contact": _capsule_contact(mask, scene),
        "lexicon_symmetric": _symmetry(mask, scene),
        "lexicon_lenticular": 1 - axes.flatness,
        "lexicon_wedge": wedge_index(mask, scene.gland, spacing),
        "elongation": axes.elongation,
    }
    ring = dilate_mm(mask, RING_MM, spacing) & ~mask & scene.gland
    for name in CHANNEL:
        table |= _intensity(name, mask, ring, scene)
    for name in TEXTURE_LIMITS:
        table |= _texture(name, mask, scene)
    table |= _core_against_zone(candidate, scene)
    table["tissue_llr"] = tissue_llr(mask, scene)
    table["abnormality"] = abnormality_of(mask, scene)
    return table


def abnormality_of(mask: Mask, scene: Scene) -> float | None:
    """Return how unlike normal tissue a region is; None where synthesis says nothing."""
    return None if scene.abnormality is None else in_region(scene.abnormality, mask, scene.gland)


def _texture(name: str, mask: Mask, scene: Scene) -> Features:
    keys = [f"{name}_{what}" for what in TEXTURE]
    if name not in scene.present:
        return dict.fromkeys(keys)
    found = co_occurrence(scene.image[CHANNEL[name]], mask, *TEXTURE_LIMITS[name])
    return dict(zip(keys, (found.contrast, found.homogeneity, found.correlation), strict=True))


def _core_against_zone(candidate: Candidate, scene: Scene) -> Features:
    """Core of the candidate against the rest of its own zone, as a ratio to the zone's median.

    The core is a ball around the peak, whatever the map's outline; of it the darkest share on ADC
    and the brightest on high b, as one draws a region of interest.
    """
    mask = candidate.mask
    zone = 1 if float((scene.zones[mask] == 1).mean()) >= 0.5 else 2
    rest = (scene.zones == zone) & ~mask
    ball = _ball(candidate.peak_zyx, mask.shape, scene.spacing_zyx_mm)
    result: Features = {}
    for name, sign in (("adc", 1), ("high_b", -1)):
        values = scene.image[CHANNEL[name]]
        inside, around = values[ball], values[rest & (values > 0)]
        inside = np.sort(sign * inside[inside > 0]) * sign
        known = name in scene.present and inside.size > 0 and around.size > 0
        core = inside[: max(1, round(inside.size * CORE_SHARE))]
        result[f"{name}_core_ratio"] = (
            float(core.mean()) / max(float(np.median(around)), 0.05) if known else None
        )
    return result


def _ball(
    center_zyx: tuple[int, int, int],
    shape: tuple[int, ...],
    spacing_zyx_mm: tuple[float, float, float],
) -> tuple[npt.NDArray[np.intp], ...]:
    """Return the voxels within `CORE_MM` of a voxel, as indices."""
    reach = [int(CORE_MM / step) for step in spacing_zyx_mm]
    axes = [np.arange(-n, n + 1) for n in reach]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    near = offsets[((offsets * np.array(spacing_zyx_mm)) ** 2).sum(1) <= CORE_MM**2]
    places = near + np.array(center_zyx)
    places = places[((places >= 0) & (places < np.array(shape))).all(1)]
    return tuple(places.T)


FEATURES = (
    "volume_ml_log",
    "diameter_mm",
    "heat_peak",
    "lexicon_large",
    "share_in_pz",
    "sphericity",
    "capsule_contact",
    "lexicon_symmetric",
    "lexicon_lenticular",
    "lexicon_wedge",
    "elongation",
    *(f"{name}_{what}" for name in TEXTURE_LIMITS for what in TEXTURE),
    *(f"{name}_{what}" for name in CHANNEL for what in ("mean", "variance", "contrast")),
    "adc_p10",
    "t2w_entropy",
    "adc_core_ratio",
    "high_b_core_ratio",
    "tissue_llr",
    "abnormality",
)


#: What is known of significant cancer (PI-RADS v2.1): larger, darker on ADC and T2W, brighter on
#: high b, enhancing, homogeneous, lens-shaped; symmetric and wedge-shaped changes are benign.
DIRECTION: dict[str, int] = {
    "volume_ml_log": 1,
    "diameter_mm": 1,
    "heat_peak": 1,
    "lexicon_large": 1,
    "lexicon_symmetric": -1,
    "lexicon_lenticular": 1,
    "lexicon_wedge": -1,
    "adc_mean": -1,
    "adc_contrast": -1,
    "adc_p10": -1,
    "adc_core_ratio": -1,
    "adc_glcm_contrast": -1,
    "adc_glcm_homogeneity": 1,
    "t2w_mean": -1,
    "t2w_contrast": -1,
    "t2w_entropy": -1,
    "t2w_glcm_contrast": -1,
    "t2w_glcm_homogeneity": 1,
    "high_b_mean": 1,
    "high_b_contrast": 1,
    "high_b_core_ratio": 1,
    "dce_mean": 1,
    "dce_contrast": 1,
    "tissue_llr": 1,
    "abnormality": 1,
}


def tissue_llr(mask: Mask, scene: Scene) -> float | None:
    """Mean log-likelihood ratio cancer : other from the tissue table, over the images there are."""
    total, used = 0.0, False
    for name, (cancer, other, spread) in TISSUE_TABLE.items():
        if name not in scene.present:
            continue
        values = scene.image[CHANNEL[name]]
        mean = float(values[mask].mean())
        if name == "adc":
            inside = values[scene.gland & (values > 0)]
            mean /= max(float(np.median(inside)) if inside.size else 1.0, 0.1)
        total += ((mean - other) ** 2 - (mean - cancer) ** 2) / (2 * spread**2)
        used = True
    return total if used else None


def _intensity(name: str, mask: Mask, ring: Mask, scene: Scene) -> Features:
    keys = [f"{name}_mean", f"{name}_variance", f"{name}_contrast"]
    extra = {"adc": "adc_p10", "t2w": "t2w_entropy"}.get(name)
    if name not in scene.present:
        return dict.fromkeys([*keys, *([extra] if extra else [])])
    values = scene.image[CHANNEL[name]]
    inside = values[mask]
    around = values[ring] if ring.any() else inside
    numbers = (
        float(inside.mean()),
        float(inside.var()),
        float(inside.mean() - np.median(around)),
    )
    result: Features = dict(zip(keys, numbers, strict=True))
    if name == "adc":
        result["adc_p10"] = float(np.percentile(inside, 10))
    if name == "t2w":
        counts, _ = np.histogram(inside, bins=HISTOGRAM_BINS, range=(-4.0, 4.0))
        share = counts[counts > 0] / max(1, counts.sum())
        result["t2w_entropy"] = float(-(share * np.log2(share)).sum())
    return result


def _sphericity(mask: Mask, spacing_zyx_mm: tuple[float, float, float]) -> float:
    """Radius of the sphere of equal volume over the root-mean-square radius of a sphere's kind."""
    points = np.argwhere(mask) * np.array(spacing_zyx_mm)
    if len(points) < 2:
        return 1.0
    equal = (3 * len(points) * float(np.prod(spacing_zyx_mm)) / (4 * np.pi)) ** (1 / 3)
    rms = float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()))
    return float(min(1.0, equal * 0.6**0.5 / max(rms, 1e-6)))


def _capsule_contact(mask: Mask, scene: Scene) -> float:
    """Share of the candidate within 1.5 mm of the outside of the gland (slice plane)."""
    spacing = (1e3, *scene.spacing_zyx_mm[1:])
    near = dilate_mm(~scene.gland, CONTACT_MM, spacing)
    return float(near[mask].mean())


def _symmetry(mask: Mask, scene: Scene) -> float:
    """1 where the mirror image of the candidate about the gland's mid-plane looks alike (T2W)."""
    columns = np.flatnonzero(scene.gland.any(axis=(0, 1)))
    if columns.size == 0:
        return 0.0
    places = np.argwhere(mask)
    places[:, 2] = columns[0] + columns[-1] - places[:, 2]
    places = places[(places[:, 2] >= 0) & (places[:, 2] < mask.shape[2])]
    if not len(places):
        return 0.0
    t2w = scene.image[0]
    difference = abs(float(t2w[tuple(places.T)].mean()) - float(t2w[mask].mean()))
    return max(0.0, 1.0 - difference)
