"""Rasterising one simulated patient on any grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.sim import pelvis
from ai_core.sim.canvas import Array, Canvas, Mask, Window
from ai_core.sim.fields import Lattice
from ai_core.sim.gland import gland_distance, gland_level, zone_masks
from ai_core.sim.params import AnatomyParams, Focus, Tissue
from ai_core.types import Geometry

_T = Tissue
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelMaps:
    """Everything rasterised, arrays ``[z, y, x]`` uint8.

    ``labels``: ``Tissue``; ``zones``: 0, 1 PZ, 2 TZ (with CZ, AFMS and urethra).
    ``lesion_weight`` / ``mimic_weight``: soft membership 0-255; ``lesion_id`` / ``mimic_id``:
    instance numbers 1..n in the order of ``AnatomyParams.lesions`` / ``.mimics``, set wherever
    the weight is above 0; a voxel counts as part of the focus from a weight of 128 on.
    """

    labels: Labels
    zones: Labels
    lesion_weight: Labels
    lesion_id: Labels
    mimic_weight: Labels
    mimic_id: Labels


def rasterise(params: AnatomyParams, geometry: Geometry) -> LabelMaps:
    """Label maps of one patient on a grid (patient axes LPS mm, gland centre at the origin)."""
    canvas = Canvas(params, geometry)
    pelvis.paint_wall(canvas, params)
    pelvis.paint_funnel(canvas, params)
    pelvis.paint_bladder(canvas, params)
    pelvis.paint_vesicles(canvas, params)
    pelvis.paint_rectum(canvas, params)
    pelvis.paint_vessels(canvas, params)
    zones = _paint_gland(canvas, params)
    lesion = _foci(canvas, params, params.lesions, zones)
    mimic = _foci(canvas, params, params.mimics, zones)
    return LabelMaps(canvas.labels, zones, *lesion, *mimic)


def _paint_gland(canvas: Canvas, params: AnatomyParams) -> Labels:
    g = params.gland
    zones = np.zeros(canvas.labels.shape, dtype=np.uint8)
    m = 16.0
    top = g.az + max(g.median_lobe_mm, 0.0)
    for w in canvas.window(
        (-g.ax * 1.3 - m, -g.ay * 1.3 - m, -g.az - 8), (g.ax * 1.3 + m, g.ay * 1.3 + m, top + 8)
    ):
        level = gland_level(g, w.x, w.y, w.z)
        d = gland_distance(g, level, w.x, w.y, w.z)
        _paint_surroundings(canvas, params, w, d)
        masks = zone_masks(g, level, w.x, w.y, w.z)
        w.paint(masks["gland"], _T.PZ)
        w.paint(masks["tz"], _T.TZ)
        _paint_nodules(params, w, masks["tz"])
        _paint_capsules(params, w, masks, d)
        w.paint(masks["cz"], _T.CZ)
        w.paint(masks["afms"], _T.AFMS)
        w.paint(masks["urethra"], _T.URETHRA)
        zone = zones[w.where]
        zone[masks["gland"]] = 1
        zone[masks["tz"] | masks["cz"] | masks["afms"] | masks["urethra"]] = 2
    return zones


def _paint_capsules(params: AnatomyParams, w: Window, masks: dict[str, Mask], d: Array) -> None:
    g = params.gland
    gland, tz = masks["gland"], masks["tz"]
    if g.capsule_visible:
        w.paint(gland & (d > -0.9) & (w.labels == _T.PZ), _T.CAPSULE)
    if g.surgical_capsule:
        edge = np.zeros_like(tz)
        for axis in (1, 2):
            for step in (1, -1):
                edge |= tz & ~np.roll(tz, step, axis=axis)
        w.paint(edge & (d < -2.5), _T.CAPSULE)


def _paint_nodules(params: AnatomyParams, w: Window, tz: Mask) -> None:
    for nodule in params.nodules:
        (cx, cy, cz), (rx, ry, rz) = nodule.center, nodule.radii
        near = np.abs(w.z - cz) < rz + 2
        rows = np.flatnonzero(near.any(axis=(1, 2)))
        if rows.size == 0:
            continue
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        q = ((w.x[part] - cx) / rx) ** 2 + ((w.y[part] - cy) / ry) ** 2
        level = np.sqrt(q + ((w.z[part] - cz) / rz) ** 2)
        inside = tz[part] & (level < 1)
        labels = w.labels[part]
        if nodule.rim:
            labels[inside] = _T.NODULE_RIM
            inside = inside & (level < 1 - 1.1 / min(rx, ry))
        labels[inside] = nodule.kind


def _paint_surroundings(canvas: Canvas, params: AnatomyParams, w: Window, d: Array) -> None:
    """Fascia, venous plexus and bundles between the gland and the levator, the anterior apron."""
    g, p = params.gland, params.pelvis
    n = canvas.shape_noise.sample_numpy(w.x * 1.5, w.y * 1.5, w.z)
    yc = w.y - g.tilt * w.z
    free = (w.labels == _T.PELVIC_FAT) | (w.labels == _T.FAT)
    free |= (w.labels == _T.LEVATOR) & (d < 0.8)
    shell = free & (d < p.plexus_mm + 0.8 * n[0])
    # Around the gland lies a dark layered fascia with veins in it, bright only where they widen.
    w.paint(shell, _T.FASCIA)
    sides = (yc < 0.45 * g.ay) & (yc > -0.9 * g.ay)
    w.paint(shell & sides & (d > 1.0) & (n[1] > p.plexus_fill), _T.PLEXUS)
    w.paint(shell & (d > 2.2) & (n[2] > 0.5), _T.PELVIC_FAT)
    front = free & (yc < -0.55 * g.ay) & (np.abs(w.x) < 0.8 * g.ax)
    w.paint(front & (d < p.apron_mm + 9) & (n[1] > p.plexus_fill - 0.3), _T.PLEXUS)
    w.paint(front & (d < p.apron_mm + 0.7 * n[2]), _T.FASCIA)
    angle = np.abs(np.abs(w.x) - 0.72 * g.ax) < 5
    bundle = free & angle & (d > 0.2) & (d < 5) & (np.abs(yc - 0.68 * g.ay) < 6)
    w.paint(bundle, _T.PELVIC_FAT)
    w.paint(bundle & (n[0] > 0.35), _T.NVB)
    w.paint((w.labels == _T.BLADDER_URINE) & (d < 1.5), _T.BLADDER_WALL)


def focus_weight(focus: Focus, noise: Lattice, x: Array, y: Array, z: Array) -> Array:
    """Soft membership 0-1 of a focus at warped coordinates, before clipping to its zone."""
    rel = (x - focus.center[0], y - focus.center[1], z - focus.center[2])
    local = [sum(np.float32(a) * r for a, r in zip(row, rel, strict=True)) for row in focus.axes]
    n = noise.sample_numpy(x, y, z)
    scaled = [v / r for v, r in zip(local, focus.radii, strict=True)]
    level = np.sqrt(sum(np.square(s) for s in scaled))
    if focus.shape == "wedge":
        # Apex towards the urethra, widening towards the capsule along the first axis.
        width = np.clip(0.35 + 0.65 * (scaled[0] + 1) / 2, 0.2, 1.1)
        level = np.maximum(np.abs(scaled[0]), np.sqrt(scaled[1] ** 2 / width**2 + scaled[2] ** 2))
    level = level * (1 + focus.roughness * n[0])
    scale = float(np.prod(focus.radii)) ** (1 / 3)
    soft = np.clip(0.5 + (1 - level) * scale / (2 * focus.edge_mm), 0, 1)
    if focus.shape == "diffuse":
        soft = soft * np.clip(0.65 + 0.45 * n[1], 0, 1)
    return np.asarray(soft, dtype=np.float32)


def _foci(
    canvas: Canvas, params: AnatomyParams, foci: tuple[Focus, ...], zones: Labels
) -> tuple[Labels, Labels]:
    weight = np.zeros(canvas.labels.shape, dtype=np.uint8)
    ids = np.zeros(canvas.labels.shape, dtype=np.uint8)
    for number, focus in enumerate(foci, start=1):
        reach = max(focus.radii) * (1 + 2 * focus.roughness) + focus.edge_mm
        c = focus.center
        for w in canvas.window(
            (c[0] - reach, c[1] - reach, c[2] - reach), (c[0] + reach, c[1] + reach, c[2] + reach)
        ):
            soft = focus_weight(focus, canvas.shape_noise, w.x, w.y, w.z)
            soft = soft * _zone_share(params, focus, zones[w.where], w)
            value = np.round(soft * 255).astype(np.uint8)
            better = value > weight[w.where]
            weight[w.where][better] = value[better]
            ids[w.where][better] = number
    return weight, ids


def _zone_share(params: AnatomyParams, focus: Focus, zone: Labels, w: Window) -> Array:
    """How far a focus may spread: own zone fully, the other one for cancers, EPE beyond."""
    if focus.kind == "pseudolesion":
        return np.asarray(zone > 0, dtype=np.float32)
    # Only larger cancers break through the surgical capsule; small ones merely reach it.
    cross = (0.85 if focus.volume_ml > 2.0 else 0.4) if focus.kind == "cancer" else 0.0
    share = np.where(zone == focus.zone, 1.0, np.where(zone > 0, cross, 0.0))
    if focus.epe_mm > 0:
        g = params.gland
        d = gland_distance(g, gland_level(g, w.x, w.y, w.z), w.x, w.y, w.z)
        outside = (zone == 0) & (d < focus.epe_mm) & (w.labels != _T.BLADDER_URINE)
        share = np.where(outside, 1.0, share)
    return np.asarray(share, dtype=np.float32)
