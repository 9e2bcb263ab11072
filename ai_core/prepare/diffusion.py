"""Diffusion arithmetic on one grid: ADC from b-values, computed high b, the unit of a given ADC.

Arrays ``[z, y, x]`` float32; ADC in um2/s (10^-6 mm^2/s); b in s/mm^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ai_core.types import FloatArray

Mask = npt.NDArray[np.bool_]
MAXIMUM_ADC = 4000.0
#: Above this, the signal decay is no longer one exponential (kurtosis): not used for the fit.
LARGEST_FIT_B = 1050.0
#: Plausible gland medians in um2/s.
PLAUSIBLE = (500.0, 2600.0)  # wider where the source states a unit
#: Signal below this share of the gland's is noise: no ADC there.
NOISE_SHARE = 0.08
#: Without a unit: gland median read -> factor to um2/s.
UNIT_GUESSES: tuple[tuple[float, float, float], ...] = (
    (0.8, 2.0, 1000.0),
    (80.0, 200.0, 10.0),
    (800.0, 2000.0, 1.0),
)


@dataclass(frozen=True)
class Unit:
    """Factor from read values to um2/s, and whether the source or plausibility proves it."""

    factor: float
    known: bool


def fit_adc(signals: Sequence[FloatArray], b_values: Sequence[float]) -> FloatArray:
    """Mono-exponential ADC by least squares on log signal.

    Uses b up to 1050 where at least two such images exist. 0 where the lowest b has no signal.

    Raises:
        ValueError: fewer than two different b-values.
    """
    pairs = sorted(zip(b_values, signals, strict=True), key=lambda pair: pair[0])
    usable = [pair for pair in pairs if pair[0] <= LARGEST_FIT_B]
    chosen = usable if len({b for b, _ in usable}) >= 2 else pairs
    b = np.array([value for value, _ in chosen], dtype=np.float64)
    if np.unique(b).size < 2:
        raise ValueError("an ADC needs two different b-values")
    lowest = chosen[0][1]
    floor = max(NOISE_SHARE * float(np.percentile(lowest, 75)), 1e-6)
    logs = np.stack([np.log(np.maximum(s, 1e-3 * floor + 1e-6)) for _, s in chosen])
    centred = (b - b.mean()).astype(np.float32)
    slope = np.tensordot(centred, logs.astype(np.float32), axes=1) / float((centred**2).sum())
    adc = np.clip(-slope * 1e6, 0.0, MAXIMUM_ADC)
    return np.where(lowest > floor, adc, 0.0).astype(np.float32)


def extrapolate(signal: FloatArray, b: float, adc_um2_s: FloatArray, target_b: float) -> FloatArray:
    """Return computed image at ``target_b``: S(b) exp(-(target - b) ADC)."""
    factor = np.exp(-np.clip((target_b - b) * adc_um2_s * 1e-6, -3.0, 12.0))
    return np.where(adc_um2_s > 0, signal * factor, 0.0).astype(np.float32)


def adc_unit(adc: FloatArray, given_factor: float | None, gland: Mask) -> Unit:
    """Return the unit of ADC values as read.

    Order: what the source states, then plausibility of the gland's median (500-2600 um2/s): 0.8-2.0
    means 10^-3 mm^2/s, 80-200 means 10^-5. Outside: unknown, then no mean ADC is reported.
    """
    values = adc[gland & (adc > 0)]
    median = float(np.median(values)) if values.size else 0.0
    if given_factor is not None:
        return Unit(given_factor, PLAUSIBLE[0] <= median * given_factor <= PLAUSIBLE[1])
    for low, high, factor in UNIT_GUESSES:
        if low <= median <= high:
            return Unit(factor, True)
    return Unit(1300.0 / median if median > 0 else 1.0, False)
