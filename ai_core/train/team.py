"""Several processes that train one network together, as `torchrun` starts them.

Each takes every n-th batch; gradients are averaged after each step. Alone, all of it is nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Team:
    """A process among all of a run: number ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def batch_of(self, step: int) -> int:
        """Return the index of this process' batch at a step: no two processes share one."""
        return step * self.size + self.rank

    def average_gradients(self, network: nn.Module) -> None:
        """Replace each gradient by the mean over all processes; a missing one counts as zero.

        A network of an image that this process' batch lacks has no gradient here (modality
        dropout), though it may have one elsewhere.
        """
        if self.size == 1:
            return
        trained = [p for p in network.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._mean([p.grad for p in trained if p.grad is not None])

    def average(self, values: dict[str, Tensor]) -> None:
        """Replace floating-point values (norm statistics) by their mean over all processes."""
        if self.size > 1:
            self._mean([v for v in values.values() if v.is_floating_point()])

    def furthest(self, share: float) -> float:
        """Return the largest value over all processes, so that they stop at the same step."""
        if self.size == 1:
            return share
        value = torch.tensor(share, dtype=torch.float64, device=_device())
        distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
        return float(value)

    def wait(self) -> None:
        """Go on when every process is here."""
        if self.size > 1:
            distributed.barrier()

    def _mean(self, values: list[Tensor]) -> None:
        flat = torch.cat([v.reshape(-1).float() for v in values])
        distributed.all_reduce(flat)
        flat /= self.size
        start = 0
        for value in values:
            value.copy_(flat[start : start + value.numel()].view_as(value))
            start += value.numel()


def size_here() -> int:
    """How many processes train together, as the environment says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads_here() -> bool:
    """Whether this process is the first of its run, known before and after they have joined."""
    return int(os.environ.get("RANK", "0")) == 0


def _device() -> torch.device:
    """Where the back-end exchanges numbers: NCCL on the GPU, Gloo on the CPU."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Join the processes that `torchrun` announced in the environment; leave them at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
