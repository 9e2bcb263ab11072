"""Stage (c), second part: training on annotated cases in the order of their uncertainty.

Localizer and classifier, jointly, at a low rate and with stored normalisation statistics; a share
of the batches are simulated cases of other sites (rehearsal), so that what was known stays known.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ai_core.adapt.keep import write_weights
from ai_core.adapt.plan import FinetunePlan
from ai_core.adapt.score import NO_DROPOUT
from ai_core.release import Release
from ai_core.resume import write_json
from ai_core.train.archive_source import ArchiveSource
from ai_core.train.data import Batch, LesionSamples, generator, stream
from ai_core.train.loop import PhasePlan, PhaseRun
from ai_core.train.phases import ClassifyStep, JointModel
from ai_core.train.source import Cases

NAME = "finetune"
CHECKPOINT_MINUTES = 1.0
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Material:
    """``trained``: annotated cases in their order; ``watched``: they decide when to stop."""

    trained: ArchiveSource
    watched: ArchiveSource
    rehearsed: Cases


@dataclass(frozen=True)
class Finetune:
    """One fine-tuning, in a folder in which it goes on after a stop."""

    release: Release
    material: Material
    plan: FinetunePlan
    folder: Path
    seed: int
    workers: int = 0

    def run(self) -> Release:
        """Return the release with the best weights by the watched cases; perhaps the first."""
        release = self.release
        self.folder.mkdir(parents=True, exist_ok=True)
        network = JointModel(
            copy.deepcopy(release.localizer), copy.deepcopy(release.classifier), freeze=False
        )
        network.requires_grad_(True)
        torch.manual_seed(self.seed)
        step = ClassifyStep(release.config, joint=True)
        watch = Watcher(self, copy.deepcopy(network))
        watch.begin({k: v.detach().clone() for k, v in network.state_dict().items()})
        plan = PhasePlan(
            NAME, self.plan.phase, step, self._batches, watch.look, self.plan.check_every
        )
        done = self.folder / "done.json"
        if not done.exists():
            PhaseRun(plan, network, self.folder, release.device, CHECKPOINT_MINUTES).run(True)
            write_json(done, {"steps": watch.steps()})
        return with_weights(release, watch.best())

    def _batches(self, start: int) -> Iterator[Batch]:
        return stream(partial(_batch, self), start, self.workers)

    def opened(self, index: int) -> int:
        """Return how many of the ordered cases batches draw from at a step."""
        plan, count = self.plan, len(self.material.trained)
        share = min(1.0, index / max(1.0, plan.all_open * plan.phase.steps))
        return max(1, math.ceil(count * (plan.first + (1 - plan.first) * share)))


def _batch(job: Finetune, index: int) -> Batch:
    """Make batch ``index``: of the opened cases of the site, or of simulated ones."""
    rehearse = generator(job.seed, "choice", index).random() < job.plan.rehearsal
    trained = job.material.trained
    source: Cases = job.material.rehearsed
    if not rehearse:
        source = replace(trained, files=trained.files[: job.opened(index)])
    training = job.release.config.training.model_copy(update={"seed": job.seed})
    config = job.release.config.model_copy(update={"training": training})
    samples = LesionSamples(
        source, config, NAME, job.plan.phase.batch, job.plan.dropout, profile=job.release.profile
    )
    return samples.batch(index)


class Watcher:
    """Keeps the weights with the lowest loss on the watched cases, and says when to stop."""

    def __init__(self, job: Finetune, network: JointModel) -> None:
        self._job, self._network = job, network.to(job.release.device)
        self._history_file = job.folder / "watched.json"
        self._best_file = job.folder / "best.safetensors"
        samples = LesionSamples(
            job.material.watched, job.release.config, "watched", 1, NO_DROPOUT, augment=False,
            in_order=True, profile=job.release.profile,
        )  # fmt: skip
        self._batches = [samples.batch(i) for i in range(len(job.material.watched))]
        self._step = ClassifyStep(job.release.config, joint=True)

    def begin(self, weights: Weights) -> None:
        """Look at the weights before the first step."""
        if not self._history():
            self.look(0, weights)

    def look(self, step: int, weights: Weights) -> bool:
        """Measure weights; return whether to stop."""
        history = {k: v for k, v in self._history().items() if k < step}
        history[step] = self._loss(weights)
        if history[step] <= min(history.values()):
            write_weights(self._best_file, weights)
        write_json(self._history_file, {str(k): round(v, 6) for k, v in history.items()})
        best = min(history, key=lambda k: history[k])
        return sum(k > best for k in history) >= self._job.plan.patience

    def best(self) -> Weights:
        """Return the best weights so far."""
        return load_file(self._best_file)

    def steps(self) -> int:
        """Return the step of the best weights."""
        history = self._history()
        return min(history, key=lambda k: history[k])

    def _history(self) -> dict[int, float]:
        if not self._history_file.exists():
            return {}
        stored = json.loads(self._history_file.read_text(encoding="utf-8"))
        return {int(k): float(stored[k]) for k in sorted(stored, key=int)}

    def _loss(self, weights: Weights) -> float:
        """Mean loss; candidates are jittered the same way each time."""
        self._network.load_state_dict(weights)
        self._network.eval()
        device, total = self._job.release.device, 0.0
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self._job.seed)
            for batch in self._batches:
                moved = {key: value.to(device) for key, value in batch.items()}
                total += float(self._step(self._network, moved)[0])
        return total / max(1, len(self._batches))


def with_weights(release: Release, weights: Weights) -> Release:
    """Return a release with other weights of the localizer and the classifier."""
    network = JointModel(
        copy.deepcopy(release.localizer), copy.deepcopy(release.classifier), freeze=False
    )
    network.load_state_dict(weights)
    network.eval()
    return replace(
        release,
        localizer=network.localizer.to(release.device),
        classifier=network.classifier.to(release.device),
    )
