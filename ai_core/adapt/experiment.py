"""Adaptation on simulated sites whose truth is known: what each stage brings, in cells.

A cell is one site, one seed and one arm; its figures are one small JSON file, so that a run can
stop and go on. Everything else in the working folder can be made anew.
"""

from __future__ import annotations

import json
import logging
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai_core.adapt.cases import SiteCase
from ai_core.adapt.console import bar
from ai_core.adapt.keep import rated
from ai_core.adapt.order import diverse_order, uncertainties
from ai_core.adapt.plan import AdaptPlan, Order
from ai_core.adapt.score import Sheet, sheet_of
from ai_core.adapt.stages import Annotated as AnnotatedCases
from ai_core.adapt.stages import calibrated, finetuned, profiled
from ai_core.config import CoreConfig, Grid
from ai_core.errors import InputError
from ai_core.manifest import packaged_release
from ai_core.release import Release, load_release
from ai_core.sim.dataset import NO_AUGMENT, build_cache, render_training
from ai_core.sim.sites import Site, draw_site, load_sites
from ai_core.train.archive_source import ArchiveSource, Marked, save_prepared
from ai_core.train.package import make_release
from ai_core.train.run import train
from ai_core.train.source import Source, drawn_from

logger = logging.getLogger(__name__)
Count = Annotated[int, Field(ge=1)]
#: Voxels kept around the grid of the networks, so that cases can be shifted and turned.
MARGIN_ZYX = (4, 12, 12)
BEFORE, PROFILE, IN_DOMAIN = "before", "profile", "in-domain"
#: Of the annotated cases every so many-th decides when to stop.
WATCHED_EVERY = 4
SIGNIFICANT = 2


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnatomyPlan(_Part):
    """Cached anatomies, as `ai-core simulate --anatomies` makes them."""

    seed: int
    cases: Count


class Experiment(_Part):
    """What to compare; see ``configs/adapt-experiment.toml``."""

    sites: Path
    seeds: tuple[int, ...]
    sizes: tuple[Count, ...]
    pool: Count
    in_domain: Count
    test: Count
    general: Count
    in_domain_steps: Count
    anatomies: AnatomyPlan
    core: CoreConfig
    adapt: AdaptPlan

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, in the order in which they are computed."""
        chosen = [f"{kind}-{size}" for size in self.sizes for kind in ("uncertain", "random")]
        return (BEFORE, PROFILE, *chosen, IN_DOMAIN)


def read_experiment(path: Path) -> Experiment:
    """Read an experiment; the file of the sites lies relative to it.

    Raises:
        InputError: the file cannot be read, or a key or value is wrong.
    """
    try:
        found = Experiment.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(
            f"{path} is not an experiment: {error}",
            "Compare it with configs/adapt-experiment.toml.",
        ) from error
    return found.model_copy(update={"sites": path.parent / found.sites})


@dataclass(frozen=True)
class Cell:
    """One measurement to be made."""

    site: str
    seed: int
    arm: str

    @property
    def file(self) -> str:
        """Name of its JSON file."""
        return f"{self.site}-{self.seed}-{self.arm}.json"


@dataclass(eq=False)
class Lab:
    """The experiment in its working folder."""

    plan: Experiment
    work: Path
    device: str = "cpu"

    def cells(self) -> Iterator[Cell]:
        """All cells, complete site after complete site, so that a part can be read."""
        for seed in self.plan.seeds:
            for site in self.sites:
                yield from (Cell(site.name, seed, arm) for arm in self.plan.arms)

    def measure(self, cell: Cell) -> dict[str, object]:
        """Compute a cell."""
        start = time.monotonic()
        bench = self._bench(cell.site, cell.seed)
        release, annotated = bench.release_of(cell.arm)
        site, general = bench.figures(release, cell.arm)
        return {
            "site": cell.site,
            "seed": cell.seed,
            "arm": cell.arm,
            "annotated": annotated,
            "test_cases": len(site.positive),
            "test_positive": int(site.positive.sum()),
            "figures": {k: round(v, 5) for k, v in site.figures().items()},
            "general": {k: round(v, 5) for k, v in general.figures().items()},
            "parent_sha256": self.parent.info.sha256,
            "seconds": round(time.monotonic() - start, 1),
        }

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Sites to adapt to."""
        return load_sites(self.plan.sites)

    @cached_property
    def anatomies(self) -> Path:
        """Folder of the anatomies, made where they are missing."""
        folder, wanted = self.work / "anatomies", self.plan.anatomies
        with bar("anatomies") as step:
            build_cache(folder, wanted.cases, wanted.seed, progress=step)
        return folder

    @cached_property
    def parent(self) -> Release:
        """The start of all arms: the packaged release, trained on at the reduced grid."""
        folder = self.work / "parent"
        if not (folder / "release" / "manifest.json").exists():
            logger.info("the start of all arms is trained")
            core, data = self.plan.core, [self.anatomies]
            start = packaged_release()[0]
            weights = train(core, data, folder, True, self.device, start)
            make_release(core, weights, data, folder / "release", self.device, start)
        return load_release(folder / "release", self.device)

    def _bench(self, name: str, seed: int) -> Bench:
        site = next(site for site in self.sites if site.name == name)
        return Bench(self, site, seed)


