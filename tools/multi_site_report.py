"""Table and plot of the finished cells of `multi_site.py`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ai_core.evaluate.metrics import Rows, auroc

logger = logging.getLogger("multi_site")
NEAR, RANDOM, POOLED = "near-to-far", "random", "pooled"
ARMS = (NEAR, RANDOM, POOLED)
REPEATS = 2000
Floats = npt.NDArray[np.float64]


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
        rows = self.rows[seed, arm, site]
        return auroc(rows, np.ones(rows.case.max() + 1) if weight is None else weight[site])

    @cached_property
    def rows(self) -> dict[tuple[int, str, str], Rows]:
        """Scores of each cell and site; the index of a case is that of its anatomy."""
        return {
            (*cell, site): Rows(*(np.array(one[n]) for n in ("anatomy", "positive", "highest")))
            for cell, told in self.cells.items()
            for site, one in told["sites"].items()
        }

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
    yield "# Several simulated sites\n"
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
    axis.set_xlim(-0.5, len(ARMS) - 0.5)
    axis.set_ylabel("AUROC by case, mean of the sites")
    axis.set_title(f"{len(found.seeds)} seeds, simulated sites; red: mean", fontsize=10)
    canvas.savefig(file, dpi=110)


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
