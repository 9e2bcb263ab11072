"""DCE phases to two maps: early relative enhancement, and its slope afterwards (per minute)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ai_core.types import FloatArray

Mask = npt.NDArray[np.bool_]
MINIMUM_PHASES = 3
EARLY_S = (10.0, 40.0)
MIDDLE_S = (45.0, 75.0)
LATE_S = (150.0, 210.0)
ONSET_SHARE = 0.1
MINIMUM_GAIN = 0.15


def enhancement_maps(
    phases: Sequence[FloatArray], times_s: Sequence[float], gland: Mask
) -> FloatArray | None:
    """Return maps ``(2, z, y, x)``, or None where the series shows no enhancement of the gland.

    Arrival is where the gland's mean signal has risen by a tenth of its whole rise. Early: mean
    relative enhancement 10-40 s after it. Slope: between the means about 60 s and about 180 s
    after it, or the last phase.
    """
    if len(phases) < MINIMUM_PHASES or not gland.any():
        return None
    curve = np.array([float(phase[gland].mean()) for phase in phases])
    times = np.asarray(times_s, dtype=np.float64)
    rise = curve.max() - curve[0]
    if curve[0] <= 0 or rise < MINIMUM_GAIN * curve[0]:
        return None
    onset = int(np.argmax(curve > curve[0] + ONSET_SHARE * rise))
    baseline = np.mean(phases[: max(1, onset)], axis=0)
    arrival = times[max(0, onset - 1)]
    after = times - arrival
    base = np.maximum(baseline, 0.25 * float(baseline.mean()) + 1e-6)

    def mean_over(limits: tuple[float, float], fallback: int) -> tuple[FloatArray, float]:
        inside = (after >= limits[0]) & (after <= limits[1])
        chosen = np.flatnonzero(inside).tolist() or [fallback]
        signal = np.mean([phases[i] for i in chosen], axis=0)
        return (signal - baseline) / base, float(after[chosen].mean())

    early, _ = mean_over(EARLY_S, min(onset + 1, len(phases) - 1))
    start, start_s = mean_over(MIDDLE_S, min(onset + 1, len(phases) - 1))
    end, end_s = mean_over(LATE_S, len(phases) - 1)
    minutes = (end_s - start_s) / 60.0
    slope = (end - start) / minutes if minutes > 0.2 else np.zeros_like(early)
    valid = baseline > 0
    return np.stack([np.where(valid, early, 0.0), np.where(valid, slope, 0.0)]).astype(np.float32)
