"""Numbers that networks compute with: fp32 everywhere, or bf16 where the hardware has it.

bf16 is an autocast of the networks alone: preparation, candidates and features stay as they are.
Findings keep their places; likelihoods move by less than `TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch

from ai_core.errors import ReleaseError

#: Largest change of a likelihood (0-1) between fp32 and bf16, on a trained release. Single voxels
#: of a map, at the edge of a finding, may move further.
TOLERANCE = 0.03


class Precision(StrEnum):
    """What networks compute with."""

    FP32 = "fp32"
    BF16 = "bf16"


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision of a setting; ``auto`` is bf16 on CUDA devices that have it, else fp32.

    Raises:
        ReleaseError: the setting is unknown, or the device has no fast bf16.
    """
    if name == "auto":
        return Precision.BF16 if device.type == "cuda" and has_bf16(device) else Precision.FP32
    try:
        wanted = Precision(name)
    except ValueError as error:
        raise ReleaseError(f"{name} is not a precision", "Use auto, fp32 or bf16.") from error
    if wanted is Precision.BF16 and not has_bf16(device):
        raise ReleaseError(f"{device} has no bf16 instructions", "Set the precision to fp32.")
    return wanted


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 natively (CPU: AVX-512 BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = (torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported())
    return any(flags)


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run networks inside with this precision."""
    enabled = precision is Precision.BF16
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        yield
