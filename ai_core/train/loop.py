"""One training phase: optimiser, schedule, moving average of weights, checkpoints, log.

A phase is a function of its seed and its data: a run that was interrupted and resumed ends with
the same weights as one that was not (batch *i* depends on *i* alone, the generators are stored).
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from ai_core.config import Phase
from ai_core.errors import TrainingError
from ai_core.train.team import Team

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]
Step = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, float]]]
Batches = Callable[[int], Iterator[Batch]]
#: Looks at the averaged weights at a step; says whether to stop.
Watch = Callable[[int, dict[str, Tensor]], bool]
WARM_UP_STEPS = 40
LOG_EVERY = 10
GRADIENT_LIMIT = 5.0


@dataclass(frozen=True)
class PhasePlan:
    """What a phase needs: its name, budget, loss of a batch, and batches from a given index on.

    ``watch``: called after every ``watch_every`` steps; the phase ends early where it says so.
    """

    name: str
    budget: Phase
    step: Step
    batches: Batches
    watch: Watch | None = None
    watch_every: int = 1


@dataclass
class _State:
    step: int = 0
    elapsed_s: float = 0.0


class PhaseRun:
    """Trains one network for one phase in a run folder."""

    def __init__(
        self,
        plan: PhasePlan,
        network: nn.Module,
        folder: Path,
        device: torch.device,
        checkpoint_minutes: float,
        bf16: bool = False,
        team: Team | None = None,
    ) -> None:
        self.plan, self.network, self.device, self.bf16 = plan, network.to(device), device, bf16
        self.team = team or Team()
        self.checkpoint = folder / f"{plan.name}.checkpoint.pt"
        self.log_file = folder / f"{plan.name}.csv"
        self.checkpoint_s = checkpoint_minutes * 60
        budget = plan.budget
        trained = [p for p in network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            trained, lr=budget.learning_rate, weight_decay=budget.weight_decay
        )
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.state = _State()

    def run(self, resume: bool) -> dict[str, Tensor]:
        """Train to the end of the budget; returns the averaged weights (CPU)."""
        if resume and self.checkpoint.exists():
            self._load()
        saved = started = time.monotonic()
        before = self.state.elapsed_s
        with _progress(self.team.leads) as progress:
            bar = progress.add_task(self.plan.name, total=self.plan.budget.steps, note="")
            batches = self.plan.batches(self.state.step)
            while (share := self._share()) < 1.0:
                values = self._one(next(batches), share)
                self.state.elapsed_s = before + time.monotonic() - started
                progress.update(bar, completed=self.state.step, note=_note(values))
                if self.state.step % LOG_EVERY == 0 and self.team.leads:
                    self._log(values)
                if self._told_to_stop():
                    break
                if time.monotonic() - saved > self.checkpoint_s:
                    self._save()
                    saved = time.monotonic()
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        self.team.average(self.average)
        self._save()
        self.team.wait()
        return {k: v.cpu() for k, v in self.average.items()}

    def _told_to_stop(self) -> bool:
        plan, step = self.plan, self.state.step
        return (
            plan.watch is not None
            and step % plan.watch_every == 0
            and plan.watch(step, self.average)
        )

    def _share(self) -> float:
        """Part of the budget that is used up, by steps or by time, whichever is further."""
        budget = self.plan.budget
        used = max(self.state.step / budget.steps, self.state.elapsed_s / (60 * budget.max_minutes))
        return self.team.furthest(used)

    def _one(self, batch: Batch, share: float) -> dict[str, float]:
        warm = min(1.0, (self.state.step + 1) / WARM_UP_STEPS)
        rate = (
            self.plan.budget.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        if share >= self.plan.budget.frozen_norm_from:
            freeze_norm(self.network)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss, values = self.plan.step(self.network, _to(batch, self.device))
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss of phase {self.plan.name} is not finite at step {self.state.step}",
                "Lower its learning rate, or look at the data.",
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.team.average_gradients(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_LIMIT)
        self.optimiser.step()
        self._update_average()
        self.state.step += 1
        return {"loss": float(loss.detach()), "rate": rate, **values}

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(self.plan.budget.ema, (1 + self.state.step) / (10 + self.state.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    def _log(self, values: dict[str, float]) -> None:
        new = not self.log_file.exists()
        with self.log_file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["step", "elapsed_s", *values])
            row = [f"{value:.5g}" for value in values.values()]
            writer.writerow([self.state.step, f"{self.state.elapsed_s:.1f}", *row])

    def _save(self) -> None:
        if not self.team.leads:
            return
        content = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.state.step,
            "elapsed_s": self.state.elapsed_s,
            "random": torch.get_rng_state(),
        }
        save_atomic(content, self.checkpoint)

    def _load(self) -> None:
        content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.network.load_state_dict(content["network"])
        self.average = {k: v.to(self.device) for k, v in content["average"].items()}
        self.optimiser.load_state_dict(content["optimiser"])
        self.state = _State(content["step"], content["elapsed_s"])
        torch.set_rng_state(content["random"])
        logger.info("phase %s goes on at step %d", self.plan.name, self.state.step)


def freeze_norm(network: nn.Module) -> None:
    """Let batch normalisation use its running statistics, as in use.

    With batches of two volumes the statistics of a batch are those of its images; the last part of
    training runs on the population's, so that absolute values (ADC) count and nothing shifts later.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()


def save_atomic(content: dict[str, Any], path: Path) -> None:
    """Write with torch, then rename: a kill or a full disk leaves the old file or the new one."""
    part, buffer = path.with_suffix(".part"), io.BytesIO()
    torch.save(content, buffer)
    part.write_bytes(buffer.getbuffer())
    part.replace(path)


def _to(batch: Batch, device: torch.device) -> Batch:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        refresh_per_second=1,
        disable=not shown,
    )


def _note(values: dict[str, float]) -> str:
    return " ".join(f"{k} {v:.3f}" for k, v in values.items() if k != "rate")
