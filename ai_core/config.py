"""The one configuration of a release. It drives preprocessing at training and at inference.

It is read from TOML for training and stored as JSON inside the release, so that what a network
saw in training and what it sees in use cannot drift apart.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ai_core.errors import InputError

Zyx = tuple[int, int, int]
ZyxMm = tuple[float, float, float]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Grid(_Part):
    """A working grid in the orientation of T2W: shape and voxel size, both z, y, x."""

    shape_zyx: Zyx = (24, 80, 80)
    spacing_zyx_mm: ZyxMm = (3.0, 1.2, 1.2)

    @property
    def extent_zyx_mm(self) -> ZyxMm:
        """Edge lengths in millimetres."""
        z, y, x = (n * s for n, s in zip(self.shape_zyx, self.spacing_zyx_mm, strict=True))
        return (z, y, x)


class Normalise(_Part):
    """Intensity rules (claims 18 and 20). Limits are in normalised units."""

    t2w_percentiles: tuple[float, float] = (0.5, 99.5)
    t2w_limit: float = 4.0
    adc_limit_um2_s: float = 3000.0
    high_b_limit: float = 5.0
    dce_limit: float = 4.0
    high_b_s_per_mm2: float = 1400.0


class Nets(_Part):
    """Channel widths."""

    gland: tuple[int, ...] = (16, 32, 64, 96)
    modality: tuple[int, ...] = (16, 32, 48)
    fusion: tuple[int, ...] = (16, 32, 64)
    classifier: tuple[int, ...] = (32, 48, 64)
    synthesis: tuple[int, ...] = (16, 24, 48, 96)


class Candidates(_Part):
    """How regions are cut out of the fused map (dynamic threshold: peak / `peak_ratio`)."""

    peak_ratio: float = 2.5
    minimum_peak: float = 0.02
    minimum_volume_ml: float = 0.03
    maximum_count: int = 5
    separation_mm: float = 5.0
    gland_margin_mm: float = 5.0


class Patches(_Part):
    """Two-scale patches around a candidate: the coarse one has twice the voxel size.

    ``maps``: whether the classifier sees the localization maps beside the images. Off in the
    ablation alone.
    """

    shape_zyx: Zyx = (10, 32, 32)
    maps: bool = True


class Credible(_Part):
    """When a region is believed to be a prostate, beside the presence model of the release.

    Two opinions are asked: the finder's (T2W) and the localizer's (all images). ``agreement`` is
    the Dice of both outlines, ``sureness`` the localizer's mean gland probability in its own.
    """

    #: The largest of the 1,500 glands of the public PI-CAI set has 263 mL, the smallest 15.
    volume_ml: tuple[float, float] = (10.0, 270.0)
    minimum_agreement: Fraction = 0.45
    minimum_sureness: Fraction = 0.82


class SynthesisRules(_Part):
    """How abnormality by synthesis deletes and compares (used where a release has the branch).

    Holes of ``hole_voxels`` squared, one every ``period_voxels``, in lattices ``stride_voxels``
    apart (of the lesion grid, in the slice): each voxel is deleted ``(hole / stride)^2`` times.
    ``draws``: completions of each incomplete image. ``margin_mm``: deleted around the gland too.
    ``smooth_mm``: of the difference (z, y, x; standard deviation).
    """

    hole_voxels: Annotated[int, Field(ge=2)] = 16
    stride_voxels: Annotated[int, Field(ge=1)] = 8
    period_voxels: Annotated[int, Field(ge=4)] = 32
    draws: Annotated[int, Field(ge=1)] = 1
    margin_mm: Annotated[float, Field(ge=0)] = 3.0
    smooth_mm: ZyxMm = (2.0, 2.4, 2.4)

    @model_validator(mode="after")
    def _tiles(self) -> SynthesisRules:
        if self.hole_voxels % self.stride_voxels or self.period_voxels % self.stride_voxels:
            raise ValueError("hole_voxels and period_voxels must be multiples of stride_voxels")
        if self.period_voxels <= self.hole_voxels:
            raise ValueError("period_voxels must be larger than hole_voxels")
        return self


class ModalityDropout(_Part):
    """Share of training batches that lack an image (reference: field compliance, PI-RADS)."""

    dce: Fraction = 0.4
    high_b: Fraction = 0.2
    adc: Fraction = 0.05
    t2w_only: Fraction = 0.02


class Phase(_Part):
    """Budget and rate of one training phase. It ends at `steps` or after `max_minutes`.

    No steps at all leave the phase out: what the network started with stays.
    """

    steps: Annotated[int, Field(ge=0)]
    max_minutes: float = 60.0
    batch: int = 2
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    ema: float = 0.995
    frozen_norm_from: Fraction = 0.6


class Training(_Part):
    """Everything about training that is not the data."""

    seed: int = 20_260
    threads: int = 1
    workers: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_minutes: float = 2.0
    gland_offset_mm: ZyxMm = (10.0, 16.0, 11.0)
    lesion_offset_mm: ZyxMm = (5.0, 4.0, 4.0)
    held_out: Fraction = 0.1
    calibration_cases: int = 240
    #: Share of examinations with significant cancer where the release is used (PI-CAI: 0.28).
    prevalence: Fraction = 0.28
    presence_cases: int = 240
    dropout: ModalityDropout = ModalityDropout()
    gland: Phase = Phase(steps=2400, max_minutes=16, batch=2, learning_rate=2.5e-3)
    localize: Phase = Phase(steps=2000, max_minutes=25, batch=2)
    classify: Phase = Phase(steps=400, max_minutes=8, batch=2, learning_rate=1.5e-3)
    joint: Phase = Phase(steps=150, max_minutes=5, batch=2, learning_rate=2e-4)
    #: Abnormality by synthesis; left out unless asked for.
    synthesis: Phase = Phase(steps=0, max_minutes=60, batch=2, learning_rate=1e-3)
    #: Weight of the adversarial loss beside the reconstruction of deleted voxels.
    adversarial: Annotated[float, Field(ge=0)] = 0.05
    #: Held-out normal cases that the spread of normal differences is measured on.
    synthesis_cases: Annotated[int, Field(ge=2)] = 120


class CoreConfig(_Part):
    """One release: name, preprocessing, networks, post-processing, training plan."""

    name: str
    version: str
    gland_grid: Grid = Grid(shape_zyx=(24, 96, 96), spacing_zyx_mm=(3.0, 1.5, 1.5))
    lesion_grid: Grid = Grid()
    normalise: Normalise = Normalise()
    nets: Nets = Nets()
    candidates: Candidates = Candidates()
    patches: Patches = Patches()
    credible: Credible = Credible()
    synthesis: SynthesisRules = SynthesisRules()
    training: Training = Training()


def read_config(path: Path) -> CoreConfig:
    """Read a configuration from TOML (or JSON, as stored in a release).

    Raises:
        InputError: the file cannot be read, or a key or value is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return CoreConfig.model_validate(data)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    except (ValidationError, ValueError) as error:
        raise InputError(
            f"{path} is not a valid configuration: {_first_problem(error)}",
            "Compare it with configs/third.toml.",
        ) from error


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}"
    return str(error)