@dataclass(eq=False)
class Bench:
    """One site and seed: its studies, and the releases made from them."""

    lab: Lab
    site: Site
    seed: int

    @property
    def folder(self) -> Path:
        """Where studies and releases of this site and seed are kept."""
        return self.lab.work / f"{self.site.name}-{self.seed}"

    @property
    def plan(self) -> AdaptPlan:
        """The adaptation of this seed."""
        return self.lab.plan.adapt.model_copy(update={"seed": self.seed})

    @cached_property
    def rehearsed(self) -> Source:
        """Cases that trained the start: rehearsal never sees what is measured."""
        return Source((self.lab.anatomies,), 2)

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """Anatomies by use; none that fitted or calibrated the start."""
        plan = self.lab.plan
        spare = Source((self.lab.anatomies,), 2, held_out=True)
        free = np.arange(plan.core.training.calibration_cases, len(spare))
        order = np.random.default_rng([self.seed, 901]).permutation(free)
        ends = np.cumsum([plan.test, plan.general, plan.in_domain])
        if ends[-1] > len(order):
            raise InputError(f"{ends[-1]} anatomies are needed, {len(order)} are free", "Add some.")
        parts = np.split(order, ends)
        return {
            name: [int(n) for n in part]
            for name, part in zip(("test", "general", "in_domain"), parts, strict=False)
        }

    def studies(self, use: str) -> ArchiveSource:
        """Render studies once: ``test``, ``in_domain`` (the pool first), ``general``."""
        folder = self.lab.work / f"general-{self.seed}" if use == "general" else self.folder / use
        folder.mkdir(parents=True, exist_ok=True)
        spare = Source((self.lab.anatomies,), 2, held_out=True)
        files = []
        for place, number in enumerate(self._numbers[use]):
            path = folder / f"{place:04d}.npz"
            if not path.exists():
                rng = np.random.default_rng([self.seed, number, 902])
                site = draw_site(rng) if use == "general" else self.site
                self._render(spare, number, site, rng, path)
            files.append(path)
        return ArchiveSource(tuple(files), real=False, kept=self._kept)

    @property
    def _kept(self) -> Grid:
        grid = self.lab.plan.core.lesion_grid
        shape = tuple(n + m for n, m in zip(grid.shape_zyx, MARGIN_ZYX, strict=True))
        return grid.model_copy(update={"shape_zyx": shape})

    def _render(
        self, source: Source, number: int, site: Site, rng: np.random.Generator, path: Path
    ) -> None:
        """Render one study; like a radiologist's, its labels hold significant cancers alone."""
        cache, index = source.case_at(number)
        modalities = ("t2w", "adc", "high_b", *(("dce",) if site.has_dce else ()))
        out = render_training(
            cache.load(index), rng, grid_zyx=self._kept.shape_zyx,
            spacing_zyx_mm=self._kept.spacing_zyx_mm, modalities=modalities, site=site,
            augment=NO_AUGMENT, contrast="physics",
        )  # fmt: skip
        drawn = drawn_from({name: value.numpy() for name, value in out.items()})
        kept = {n: f for n, f in drawn.foci.items() if f[0] >= SIGNIFICANT}
        instances = np.where(np.isin(drawn.instances, list(kept)), drawn.instances, 0)
        rows = [(n, *grades) for n, grades in kept.items() if (instances == n).any()]
        foci = np.array(rows, dtype=np.int16).reshape(-1, 3)
        save_prepared(drawn.images, Marked(drawn.zones, instances.astype(np.uint8), foci), path)

    @cached_property
    def pool(self) -> ArchiveSource:
        """Studies that stand to be annotated."""
        source = self.studies("in_domain")
        return replace(source, files=source.files[: self.lab.plan.pool])

    @cached_property
    def profile(self) -> Release:
        """After stage (a), on the pool without its labels."""
        cases = [SiteCase(name=f.stem, patient=f.stem) for f in self.pool.files]
        folder = self.folder / "profile"
        return profiled(self.lab.parent, self.pool, cases, self.rehearsed, self.plan, folder)

    def release_of(self, arm: str) -> tuple[Release, int]:
        """Make the release of an arm; also how many annotated studies it took."""
        if arm == BEFORE:
            return self.lab.parent, 0
        if arm == PROFILE:
            return self.profile, 0
        folder = self.folder / arm
        if arm == IN_DOMAIN:
            source = self.studies("in_domain")
            phase = self.plan.finetune.phase.model_copy(
                update={"steps": self.lab.plan.in_domain_steps}
            )
            return self._adapted(source, list(range(len(source))), self._with(phase=phase), folder)
        kind, _, size = arm.partition("-")
        order = self._uncertain_order() if kind == "uncertain" else self._random_order()
        wanted = Order.UNCERTAIN_FIRST if kind == "uncertain" else Order.RANDOM
        return self._adapted(self.pool, order[: int(size)], self._with(order=wanted), folder)

    def _with(self, **changes: object) -> AdaptPlan:
        finetune = self.plan.finetune.model_copy(update=changes)
        return self.plan.model_copy(update={"finetune": finetune})

    def _uncertain_order(self) -> list[int]:
        seen = rated(self.folder / "pool-before.json", self.lab.parent, self.pool, len(self.pool))
        unsure = uncertainties(seen, self.lab.parent)
        return diverse_order([one.uncertainty for one in unsure], seen.embeddings)

    def _random_order(self) -> list[int]:
        rng = np.random.default_rng([self.seed, 903])
        return [int(i) for i in rng.permutation(len(self.pool))]

    def _adapted(
        self, source: ArchiveSource, chosen: Sequence[int], plan: AdaptPlan, folder: Path
    ) -> tuple[Release, int]:
        files = tuple(source.files[i] for i in chosen)
        annotated = replace(source, files=files)
        seen = rated(folder / "fit-profile.json", self.profile, annotated, len(files))
        adjusted = calibrated(self.profile, seen, plan)
        unsure = [one.uncertainty for one in uncertainties(seen, self.profile)]
        places = range(len(files))
        watched = [i for i in places if i % WATCHED_EVERY == WATCHED_EVERY - 1]
        trained = [i for i in places if i not in watched]
        cases = AnnotatedCases(
            replace(source, files=tuple(files[i] for i in trained)),
            replace(source, files=tuple(files[i] for i in watched)),
            [unsure[i] for i in trained],
        )
        return finetuned(adjusted, cases, self.rehearsed, plan, folder), len(files)

    def figures(self, release: Release, arm: str) -> tuple[Sheet, Sheet]:
        """Measure on the studies of the site and on those of other sites."""
        sheets = []
        for use in ("test", "general"):
            source = self.studies(use)
            home = self.folder
            if arm == BEFORE and use == "general":
                home = self.lab.work / f"general-{self.seed}"
            path = home / arm / f"{use}-after.json"
            sheets.append(sheet_of(rated(path, release, source, len(source)), release))
        return sheets[0], sheets[1]


def run_experiment(lab: Lab, out: Path, limit: int | None = None) -> int:
    """Compute the cells that have no file yet; returns how many are finished of all."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    todo = [cell for cell in lab.cells() if not (out / cell.file).exists()]
    for cell in todo[: len(todo) if limit is None else limit]:
        logger.info("cell %s", cell.file)
        text = json.dumps(lab.measure(cell), indent=1) + "\n"
        part = out / f".part-{cell.file}"
        part.write_text(text, encoding="utf-8")
        part.replace(out / cell.file)
    return sum((out / cell.file).exists() for cell in lab.cells())
