"""The image against the normal image: signed, normalised by position, one map; or abstention.

Cancer is darker on ADC and T2W and brighter at high b: only these directions count. How much the
completion of normal tissue is off differs with zone, level and depth; it is measured on normal
cases, and differences are stated in units of it. NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from ai_core.config import CoreConfig
from ai_core.synthesis.complete import SYNTHESISED, Normal, Prostate
from ai_core.types import FloatArray, LabelArray, Modality

Vector = npt.NDArray[np.float64]
#: Sign of (image - normal) that speaks for cancer.
SIGN = np.array([-1.0, -1.0, 1.0])[:, None, None, None]
#: Bins of position within a zone: level (z), depth (y), distance from the midline (|x|).
BINS = (4, 4, 3)
ZONES = 2
#: Limits of one image's difference, in its spread: one outlier does not make the map.
LIMITS = (-4.0, 6.0)
#: Voxels that the value of the whole zone counts for in each bin.
SHRINKAGE = 400.0
MINIMUM_SPREAD = 0.05
#: A gland is believed up to this many times the typical difference of normal ones, at least: a
#: lesion that fills part of it is what is looked for.
BELIEVED = 1.3


class NormalSpread(BaseModel):
    """How far completions of normal tissue are off: by image, zone (PZ, TZ) and position.

    ``mean``, ``spread``: lists of ``3 * 2 * 4 * 4 * 3`` numbers in that order (images T2W, ADC,
    high b; then level, depth, distance from the midline), standardised units.
    ``joined``: spread of the mean over the images there are, by their names joined with ``+``.
    ``credible_to``: the largest typical difference of a gland that is believed, by the same names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: int
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    joined: dict[str, float]
    credible_to: dict[str, float]


@dataclass(frozen=True)
class Abnormality:
    """Opinion of the branch on the working grid.

    ``map`` ``[z, y, x]``: how unlike normal tissue, in its spread; 0 and more, 0 outside the gland.
    ``typical``: the median difference over the gland; above ``limit`` the branch abstains.
    """

    map: FloatArray
    normal: Normal
    typical: float
    limit: float

    @property
    def credible(self) -> bool:
        """Whether the synthesis is believed."""
        return self.typical <= self.limit


def names_of(present: tuple[Modality, ...]) -> str:
    """Return the key of a set of images, as in ``t2w+adc``."""
    return "+".join(m.value for m in SYNTHESISED if m in present)


def signed_difference(prostate: Prostate, normal: Normal, config: CoreConfig) -> FloatArray:
    """Return ``(3, z, y, x)``: positive where the image differs as cancer does; gland alone.

    It is smoothed within the gland: completion gives tissue, not the same noise.
    """
    gland = prostate.zones > 0
    rules, spacing = config.synthesis, config.lesion_grid.spacing_zyx_mm
    sigma = [s / v for s, v in zip(rules.smooth_mm, spacing, strict=True)]
    weight = np.maximum(ndimage.gaussian_filter(gland.astype(np.float32), sigma), 1e-3)
    raw = SIGN * (prostate.standardised() - normal.image) * gland
    smooth = np.stack([ndimage.gaussian_filter(one, sigma) for one in raw]) / weight
    return np.asarray(smooth * gland, dtype=np.float32)


def positions(zones: LabelArray) -> Vector:
    """Return where each gland voxel lies, ``(n, 3)`` in bins: level, depth, midline to side."""
    places = np.argwhere(zones > 0).astype(np.float64)
    low, high = places.min(0), places.max(0)
    share = (places - low) / np.maximum(high - low, 1.0)
    share[:, 2] = np.abs(2 * share[:, 2] - 1)
    return np.asarray(share * np.array(BINS) - 0.5)


def judge(
    prostate: Prostate, normal: Normal, spread: NormalSpread, config: CoreConfig
) -> Abnormality:
    """Compare the image with the normal image.

    A set of images that no normal case was measured with is not believed (limit 0).
    """
    gland = prostate.zones > 0
    key = names_of(prostate.present)
    z = normalised(signed_difference(prostate, normal, config)[:, gland], prostate, spread)
    joined = z.mean(0) / spread.joined.get(key, 1.0)
    found = np.zeros(gland.shape, dtype=np.float32)
    found[gland] = np.maximum(joined, 0.0)
    return Abnormality(found, normal, typical_difference(z), spread.credible_to.get(key, 0.0))


