"""Multi-site training compared: near to far, random order, all sites pooled; on simulated sites.

    python tools/multi_site.py --config configs/multi-site.toml --work WORK --out OUT

Each cell (a seed and an arm) becomes one small JSON in OUT/cells; a run that was stopped goes on
where it was. With --report only the table and the plot are made anew from the finished cells.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from multi_site_report import ARMS, POOLED, RANDOM, report, write
from pydantic import BaseModel, ConfigDict

from ai_core.config import CoreConfig, Grid
from ai_core.localize import localize
from ai_core.nets.localizer import MODALITIES
from ai_core.prepare.normalise import Images
from ai_core.release import Release, choose_device
from ai_core.sim.dataset import build_cache
from ai_core.train.data import LesionSamples, generator
from ai_core.train.datasets import split_every
from ai_core.train.multi_site import MultiSite, open_sites, stage_config
from ai_core.train.package import in_memory
from ai_core.train.run import Training, Weights
from ai_core.train.similarity import NOTHING_WITHHELD
from ai_core.train.site_list import SiteList, pooled
from ai_core.train.source import Cases, Drawn, Rng, ZyxMm
from ai_core.types import Modality

logger = logging.getLogger("multi_site")
SHOWN = (Modality.T2W, Modality.ADC, Modality.HIGH_B)


class Experiment(BaseModel):
    """What is run: seeds, sizes, the reduced configuration, the sites."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...]
    anatomies: int
    anatomy_seed: int
    renders: int
    tests: int
    core: CoreConfig
    list: SiteList


@dataclass(frozen=True)
class Cell:
    """One seed and one arm."""

    seed: int
    arm: str

    @property
    def file(self) -> str:
        """Name of its file of figures."""
        return f"seed-{self.seed}-{self.arm}.json"


@dataclass(frozen=True, eq=False)
class Rendered:
    """Examinations that were rendered once and are drawn from: a step costs its network alone."""

    drawn: tuple[Drawn, ...]
    real: bool = False

    def __len__(self) -> int:
        return len(self.drawn)

    def draw(
        self, rng: Rng, grid: Grid, offset_zyx_mm: ZyxMm, modalities: Sequence[str],
        number: int | None = None, augment: bool = True,
    ) -> Drawn:  # fmt: skip
        """Return one of them, with the images asked for."""
        place = int(rng.integers(len(self.drawn))) if number is None else number % len(self.drawn)
        found = self.drawn[place]
        images = found.images
        adc = images.adc_um2_s if "adc" in modalities else None
        high_b = images.high_b if "high_b" in modalities else None
        return replace(found, images=Images(images.t2w, adc, high_b, None))


