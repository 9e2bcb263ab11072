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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_auc_score

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
NEAR, RANDOM, POOLED = "near-to-far", "random", "pooled"
ARMS = (NEAR, RANDOM, POOLED)
REPEATS = 2000
SHOWN = (Modality.T2W, Modality.ADC, Modality.HIGH_B)
Floats = npt.NDArray[np.float64]


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


# the report


@dataclass(frozen=True)
class Finished:
    """The finished cells: seeds that have every arm, sites, and the figures of each cell."""

    seeds: tuple[int, ...]
    sites: tuple[str, ...]
    cells: Mapping[tuple[int, str], Mapping[str, Any]]

    def auroc(self, seed: int, arm: str, weight: Mapping[str, Floats] | None = None) -> float:
        """Mean over the sites of the AUROC by case; ``weight`` by anatomy of each site."""
        return float(np.mean([self.of_site(seed, arm, s, weight) for s in self.sites]))

    def of_site(
        self, seed: int, arm: str, site: str, weight: Mapping[str, Floats] | None = None
    ) -> float:
        """AUROC by case at one site."""
        told = self.cells[seed, arm]["sites"][site]
        weights = None if weight is None else weight[site][told["anatomy"]]
        return float(roc_auc_score(told["positive"], told["highest"], sample_weight=weights))

    def hits(self, arm: str) -> float:
        """Share of positive examinations whose highest value lies in a significant cancer."""
        found = [
            hit
            for seed in self.seeds
            for told in self.cells[seed, arm]["sites"].values()
            for hit, positive in zip(told["hit"], told["positive"], strict=True)
            if positive
        ]
        return float(np.mean(found))


def read_cells(folder: Path) -> Finished:
    """Read the finished cells of a folder."""
    cells = {}
    for file in sorted(folder.glob("seed-*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        cells[told["seed"], told["arm"]] = told
    seeds = sorted({seed for seed, _ in cells})
    whole = tuple(seed for seed in seeds if all((seed, arm) in cells for arm in ARMS))
    sites = tuple(next(iter(cells.values()))["sites"]) if cells else ()
    return Finished(whole, sites, cells)


def resampled(found: Finished, one: str, other: str) -> tuple[float, float, float]:
    """Mean difference of AUROC, and its 95 % interval.

    Paired bootstrap: seeds, and anatomies within each site, are drawn anew together for both arms.
    """
    rng = np.random.default_rng(1)
    told = found.cells[found.seeds[0], one]["sites"]
    counts = {site: max(told[site]["anatomy"]) + 1 for site in found.sites}
    values = []
    while len(values) < REPEATS:
        weight = {
            site: rng.multinomial(n, np.full(n, 1 / n)).astype(np.float64)
            for site, n in counts.items()
        }
        if not all(_both_classes(told[site], weight[site]) for site in found.sites):
            continue
        seeds = rng.choice(found.seeds, len(found.seeds))
        by_seed = {
            seed: found.auroc(seed, one, weight) - found.auroc(seed, other, weight)
            for seed in set(seeds.tolist())
        }
        values.append(np.mean([by_seed[seed] for seed in seeds.tolist()]))
    mean = np.mean([found.auroc(s, one) - found.auroc(s, other) for s in found.seeds])
    low, high = np.percentile(values, (2.5, 97.5))
    return float(mean), float(low), float(high)


def _both_classes(told: Mapping[str, Any], weight: Floats) -> bool:
    positive = np.array(told["positive"])
    drawn = weight[told["anatomy"]] > 0
    return bool((positive & drawn).any() and (~positive & drawn).any())


def lines_of(found: Finished) -> Iterator[str]:
    """Give the table and the comparisons as Markdown."""
    cases = sum(
        len(told["positive"]) for told in found.cells[found.seeds[0], NEAR]["sites"].values()
    )
    yield f"Seeds with all three arms: {len(found.seeds)}; {cases} examinations measured by each.\n"
    yield "| Training | " + " | ".join(found.sites) + " | mean AUROC | SD over seeds | hits |"
    yield "|---|" + "---|" * (len(found.sites) + 3)
    for arm in ARMS:
        by_site = [
            np.mean([found.of_site(s, arm, one) for s in found.seeds]) for one in found.sites
        ]
        means = [found.auroc(seed, arm) for seed in found.seeds]
        spread = f"{np.std(means, ddof=1):.3f}" if len(means) > 1 else "-"
        cells = " | ".join(f"{value:.3f}" for value in by_site)
        yield f"| {arm} | {cells} | {np.mean(means):.3f} | {spread} | {found.hits(arm):.2f} |"
    yield "\n| Difference of mean AUROC | value | 95 % interval |\n|---|---|---|"
    for one, other in ((NEAR, RANDOM), (NEAR, POOLED), (RANDOM, POOLED)):
        value, low, high = resampled(found, one, other)
        yield f"| {one} minus {other} | {value:+.3f} | {low:+.3f} to {high:+.3f} |"


def report(out: Path) -> None:
    """Write table and plot of the finished cells."""
    found = read_cells(out / "cells")
    if not found.seeds:
        logger.warning("no seed has all three arms yet")
        return
    text = "\n".join(lines_of(found)) + "\n"
    write(out / "multi-site.md", text)
    plot(found, out / "multi-site.png")
    sys.stdout.write(text)


def plot(found: Finished, file: Path) -> None:
    """Draw mean AUROC by arm, a line for each seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(5.5, 3.6), layout="constrained")
    FigureCanvasAgg(canvas)
    axis = canvas.subplots()
    for seed in found.seeds:
        values = [found.auroc(seed, arm) for arm in ARMS]
        axis.plot(range(len(ARMS)), values, "o-", color="#9bb3c9", ms=3, lw=0.8)
    means = [np.mean([found.auroc(seed, arm) for seed in found.seeds]) for arm in ARMS]
    axis.plot(range(len(ARMS)), means, "_", color="#b3261e", ms=40, mew=2.5)
    axis.set_xticks(range(len(ARMS)), ARMS)
    axis.set_ylabel("AUROC by case, mean of the sites")
    axis.set_title(f"{len(found.seeds)} seeds, simulated sites; red: mean", fontsize=10)
    canvas.savefig(file, dpi=110)


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


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