def normalised(difference: FloatArray, prostate: Prostate, spread: NormalSpread) -> Vector:
    """Return differences of gland voxels ``(3, n)`` in their spread; images there are alone."""
    shape = (len(SYNTHESISED), ZONES, *BINS)
    mean, deviation = (np.reshape(v, shape) for v in (spread.mean, spread.spread))
    where = positions(prostate.zones)
    zone = prostate.zones[prostate.zones > 0] - 1
    rows = [
        (difference[i] - _look_up(mean[i], where, zone)) / _look_up(deviation[i], where, zone)
        for i, flag in enumerate(prostate.there())
        if flag
    ]
    return np.asarray(np.clip(np.stack(rows), *LIMITS), dtype=np.float64)


def typical_difference(z: Vector) -> float:
    """Return the median over the gland of the mean size of ``z``, ``(images, n)``."""
    return float(np.median(np.abs(z).mean(0)))


def _look_up(table: Vector, where: Vector, zone: npt.NDArray[np.uint8]) -> Vector:
    """Interpolate a table ``(zone, level, depth, side)`` at positions, each in its zone."""
    values = np.stack(
        [ndimage.map_coordinates(one, where.T, order=1, mode="nearest") for one in table]
    )
    return np.asarray(values[zone, np.arange(len(zone))])


@dataclass(frozen=True)
class Seen:
    """What a normal case shows: differences ``(3, n)`` of gland voxels, and what they belong to."""

    difference: FloatArray
    prostate: Prostate


def fit_spread(seen: list[Seen]) -> NormalSpread:
    """Measure how far completions of normal tissue are off.

    An image that no case has counts as spread 1. All sets of images with T2W get their figures
    from the cases that have them.

    Raises:
        ValueError: there are fewer than two cases.
    """
    if len(seen) < 2:
        raise ValueError("two normal cases are needed at least")
    tables = [_table(seen, image) for image in range(len(SYNTHESISED))]
    mean, deviation = np.stack([t[0] for t in tables]), np.stack([t[1] for t in tables])
    first = NormalSpread(
        cases=len(seen),
        mean=tuple(np.round(mean.ravel(), 5).tolist()),
        spread=tuple(np.round(deviation.ravel(), 5).tolist()),
        joined={},
        credible_to={},
    )
    joined, credible = {}, {}
    for flags in ((1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1)):
        present = tuple(m for m, flag in zip(SYNTHESISED, flags, strict=True) if flag)
        figures = _joined(seen, first, present)
        if figures is not None:
            joined[names_of(present)], credible[names_of(present)] = figures
    return first.model_copy(update={"joined": joined, "credible_to": credible})


def _table(seen: list[Seen], image: int) -> tuple[Vector, Vector]:
    """Mean and spread ``(zone, level, depth, side)`` of one image's difference."""
    shape = (ZONES, *BINS)
    sums = np.zeros((3, *shape))
    for one in seen:
        if not one.prostate.there()[image]:
            continue
        bins = np.clip(np.round(positions(one.prostate.zones)).astype(int), 0, np.array(BINS) - 1)
        zone = one.prostate.zones[one.prostate.zones > 0] - 1
        values = one.difference[image].astype(np.float64)
        for power in range(3):
            np.add.at(sums[power], (zone, *bins.T), values**power)
    whole = sums.sum(axis=(2, 3, 4), keepdims=True)
    whole /= np.maximum(whole[0], 1.0)
    count, total, square = sums + SHRINKAGE * whole
    if not sums[0].any():
        return np.zeros(shape), np.ones(shape)
    mean = total / np.maximum(count, 1.0)
    variance = square / np.maximum(count, 1.0) - mean**2
    return mean, np.maximum(np.sqrt(np.maximum(variance, 0.0)), MINIMUM_SPREAD)


def _joined(
    seen: list[Seen], spread: NormalSpread, present: tuple[Modality, ...]
) -> tuple[float, float] | None:
    """Spread of the mean over some images, and the limit of what is believed; None: not measured.

    The limit lies three standard deviations above normal cases, on a logarithmic scale, or
    `BELIEVED` times their mean.
    """
    squares, voxels, typical = 0.0, 0, []
    for one in seen:
        if not set(present) <= set(one.prostate.present):
            continue
        part = Prostate(one.prostate.stack, present, one.prostate.zones)
        z = normalised(one.difference, part, spread)
        squares, voxels = squares + float((z.mean(0) ** 2).sum()), voxels + z.shape[1]
        typical.append(np.log(max(typical_difference(z), 1e-3)))
    if len(typical) < 2:
        return None
    beyond = max(float(3 * np.std(typical, ddof=1)), float(np.log(BELIEVED)))
    limit = float(np.exp(np.mean(typical) + beyond))
    return round(float(np.sqrt(squares / voxels)), 5), round(limit, 4)
