"""The list of sites that one training goes through: names, data, and how each acquires."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai_core.config import CoreConfig, Grid
from ai_core.errors import InputError
from ai_core.sim.sites import Site, site_from_dict
from ai_core.train.datasets import Several, open_cases
from ai_core.train.source import Cases, Drawn, Rng, Source, ZyxMm

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Acquisition(_Part):
    """How a site acquires; what is not told is not compared. Voxels in mm, b in s/mm2."""

    vendor: str | None = None
    field_strength_t: float | None = Field(None, gt=0)
    highest_b: float | None = Field(None, gt=0)
    t2w_spacing_mm: float | None = Field(None, gt=0)
    slice_mm: float | None = Field(None, gt=0)
    diffusion_spacing_mm: float | None = Field(None, gt=0)


class SiteData(_Part):
    """One site: folders of its cases; ``scanner`` renders simulated anatomies as one scanner does.

    ``scanner``: fields of a simulated site (see `ai_core.sim.sites`); without it every draw is from
    another scanner.
    """

    name: Name
    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    acquisition: Acquisition = Acquisition()
    scanner: Mapping[str, Any] | None = None

    @cached_property
    def simulated(self) -> Site | None:
        """The simulated scanner."""
        return None if self.scanner is None else site_from_dict({**self.scanner, "name": self.name})

    @property
    def acquires(self) -> Acquisition:
        """How it acquires: as told, else as its simulated scanner does."""
        site = self.simulated
        if site is None or self.acquisition != Acquisition():
            return self.acquisition
        return Acquisition(
            vendor=site.vendor,
            field_strength_t=site.field_strength_t,
            highest_b=max(site.b_values) or None,
            t2w_spacing_mm=site.t2w_spacing_mm,
            slice_mm=site.slice_mm,
            diffusion_spacing_mm=site.dwi_spacing_mm,
        )


class SiteList(_Part):
    """The first site and those to be ordered after it.

    ``share``: steps of each phase at a further site, in parts of the configured ones.
    ``newest``: chance that a draw comes from the newest site; the earlier ones share the rest.
    ``measured``: cases of each site whose embeddings are compared.
    ``acquisition_weight``: of the acquisition beside the embedding, 0-1.
    """

    sites: Annotated[tuple[SiteData, ...], Field(min_length=2)]
    share: float = Field(0.5, gt=0, le=1)
    newest: float = Field(0.5, gt=0, le=1)
    measured: int = Field(40, ge=8)
    acquisition_weight: float = Field(0.5, ge=0, le=1)


def read_sites(path: Path) -> SiteList:
    """Read a list of sites from TOML; relative data folders count from the file's folder.

    Raises:
        InputError: the file cannot be read, a key or value is wrong, or a name stands twice.
    """
    try:
        found = SiteList.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        _ = [site.simulated for site in found.sites]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    except (ValidationError, ValueError) as error:
        told = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, told['loc']))}: {told['msg']}" if told else str(error)
        raise InputError(f"{path} is no list of sites: {why}", "See docs/multi-site.md.") from error
    names = [site.name for site in found.sites]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: a site name stands twice", "Give each site its own name.")
    placed = tuple(
        site.model_copy(update={"data": tuple(path.parent / folder for folder in site.data)})
        for site in found.sites
    )
    return found.model_copy(update={"sites": placed})


def open_site(site: SiteData, config: CoreConfig, scratch: Path, held_out: bool = False) -> Cases:
    """Open the cases of a site, one side of the split (see `open_cases`)."""
    cases = open_cases(site.data, config, scratch / site.name, held_out)
    if site.simulated is None:
        return cases
    if not isinstance(cases, Source):
        raise InputError(
            f"site {site.name} has a scanner, and its cases are not simulated anatomies",
            "Leave the scanner out; it is for rendering anatomies.",
        )
    return cases.rendered_at(site.simulated)


@dataclass(frozen=True)
class Window(Several):
    """The sites of a stage: draws come from the last with chance ``newest``, else from before.

    In order (``number``) the sites take turns.
    """

    newest: float

    def draw(
        self,
        rng: Rng,
        grid: Grid,
        offset_zyx_mm: ZyxMm,
        modalities: Sequence[str],
        number: int | None = None,
        augment: bool = True,
    ) -> Drawn:
        """Draw from one of the parts, or case ``number`` of all in turn."""
        count = len(self.parts)
        if number is not None:
            part, inside = self.parts[number % count], number // count
            return part.draw(rng, grid, offset_zyx_mm, modalities, inside, augment)
        last = count == 1 or rng.random() < self.newest
        part = self.parts[count - 1 if last else int(rng.integers(count - 1))]
        return part.draw(rng, grid, offset_zyx_mm, modalities, None, augment)


def pooled(parts: Sequence[Cases]) -> Window:
    """All sites with equal chance."""
    return Window(tuple(parts), 1.0 / len(parts))
