"""Training over several sites: the first one, then the others from near to far (claim 13, FIG 8-9).

Stage 0 trains on the first site. The network of that stage orders the others. Each further stage
goes on with the weights before, on a window that grows by one site; the sites before are rehearsed.
Every stage is a folder of its own, so that a run that stopped goes on where it was.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ai_core.config import CoreConfig, Phase
from ai_core.errors import InputError
from ai_core.origin import SiteStep
from ai_core.release import choose_device
from ai_core.train.package import Lineage, Sides, in_memory, make_release_from
from ai_core.train.run import PREPARED, Training, Weights, refuse_overwriting
from ai_core.train.similarity import Measured, embeddings_of, order_sites
from ai_core.train.site_list import SiteList, Window, open_site, pooled, read_sites
from ai_core.train.source import Cases
from ai_core.train.team import Team, size_here

logger = logging.getLogger(__name__)
ORDER = "order.json"
PHASES = ("gland", "localize", "classify", "joint")


def open_sites(
    listed: SiteList, config: CoreConfig, scratch: Path, held_out: bool = False
) -> dict[str, Cases]:
    """Open the cases of every site by its name, one side of the split.

    Raises:
        InputError: a site has none (see `open_site`).
    """
    found = {}
    for site in listed.sites:
        cases = open_site(site, config, scratch, held_out)
        if len(cases) == 0:
            raise InputError(
                f"site {site.name} has no cases on one side of the split",
                "Give more cases, or change training.held_out.",
            )
        found[site.name] = cases
    return found


@dataclass(frozen=True)
class MultiSite:
    """One run over a list of sites; ``cases`` by site are those that are trained on.

    ``start``: a release whose weights come first.
    """

    config: CoreConfig
    listed: SiteList
    cases: Mapping[str, Cases]
    folder: Path
    device: str
    resume: bool
    start: Path | None = None

    def run(self) -> tuple[dict[str, Weights], tuple[SiteStep, ...]]:
        """Train all stages; returns the weights and the sites in their order."""
        self.folder.mkdir(parents=True, exist_ok=True)
        refuse_overwriting(self.folder, self.resume)
        torch.set_num_threads(self.config.training.threads)
        first = self.listed.sites[0].name
        weights = self.stage(0, (first,), None)
        order = self._order(weights)
        names = [step.name for step in order]
        for number in range(1, len(names)):
            weights = self.stage(number, names[: number + 1], weights)
        return weights, order

    def stage(
        self, number: int, names: Sequence[str], before: dict[str, Weights] | None
    ) -> dict[str, Weights]:
        """Train one stage on a window of sites, the newest last."""
        folder = self.folder / f"stage-{number}-{names[-1]}"
        folder.mkdir(exist_ok=True)
        logger.info("stage %d: %s", number, ", ".join(names))
        window = Window(tuple(self.cases[name] for name in names), self.listed.newest)
        config = self.config if number == 0 else stage_config(self.config, number, self.listed)
        start = self.start if number == 0 else None
        where = choose_device(self.device)
        return Training(
            config, window, folder, where, self.resume, start, Team(), before
        ).all_phases()

    def _order(self, weights: dict[str, Weights]) -> tuple[SiteStep, ...]:
        """Return the order, made once: a run that goes on keeps the one it began with."""
        file = self.folder / ORDER
        if self.resume and file.exists():
            steps = tuple(SiteStep(**one) for one in json.loads(file.read_text(encoding="utf-8")))
            if {step.name for step in steps} != set(self.cases):
                raise InputError(f"{file} is of other sites", "Choose another folder.")
            return steps
        steps = self.measured_order(weights)
        part = file.with_suffix(".part")
        part.write_text(json.dumps([step.model_dump() for step in steps], indent=1) + "\n")
        part.replace(file)
        return steps

    def measured_order(self, weights: dict[str, Weights]) -> tuple[SiteStep, ...]:
        """Order the sites by their distance from the first, as the network of stage 0 sees them."""
        release = in_memory(self.config, weights, self.device)
        measured = []
        for site in self.listed.sites:
            cases = self.cases[site.name]
            rows = embeddings_of(release, cases, self.config, self.listed.measured)
            measured.append(Measured(site.name, len(cases), rows, site.acquires))
        steps = order_sites(measured, self.listed.acquisition_weight)
        for step in steps[1:]:
            acquired = "not told" if step.acquisition is None else f"{step.acquisition:.3f}"
            logger.info("site %s: distance %.3f (embedding %.3f, acquisition %s)",
                        step.name, step.distance, step.embedding, acquired)  # fmt: skip
        return steps

    def make_release(
        self, weights: dict[str, Weights], order: tuple[SiteStep, ...]
    ) -> dict[str, float]:
        """Fit and measure on the held-out cases of all sites, and write the release."""
        held_out = open_sites(self.listed, self.config, self.folder / PREPARED, held_out=True)
        sides = Sides(pooled(list(self.cases.values())), pooled(list(held_out.values())))
        lineage = Lineage(self.start, order)
        folder = self.folder / "release"
        return make_release_from(self.config, weights, sides, folder, self.device, lineage)


def train_sites(
    config: CoreConfig, listed: Path, out: Path, resume: bool, device: str, start: Path | None
) -> dict[str, float]:
    """Train over a list of sites and write the release; returns its figures.

    Raises:
        InputError: the list or the data cannot be used, or ``out`` holds a run and ``resume`` is
            off.
        TrainingError: training diverged.
    """
    if size_here() > 1:
        raise InputError("sites are trained by one process", "Start without torchrun.")
    sites = read_sites(listed)
    cases = open_sites(sites, config, out / PREPARED)
    run = MultiSite(config, sites, cases, out, device, resume, start)
    weights, order = run.run()
    return run.make_release(weights, order)


def stage_config(config: CoreConfig, number: int, listed: SiteList) -> CoreConfig:
    """Return the configuration of a further stage: a share of the steps, batches of its own."""
    shorter = {name: _shorter(getattr(config.training, name), listed.share) for name in PHASES}
    training = config.training.model_copy(update={**shorter, "seed": config.training.seed + number})
    return config.model_copy(update={"training": training})


def _shorter(phase: Phase, share: float) -> Phase:
    return phase.model_copy(
        update={"steps": round(phase.steps * share), "max_minutes": phase.max_minutes * share}
    )