def render(cases: Cases, config: CoreConfig, count: int, augment: bool) -> Rendered:
    """Render ``count`` examinations, the cases in turn; the same ones every time."""
    return Rendered(
        tuple(
            cases.draw(
                generator(1, "rendered", number), config.lesion_grid,
                config.training.lesion_offset_mm, [m.value for m in SHOWN], number, augment,
            )
            for number in range(count)
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Runner:
    """Trains and measures cells in a working folder."""

    plan: Experiment
    work: Path
    out: Path

    def prepare(self) -> None:
        """Make the anatomies of each site; what is there is kept."""
        count, sites = self.plan.anatomies, self.plan.list.sites
        made = build_cache(self.work / "all", count * len(sites), seed=self.plan.anatomy_seed)
        for number, site in enumerate(sites):
            folder = self.work / site.data[0]
            folder.mkdir(parents=True, exist_ok=True)
            for path in made[number * count : (number + 1) * count]:
                place = folder / path.name
                place.unlink(missing_ok=True)
                place.hardlink_to(path)

    @cached_property
    def cases(self) -> tuple[dict[str, Rendered], dict[str, Rendered]]:
        """What every cell trains on, and is measured on, by site."""
        logger.info("rendering")
        sides = []
        for held_out, count in ((False, self.plan.renders), (True, self.plan.tests)):
            opened = open_sites(self._listed, self.plan.core, self.work, held_out)
            sides.append(
                {n: render(c, self.plan.core, count, not held_out) for n, c in opened.items()}
            )
        return sides[0], sides[1]

    @property
    def _listed(self) -> SiteList:
        placed = tuple(
            site.model_copy(update={"data": tuple(self.work / folder for folder in site.data)})
            for site in self.plan.list.sites
        )
        return self.plan.list.model_copy(update={"sites": placed})

    def run(self) -> None:
        """Train and measure every cell that is not finished, seed by seed."""
        for seed in self.plan.seeds:
            todo = [c for c in (Cell(seed, arm) for arm in ARMS) if not self._file(c).exists()]
            if not todo:
                continue
            base = self._sites(seed, "first")
            first = base.stage(0, [base.listed.sites[0].name], None)
            near = base.measured_order(first)
            for cell in todo:
                logger.info("cell %s", cell.file)
                names = self._order(cell, [step.name for step in near])
                weights = self._train(cell, names, first)
                told = {"seed": seed, "arm": cell.arm, "order": names,
                        "distances": [step.model_dump() for step in near],
                        "sites": self._measure(weights)}  # fmt: skip
                write(self._file(cell), json.dumps(told) + "\n")

    def _file(self, cell: Cell) -> Path:
        return self.out / "cells" / cell.file

    def _sites(self, seed: int, name: str) -> MultiSite:
        training = self.plan.core.training
        seeded = training.model_copy(update={"seed": training.seed + 100 * seed})
        core = self.plan.core.model_copy(update={"training": seeded})
        folder = self.work / f"seed-{seed}" / name
        folder.mkdir(parents=True, exist_ok=True)
        return MultiSite(core, self._listed, self.cases[0], folder, "cpu", resume=True)

    def _order(self, cell: Cell, near: list[str]) -> list[str]:
        if cell.arm != RANDOM:
            return near
        rng = np.random.default_rng([cell.seed, 77])
        return [near[0], *rng.permutation(near[1:]).tolist()]

    def _train(
        self, cell: Cell, names: Sequence[str], first: dict[str, Weights]
    ) -> dict[str, Weights]:
        run = self._sites(cell.seed, cell.arm)
        if cell.arm == POOLED:
            return _pooled(run)
        weights = first
        for number in range(1, len(names)):
            weights = run.stage(number, names[: number + 1], weights)
        return weights

    def _measure(self, weights: dict[str, Weights]) -> dict[str, Any]:
        release = in_memory(self.plan.core, weights, "cpu")
        anatomies = self.plan.anatomies // split_every(self.plan.core)
        return {name: score(release, cases, anatomies) for name, cases in self.cases[1].items()}


def _pooled(run: MultiSite) -> dict[str, Weights]:
    """Train on all sites at once, for as many steps as all stages have together."""
    stages = len(run.listed.sites) - 1
    later = stage_config(run.config, 0, run.listed).training.localize.steps
    first = run.config.training.localize
    whole = first.model_copy(update={"steps": first.steps + stages * later})
    training = run.config.training.model_copy(update={"localize": whole})
    config = run.config.model_copy(update={"training": training})
    window = pooled(list(run.cases.values()))
    return Training(config, window, run.folder, choose_device("cpu"), True).all_phases()


def score(release: Release, cases: Rendered, anatomies: int) -> dict[str, Any]:
    """Highest map value in the gland by case, whether it lies in a cancer, and the truth."""
    samples = LesionSamples(
        cases, release.config, "measure", 1, NOTHING_WITHHELD, augment=False, in_order=True
    )
    anatomy, positive, highest, hit = [], [], [], []
    for index in range(len(cases)):
        batch = samples.batch(index)
        flags = zip(MODALITIES, batch["present"].tolist(), strict=True)
        present = tuple(m for m, flag in flags if flag)
        gland = batch["zones"][0].numpy() > 0
        maps = localize(batch["image"][0].numpy(), present, release)
        heat = np.where(gland, maps.heat, -1.0)
        lesion = batch["lesion"][0, 0].numpy() > 0
        anatomy.append(index % anatomies)
        positive.append(bool(lesion.any()))
        highest.append(round(float(heat.max()), 6))
        hit.append(bool(lesion.ravel()[int(heat.argmax())]))
    return {"anatomy": anatomy, "positive": positive, "highest": highest, "hit": hit}


def main() -> None:
    """Run the experiment, or only its report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="only table and plot")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    plan = Experiment.model_validate(tomllib.loads(options.config.read_text(encoding="utf-8")))
    runner = Runner(plan, options.work, options.out)
    if not options.report:
        runner.prepare()
        runner.run()
    report(options.out)


if __name__ == "__main__":
    main()
