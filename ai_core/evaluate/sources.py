"""Where evaluation takes its cases: stored examinations, or anatomies rendered on the spot."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ai_core.errors import InputError
from ai_core.labelled import BenignFocus, LabelledCase, Reference
from ai_core.picai.layout import Archive, open_archive
from ai_core.picai.read import read_study
from ai_core.sim.params import AnatomyParams, from_json
from ai_core.sim.sites import Site, draw_site
from ai_core.sim.study import SimulatedStudy, simulate_study
from ai_core.types import Case, LabelArray

#: Scanners interpolate finer pixels than this; rendering at them costs time and adds nothing.
FINEST_PIXEL_MM = 0.5
DCE_PHASES = 6
SITES_WHEN_NONE_GIVEN = 10


@dataclass(frozen=True)
class Anatomies:
    """Cached anatomies, each rendered whole at the scanner grids of its site.

    Case *i* of a seed is the same wherever and whenever it is rendered. Sites take turns.
    """

    paths: tuple[Path, ...]
    sites: tuple[Site, ...]
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases, in order."""
        return tuple(f"{path.parent.name}-{path.stem}-seed{self.seed}" for path in self.paths)

    def read(self, index: int) -> LabelledCase:
        """Render a case with all its images and labels."""
        params = _parameters(self.paths[index])
        rng = np.random.default_rng([self.seed, index, 11])
        site = self.sites[index % len(self.sites)]
        study = simulate_study(
            int(rng.integers(2**31)),
            site=site,
            planes=("axial",),
            params=params,
            dce_phases=DCE_PHASES if site.has_dce else 0,
            t2w_matrix=matrix_of(site),
        )
        return as_labelled(self.names[index], study)


def matrix_of(site: Site) -> int:
    """Return the acquired matrix: that of the site, its pixels no finer than `FINEST_PIXEL_MM`."""
    extent_mm = site.t2w_matrix * site.t2w_spacing_mm
    return min(site.t2w_matrix, int(extent_mm / FINEST_PIXEL_MM / 16) * 16)


def as_labelled(name: str, study: SimulatedStudy) -> LabelledCase:
    """Return a simulated examination as a labelled case."""
    case = Case(study.t2w, study.adc, 1.0, study.dwi, study.high_b, study.dce)
    table = np.zeros(256, dtype=np.uint8)
    for truth in study.truth:
        table[truth.number] = truth.isup if truth.isup >= 2 else 0
    grades: LabelArray = table[study.lesions.array]
    zones = study.zones.array.astype(np.uint8)
    benign = tuple(
        BenignFocus(t.kind, t.isup, t.pirads, t.center_lps_mm)
        for t in (*study.mimics, *(t for t in study.truth if t.isup < 2))
    )
    highest = max((t.pirads for t in (*study.truth, *study.mimics)), default=None)
    reference = Reference(
        bool(grades.any()), grades, (zones > 0).astype(np.uint8), zones, benign, highest
    )
    return LabelledCase(name, study.site.name, case, reference)


def _parameters(path: Path) -> AnatomyParams:
    try:
        with np.load(path, allow_pickle=False) as data:
            return from_json(str(data["params"]))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a cached anatomy of this version",
            "Make it again with ai-core simulate.",
        ) from error


@dataclass(frozen=True)
class Examinations:
    """Stored examinations of the PI-CAI layout, real or simulated."""

    folders: tuple[Path, ...]

    @cached_property
    def _archive(self) -> Archive:
        return open_archive(self.folders)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cases, in order."""
        return tuple(study.name for study in self._archive.studies)

    def read(self, index: int) -> LabelledCase:
        """Read a case with all its images and labels."""
        return read_study(self._archive.studies[index])


CaseSource = Anatomies | Examinations


def draw_sites(count: int, seed: int) -> tuple[Site, ...]:
    """Sites of their own random stream: training draws its sites from another one."""
    rng = np.random.default_rng([seed, 401])
    return tuple(draw_site(rng) for _ in range(count))


def open_source(folders: Sequence[Path], sites: tuple[Site, ...] | None, seed: int) -> CaseSource:
    """Recognise what the folders hold.

    Raises:
        InputError: a folder is missing or holds neither examinations nor anatomies.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder", "Give the folder of the data.")
    paths = tuple(path for folder in folders for path in sorted(folder.glob("anatomy-*.npz")))
    if paths:
        drawn = sites or draw_sites(SITES_WHEN_NONE_GIVEN, seed)
        return Anatomies(paths, drawn, seed)
    return Examinations(tuple(folders))
