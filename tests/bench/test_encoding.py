"""Encoding the result objects of a study: CPU seconds of one process. Never fails on time."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

import result_cases as cases

from dicom_node.domain.profile import DEFAULT_KINDS, kinds_to_encode
from dicom_node.results.build import ResultRequest, build_results

pytestmark = pytest.mark.bench
LIMIT_S = 2.0
REPEATS = 5


def measure(title: str, request: ResultRequest) -> float:
    """Best of some builds, in CPU seconds of this process (all its threads)."""
    objects = build_results(request)  # imports, fonts and tables are made once per process
    best = float("inf")
    for _ in range(REPEATS):
        begun = time.process_time()
        build_results(request)
        best = min(best, time.process_time() - begun)
    size = sum(len(made.data) for made in objects) / 2**20
    ratio = best / LIMIT_S
    print(f"  {title:<44} {best:6.2f} s CPU, {ratio:4.2f} of {LIMIT_S:g} s, "
          f"{len(objects):2d} files, {size:5.1f} MiB")  # fmt: skip
    return best


def test_encoding_of_a_public_examination(prostatex_0000: Path) -> None:
    request = cases.real_request(prostatex_0000)
    print("\nencoding, PROSTATEx ProstateX-0000, 384 x 384 x 19, two findings")
    measure("default objects", request)
    wanted = frozenset(kinds_to_encode(DEFAULT_KINDS))
    measure(
        "default objects, all forms and stand-ins", replace(request, kinds=wanted, variants=True)
    )
    measure("every kind, every form", cases.real_request(prostatex_0000, **cases.EVERYTHING))
