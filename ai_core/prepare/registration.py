"""Small rigid correction of diffusion to T2W, kept only when it helps (claim 19).

Mutual information (Mattes) of the low-b image and T2W around the gland. The patient moves a few
millimetres between the series; more than 6 mm or 6 degrees is a failure of the method, not motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ai_core.prepare.geometry import to_sitk
from ai_core.types import FloatArray, Geometry, Volume

LIMIT_MM = 6.0
LIMIT_DEG = 6.0
#: Smallest gain of mutual information (nats) that counts as an improvement, and the least shift
#: (mm) worth an interpolation.
MINIMUM_GAIN = 0.01
MINIMUM_SHIFT_MM = 0.4
BINS = 32
ITERATIONS = 40


@dataclass(frozen=True)
class Alignment:
    """Outcome: the transform to use (None: identity), its size, and whether one was refused."""

    transform: sitk.Transform | None
    shift_mm: float
    gain: float
    rejected: bool


IDENTITY = Alignment(None, 0.0, 0.0, False)


def align(t2w: FloatArray, moving: sitk.Image, grid: Geometry) -> Alignment:
    """Rigid transform from points of T2W to points of ``moving``.

    Args:
        t2w: T2W on ``grid``, 0 outside its field of view.
        moving: the low-b (or ADC) image on its own grid.
        grid: the working grid around the gland.

    The work is bounded by the number of iterations, not by a clock, and runs on one thread, so
    that the same input gives the same output.
    """
    fixed = _image(t2w, grid)
    start = sitk.Euler3DTransform()
    start.SetCenter(
        fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in grid.size_xyz])
    )
    method = _method(start)
    try:
        before = method.MetricEvaluate(fixed, moving)
        result = sitk.Euler3DTransform(
            sitk.CompositeTransform(method.Execute(fixed, moving)).GetBackTransform()
        )
        method.SetInitialTransform(result, inPlace=False)
        after = method.MetricEvaluate(fixed, moving)
    except RuntimeError:  # ITK: no overlap, or too few valid samples
        return Alignment(None, 0.0, 0.0, True)
    shift = _largest_shift(result)
    gain = float(before - after)
    angles = np.rad2deg([result.GetAngleX(), result.GetAngleY(), result.GetAngleZ()])
    if shift > LIMIT_MM or float(np.abs(angles).max()) > LIMIT_DEG:
        return Alignment(None, shift, gain, True)
    if gain < MINIMUM_GAIN or shift < MINIMUM_SHIFT_MM:
        return Alignment(None, shift, gain, False)
    return Alignment(result, shift, gain, False)


def _method(start: sitk.Transform) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.5, minStep=0.05, numberOfIterations=ITERATIONS, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    return method


def _image(t2w: FloatArray, grid: Geometry) -> sitk.Image:
    """T2W smoothed and thinned to about 2.4 mm in plane: diffusion shows no finer detail."""
    image = to_sitk(Volume(t2w, grid))
    smooth: sitk.Image = sitk.SmoothingRecursiveGaussian(image, 1.0)
    small: sitk.Image = sitk.Shrink(smooth, [2, 2, 1])
    return small


def _largest_shift(transform: sitk.Euler3DTransform) -> float:
    """Largest displacement within 30 mm of the centre."""
    center = np.array(transform.GetCenter())
    offsets = 30.0 * np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])
    moved = [np.array(transform.TransformPoint(tuple(map(float, center + o)))) for o in offsets]
    return float(max(np.linalg.norm(m - (center + o)) for m, o in zip(moved, offsets, strict=True)))
