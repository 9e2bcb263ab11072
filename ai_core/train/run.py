"""The whole training of a release, phase by phase, in one folder that can be resumed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ai_core.config import CoreConfig, ModalityDropout, Phase
from ai_core.errors import InputError
from ai_core.release import build_networks, choose_device
from ai_core.train.data import Batch, GlandSamples, LesionSamples, stream
from ai_core.train.loop import PhasePlan, PhaseRun
from ai_core.train.phases import (
    ClassifyStep,
    JointModel,
    gland_step,
    localize_step,
)
from ai_core.train.source import Source

logger = logging.getLogger(__name__)
Weights = dict[str, Tensor]
#: In the last two phases every patch counts; T2W alone says too little about significance.
LATE_DROPOUT = ModalityDropout(t2w_only=0.0)


@dataclass(frozen=True)
class Training:
    """One training run: configuration, data, folder, device."""

    config: CoreConfig
    source: Source
    folder: Path
    device: torch.device
    resume: bool

    def all_phases(self) -> dict[str, Weights]:
        """Weights of the gland finder, localizer and classifier after all phases."""
        torch.manual_seed(self.config.training.seed)
        gland, localizer, classifier = build_networks(self.config)
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
        }

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
        def batches(start: int) -> Iterator[Batch]:
            return stream(samples.batch, start, self.config.training.workers)

        return PhasePlan(name, budget, step, batches)  # type: ignore[arg-type]

    def _phase(self, plan: PhasePlan, network: nn.Module) -> Weights:
        done = self.folder / f"{plan.name}.safetensors"
        if self.resume and done.exists():
            logger.info("phase %s is done already", plan.name)
            return load_file(done)
        logger.info("phase %s starts", plan.name)
        training = self.config.training
        run = PhaseRun(
            plan,
            network,
            self.folder,
            self.device,
            training.checkpoint_minutes,
            training.precision == "bf16",
        )
        weights = run.run(self.resume)
        save_file({k: v.contiguous() for k, v in weights.items()}, done)
        return weights


def _part(weights: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def train(
    config: CoreConfig, data: list[Path], out: Path, resume: bool, device: str
) -> dict[str, Weights]:
    """Train all phases on cached simulated cases.

    Raises:
        InputError: a data folder holds no cases, or ``out`` holds a run and ``resume`` is off.
        TrainingError: training diverged.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not resume and any(out.glob("*.checkpoint.pt")):
        raise InputError(f"{out} holds a training run", "Add --resume, or choose another folder.")
    torch.set_num_threads(config.training.threads)
    every = max(2, round(1 / config.training.held_out))
    source = Source(tuple(data), every)
    source.case_at(0)
    return Training(config, source, out, choose_device(device), resume).all_phases()
