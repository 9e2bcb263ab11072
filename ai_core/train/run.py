"""The whole training of a release, phase by phase, in one folder that can be resumed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ai_core.config import CoreConfig, ModalityDropout, Phase
from ai_core.errors import InputError
from ai_core.manifest import SYNTHESIS
from ai_core.release import NETWORKS, build_networks, choose_device, read_weights
from ai_core.train.data import Batch, GlandSamples, LesionSamples, stream
from ai_core.train.datasets import open_cases
from ai_core.train.loop import PhasePlan, PhaseRun
from ai_core.train.phases import (
    ClassifyStep,
    JointModel,
    gland_step,
    localize_step,
)
from ai_core.train.plots import plot_log
from ai_core.train.source import Cases
from ai_core.train.team import Team, joined

logger = logging.getLogger(__name__)
Weights = dict[str, Tensor]
#: Real examinations, prepared once, within the folder of the run.
PREPARED = "prepared"
#: In the last two phases every patch counts; T2W alone says too little about significance.
LATE_DROPOUT = ModalityDropout(t2w_only=0.0)


@dataclass(frozen=True)
class Training:
    """One training run: configuration, data, folder, device.

    What the networks start with: ``weights`` (as `all_phases` returns them), else those of the
    release ``start``, else chance.
    """

    config: CoreConfig
    source: Cases
    folder: Path
    device: torch.device
    resume: bool
    start: Path | None = None
    team: Team = field(default_factory=Team)
    weights: Mapping[str, Weights] | None = None

    def all_phases(self) -> dict[str, Weights]:
        """Weights of the gland finder, localizer and classifier after all phases.

        With them those of ``synthesis`` where that phase has steps.
        """
        torch.manual_seed(self.config.training.seed)
        networks = build_networks(self.config)
        if self.start is not None:
            begin_from(self.start, networks)
        for name, network in zip(NETWORKS, networks, strict=True):
            if self.weights is not None:
                network.load_state_dict(self.weights[name])
        gland, localizer, classifier = networks
        gland_weights = self._gland(gland)
        local = self._localize(localizer)
        localizer.load_state_dict(local)
        joint = JointModel(localizer, classifier, freeze=True)
        joint.load_state_dict(self._joint("classify", joint, self.config.training.classify))
        final = JointModel(localizer, classifier, freeze=False)
        both = self._joint("joint", final, self.config.training.joint)
        return {
            "gland": gland_weights,
            "localizer": _part(both, "localizer."),
            "classifier": _part(both, "classifier."),
            **self._synthesis(),
        }

    def _synthesis(self) -> dict[str, Weights]:
        """Weights of the branch's generator; nothing where the phase has no steps."""
        budget = self.config.training.synthesis
        if budget.steps == 0:
            return {}
        from ai_core.train.synthesis import (
            Adversaries,
            SynthesisStep,
            generator_weights,
            normal_samples,
        )

        torch.manual_seed(self.config.training.seed)
        network = Adversaries(self.config.nets.synthesis)
        samples = normal_samples(self.source, self.config)
        plan = self._plan(SYNTHESIS, budget, samples, SynthesisStep(self.config))
        return {SYNTHESIS: generator_weights(self._phase(plan, network))}

    def _gland(self, network: nn.Module) -> Weights:
        budget = self.config.training.gland
        samples = GlandSamples(self.source, self.config, "gland", budget.batch, 0.0)
        return self._phase(self._plan("gland", budget, samples, gland_step), network)

    def _localize(self, network: nn.Module) -> Weights:
        training = self.config.training
        samples = LesionSamples(
            self.source, self.config, "localize", training.localize.batch, training.dropout
        )
        return self._phase(
            self._plan("localize", training.localize, samples, localize_step), network
        )

    def _joint(self, name: str, network: JointModel, budget: Phase) -> Weights:
        samples = LesionSamples(self.source, self.config, name, budget.batch, LATE_DROPOUT)
        step = ClassifyStep(self.config, joint=not network.freeze)
        return self._phase(self._plan(name, budget, samples, step), network)

    def _plan(
        self, name: str, budget: Phase, samples: GlandSamples | LesionSamples, step: object
    ) -> PhasePlan:
        def mine(step: int) -> Batch:
            return samples.batch(self.team.batch_of(step))

        def batches(start: int) -> Iterator[Batch]:
            return stream(mine, start, self.config.training.workers)

        return PhasePlan(name, budget, step, batches)  # type: ignore[arg-type]

    def _phase(self, plan: PhasePlan, network: nn.Module) -> Weights:
        if plan.budget.steps == 0:
            return network.state_dict()
        done = self.folder / f"{plan.name}.safetensors"
        if self.resume and done.exists():
            logger.info("phase %s is done already", plan.name)
            return load_file(done)
        logger.info("phase %s starts", plan.name)
        training = self.config.training
        # Chance (dropout, jitter) differs between processes; the first weights do not.
        torch.manual_seed(training.seed + self.team.rank)
        run = PhaseRun(
            plan,
            network,
            self.folder,
            self.device,
            training.checkpoint_minutes,
            training.precision == "bf16",
            self.team,
        )
        weights = run.run(self.resume)
        if self.team.leads:
            save_file({k: v.contiguous() for k, v in weights.items()}, done)
            plot_log(run.log_file)
        self.team.wait()
        return weights


def _part(weights: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def begin_from(folder: Path, networks: tuple[nn.Module, ...]) -> None:
    """Fill the networks with the weights of a verified release, wherever name and shape agree.

    Raises:
        ReleaseError: the release is not whole, or altered.
    """
    for name, network, weights in zip(NETWORKS, networks, read_weights(folder), strict=True):
        own = network.state_dict()
        fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
        network.load_state_dict({**own, **fitting})
        logger.info("%s: %d of %d tensors from %s", name, len(fitting), len(own), folder)


def refuse_overwriting(out: Path, resume: bool) -> None:
    """See that a folder may be trained in.

    Raises:
        InputError: it holds a run, and ``resume`` is off.
    """
    if not resume and any(out.rglob("*.checkpoint.pt")):
        raise InputError(f"{out} holds a training run", "Add --resume, or choose another folder.")


def train(
    config: CoreConfig,
    data: list[Path],
    out: Path,
    resume: bool,
    device: str,
    start: Path | None = None,
) -> dict[str, Weights]:
    """Train all phases; ``start``: a release whose weights come first.

    Raises:
        InputError: a data folder holds no cases (see `open_cases`), or ``out`` holds a run and
            ``resume`` is off.
        TrainingError: training diverged.
    """
    out.mkdir(parents=True, exist_ok=True)
    refuse_overwriting(out, resume)
    torch.set_num_threads(config.training.threads)
    source = open_cases(data, config, out / PREPARED)
    where = choose_device(device)
    with joined(where) as team:
        return Training(config, source, out, where, resume, start, team).all_phases()
