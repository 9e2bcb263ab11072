"""The whole analysis in one process: fp32 against bf16, and peak memory. Ratios, no limits."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
import torch

from ai_core.pipeline import analyse
from ai_core.precision import has_bf16
from ai_core.release import Release, load_release
from ai_core.types import Case, CaseResult
from dicom_node.config import NodeConfig
from dicom_node.flow import study as flow
from dicom_node.process import process_folder

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]
REPEATS = 5


def _case(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The examination as the product reads it from DICOM."""
    seen: list[Case] = []

    def keep(case: Case, release: Release) -> CaseResult:
        seen.append(case)
        return analyse(case, release)

    monkeypatch.setattr(flow, "analyse", keep)
    process_folder(folder, out, NodeConfig())
    return seen[0]


def _best(case: Case, release: Release) -> tuple[float, float, dict[str, float]]:
    """Least wall and processor seconds of several warm runs, and the stages of the last."""
    wall, used, stages = [], [], {}
    for _ in range(REPEATS):
        start, before = time.perf_counter(), time.process_time()
        stages = dict(analyse(case, release).timings_s)
        wall.append(time.perf_counter() - start)
        used.append(time.process_time() - before)
    return min(wall), min(used), stages


def test_fp32_against_bf16(
    prostatex_0000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _case(prostatex_0000, tmp_path, monkeypatch)
    settings = ["fp32"] + (["bf16"] if has_bf16(torch.device("cpu")) else [])
    rows = {name: _best(case, load_release(None, "cpu", name)) for name in settings}
    print(f"\nanalyse, PROSTATEx ProstateX-0000, {torch.get_num_threads()} threads, warm")
    for name, (wall, used, stages) in rows.items():
        parts = ", ".join(f"{key} {value:.2f}" for key, value in stages.items())
        print(f"  {name}: {wall:.2f} s wall, {used:.2f} s processor ({parts})")
        print(f"  {name}: fp32 takes {rows['fp32'][1] / used:.2f} times its processor time")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  peak memory of the process {peak:.0f} MiB")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(prostatex_0000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _case(prostatex_0000, tmp_path, monkeypatch)
    for name in ("fp32", "auto"):
        wall, _, stages = _best(case, load_release(None, "cuda", name))
        print(f"\ncuda {name}: {wall:.2f} s", {k: round(v, 2) for k, v in stages.items()})
