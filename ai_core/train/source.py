"""Where training images come from: cached simulated anatomies, rendered anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ai_core.config import Grid
from ai_core.errors import InputError
from ai_core.prepare.normalise import Images
from ai_core.sim.dataset import NO_AUGMENT, SimCache, render_training, without_suspicious
from ai_core.sim.sites import Site
from ai_core.types import FloatArray

Rng = np.random.Generator
ZyxMm = tuple[float, float, float]


@dataclass(frozen=True)
class Drawn:
    """One rendered case: images, zones 0/1/2, focus numbers, and (ISUP, PI-RADS) by number."""

    images: Images
    zones: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int64]
    foci: dict[int, tuple[int, int]]


class Cases(Protocol):
    """Cases that training draws from. ``real``: examinations of patients, not simulated ones."""

    @property
    def real(self) -> bool:
        """Whether these are examinations of patients."""
        ...

    def __len__(self) -> int: ...

    def draw(
        self,
        rng: Rng,
        grid: Grid,
        offset_zyx_mm: ZyxMm,
        modalities: Sequence[str],
        number: int | None = None,
        augment: bool = True,
    ) -> Drawn:
        """Draw a random case, or case ``number``, on a grid around its shifted gland centre."""
        ...


@dataclass(frozen=True)
class Source:
    """Cases of one or more cache folders; every `every`-th is held out for good.

    ``site``: the scanner that all are rendered at; None: another one at every draw. ``normal``:
    without cancers and what looks like one (see `ai_core.train.normals`).
    """

    folders: tuple[Path, ...]
    every: int
    held_out: bool = False
    real: bool = False
    site: Site | None = None
    normal: bool = False

    def rendered_at(self, site: Site) -> Source:
        """Return the same cases, as one scanner sees them."""
        return replace(self, site=site)

    @cached_property
    def _cases(self) -> list[tuple[SimCache, int]]:
        caches = [_open(folder) for folder in self.folders]
        pairs = [(cache, index) for cache in caches for index in range(len(cache))]
        return [pair for pair in pairs if self._mine(pair[1])]

    def _mine(self, index: int) -> bool:
        return (self.every > 0 and index % self.every == self.every - 1) == self.held_out

    def __len__(self) -> int:
        return len(self._cases)

    def case_at(self, number: int) -> tuple[SimCache, int]:
        """Return the cache and index of a case; numbers wrap around."""
        return self._cases[number % len(self._cases)]

    def draw(
        self,
        rng: Rng,
        grid: Grid,
        offset_zyx_mm: ZyxMm,
        modalities: Sequence[str],
        number: int | None = None,
        augment: bool = True,
    ) -> Drawn:
        """Render a case; cancers keep their numbers 1..n, benign mimics follow with ISUP 0.

        Without ``augment``: as a scanner would show it, physical contrast and nothing masked.
        """
        cache, index = self.case_at(int(rng.integers(2**31)) if number is None else number)
        z, y, x = (float(rng.uniform(-o, o)) for o in offset_zyx_mm)
        case = cache.load(index)
        out = render_training(
            without_suspicious(case) if self.normal else case,
            rng,
            grid_zyx=grid.shape_zyx,
            spacing_zyx_mm=grid.spacing_zyx_mm,
            center_offset_mm=(z, y, x),
            modalities=tuple(modalities),
            augment=None if augment else NO_AUGMENT,
            contrast="mix" if augment else "physics",
            site=self.site,
        )
        return drawn_from({name: value.numpy() for name, value in out.items()})


def drawn_from(arrays: dict[str, npt.NDArray[Any]]) -> Drawn:
    """Return what `render_training` gave, with mimics numbered after the cancers (ISUP 0)."""
    grades, scores = arrays["isup"].tolist(), arrays["pirads"].tolist()
    cancers = len(grades)
    foci = {i + 1: (int(g), int(s)) for i, (g, s) in enumerate(zip(grades, scores, strict=True))}
    for i, score in enumerate(arrays["benign_pirads"].tolist()):
        foci[cancers + 1 + i] = (0, int(score))
    own, benign = arrays["lesion_instances"].astype(np.int64), arrays["benign"].astype(np.int64)
    instances = np.where(own > 0, own, np.where(benign > 0, benign + cancers, 0))
    images = Images(
        arrays["t2w"], arrays.get("adc"), arrays.get("high_b"), _floats(arrays.get("dce"))
    )
    return Drawn(images, arrays["zones"], instances, foci)


def _open(folder: Path) -> SimCache:
    shards = folder / "shards"
    try:
        return SimCache.open(shards if shards.is_dir() else folder)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no cached anatomies", "Make them with: ai-core simulate --anatomies."
        ) from error


def _floats(image: npt.NDArray[np.generic] | None) -> FloatArray | None:
    return None if image is None else image.astype(np.float32)
