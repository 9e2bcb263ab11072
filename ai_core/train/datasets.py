"""Opens training data: cached simulated anatomies, real examinations, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_core.config import CoreConfig, Grid
from ai_core.errors import InputError
from ai_core.train.archive_source import ArchiveSource
from ai_core.train.source import Cases, Drawn, Rng, Source, ZyxMm

IMAGES = ("*.mha", "*.nii.gz")


@dataclass(frozen=True)
class Several:
    """Several data sets together."""

    parts: tuple[Cases, ...]

    @property
    def real(self) -> bool:
        """Whether all parts are examinations of patients."""
        return all(part.real for part in self.parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


class Mixed(Several):
    """Each draw takes one of the data sets with equal chance, whatever its size."""

    def draw(
        self,
        rng: Rng,
        grid: Grid,
        offset_zyx_mm: ZyxMm,
        modalities: Sequence[str],
        number: int | None = None,
        augment: bool = True,
    ) -> Drawn:
        """Draw from one of the parts."""
        part = self.parts[int(rng.integers(len(self.parts)))]
        return part.draw(rng, grid, offset_zyx_mm, modalities, number, augment)


def open_cases(
    folders: Sequence[Path], config: CoreConfig, scratch: Path, held_out: bool = False
) -> Cases:
    """Open data folders, one side of the split.

    Simulated anatomies are split by case, real examinations (PI-CAI layout; images and labels may
    lie in folders of their own) by patient. Where there are both, the held-out side is the real
    one: what is calibrated and measured on patients counts.

    Args:
        folders: of ``ai-core simulate --anatomies``, or in the PI-CAI layout.
        config: of the release; sets the held-out share and the seed of the split.
        scratch: prepared real examinations are kept here.
        held_out: the side that is never trained on.

    Raises:
        InputError: a folder holds neither, or no examination can be used.
    """
    simulated = tuple(folder for folder in folders if _has_anatomies(folder))
    archives = tuple(folder for folder in folders if folder not in simulated)
    for folder in archives:
        if not any(next(folder.rglob(pattern), None) for pattern in IMAGES):
            raise InputError(
                f"{folder} holds no cached anatomies and no examinations",
                "Make them with: ai-core simulate --anatomies, or give data in the PI-CAI layout.",
            )
    parts: list[Cases] = []
    if archives:
        parts.append(ArchiveSource.open(archives, scratch, config, held_out))
    if simulated and not (held_out and parts):
        parts.append(Source(simulated, split_every(config), held_out))
    return parts[0] if len(parts) == 1 else Mixed(tuple(parts))


def split_every(config: CoreConfig) -> int:
    """Every how many-th simulated case is held out."""
    return max(2, round(1 / config.training.held_out))


def _has_anatomies(folder: Path) -> bool:
    return any(next(place.glob("anatomy-*.npz"), None) for place in (folder, folder / "shards"))
