"""From regions on the working grid to findings on the T2W grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ai_core.candidates import CUBE_26, Candidate, Mask
from ai_core.features import longest_diameter_mm
from ai_core.geometry import index_of_lps, lps_of_index
from ai_core.localize import Maps
from ai_core.prepare.geometry import resample_map
from ai_core.sectors import sector_of
from ai_core.types import Finding, FloatArray, Geometry, Gland, LabelArray


@dataclass(frozen=True)
class Region:
    """A scored candidate on the working grid. ``significance`` is the probability of the label.

    ``classifier_logit`` is the classifier's part of the likelihood.
    ``abnormality``: as in `Finding`.
    """

    candidate: Candidate
    likelihood: float
    suspicion: float
    significance: float
    spread: float
    mean_adc_um2_s: float | None
    classifier_logit: float
    abnormality: float | None = None


@dataclass(frozen=True)
class OnT2w:
    """Gland (0/1), zones (1 PZ, 2 TZ) and fused map on the T2W grid."""

    gland: LabelArray
    zones: LabelArray
    heat: FloatArray

    def as_gland(self, geometry: Geometry) -> Gland:
        """Volume and centre of the gland."""
        count = int(self.gland.sum())
        if count == 0:
            return Gland(0.0, None, True)
        z, y, x = (float(v) for v in ndimage.center_of_mass(self.gland))
        volume = count * geometry.voxel_volume_mm3 / 1000.0
        return Gland(volume, lps_of_index(geometry, (z, y, x)), True)


def to_t2w_grid(
    gland: Mask, maps: Maps, heat: FloatArray, grid: Geometry, target: Geometry
) -> OnT2w:
    """Resample the gland, zones and map; outlines are cut from smooth values, not from labels."""
    on_target = resample_map(_soft(gland, 1 - maps.zones[0]), grid, target) > 0.5
    peripheral = resample_map(maps.zones[1], grid, target)
    central = resample_map(maps.zones[2], grid, target)
    zones = np.where(on_target, np.where(peripheral >= central, 1, 2), 0).astype(np.uint8)
    values = resample_map(heat.astype(np.float32), grid, target)
    return OnT2w(on_target.astype(np.uint8), zones, np.clip(values, 0.0, 1.0))


def _soft(gland: Mask, probability: FloatArray) -> FloatArray:
    """Probability with the side of one half that the mask says."""
    inside = np.maximum(probability, 0.51)
    outside = np.minimum(probability, 0.49)
    return np.where(gland, inside, outside).astype(np.float32)


def to_findings(
    regions: list[Region],
    masks: OnT2w,
    grid: Geometry,
    target: Geometry,
    significant_from: float,
) -> tuple[tuple[Finding, ...], LabelArray, FloatArray]:
    """Return findings by rank, their label image, and the clinical relevance map, on the T2W grid.

    Clinical relevance (claim 14): the map times the probability of significance, per finding.
    """
    lesions: LabelArray = np.zeros(target.shape_zyx, dtype=np.uint8)
    relevance: FloatArray = np.zeros(target.shape_zyx, dtype=np.float32)
    findings: list[Finding] = []
    for region in regions:
        mask = mask_on(region.candidate, grid, target) & (lesions == 0)
        if not mask.any():
            continue
        rank = len(findings) + 1
        lesions[mask] = rank
        relevance[mask] = masks.heat[mask] * region.significance
        findings.append(_finding(rank, region, mask, masks, target, significant_from))
    return tuple(findings), lesions, relevance


def mask_on(candidate: Candidate, grid: Geometry, target: Geometry) -> Mask:
    """Return a candidate on the T2W grid: its largest part; where too thin, its peak voxel."""
    soft = resample_map(candidate.mask.astype(np.float32), grid, target)
    labels, count = ndimage.label(soft > 0.5, CUBE_26)
    if count:
        sizes = np.bincount(labels.ravel())[1:]
        return np.asarray(labels == int(sizes.argmax()) + 1)
    mask = np.zeros(target.shape_zyx, dtype=bool)
    peak = index_of_lps(target, lps_of_index(grid, candidate.peak_zyx))
    index = tuple(round(v) for v in peak)
    if all(0 <= i < n for i, n in zip(index, mask.shape, strict=True)):
        mask[index] = True
    return mask


def _finding(
    rank: int,
    region: Region,
    mask: Mask,
    masks: OnT2w,
    target: Geometry,
    significant_from: float,
) -> Finding:
    inside = np.where(mask, masks.heat, -1.0)
    z, y, x = (float(v) for v in np.unravel_index(int(inside.argmax()), inside.shape))
    spacing = target.spacing_xyz_mm[::-1]
    return Finding(
        rank=rank,
        center_lps_mm=lps_of_index(target, (z, y, x)),
        volume_ml=float(mask.sum()) * target.voxel_volume_mm3 / 1000.0,
        longest_diameter_mm=longest_diameter_mm(mask, (spacing[0], spacing[1], spacing[2])),
        likelihood=region.likelihood,
        significant=region.significance >= significant_from,
        suspicion_score=region.suspicion,
        sector=sector_of(mask, masks.zones, target),
        mean_adc_um2_s=region.mean_adc_um2_s,
        uncertainty=region.spread,
        abnormality=region.abnormality,
    )
