"""Requests shared by the tests of result objects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import result_cases as cases

from dicom_node.results.build import ResultObject, ResultRequest, build_results


@pytest.fixture(scope="session")
def real_finding(prostatex_0000: Path) -> tuple[ResultRequest, list[ResultObject]]:
    """PROSTATEx-0000 with two made-up findings, encoded."""
    request = cases.real_request(prostatex_0000)
    return request, build_results(request)


@pytest.fixture(scope="session")
def real_no_finding(prostatex_0000: Path) -> tuple[ResultRequest, list[ResultObject]]:
    """PROSTATEx-0000 with a gland and no finding, encoded."""
    request = cases.real_request(prostatex_0000, ())
    return request, build_results(request)


@pytest.fixture(scope="session")
def real_not_analysed(prostate3t_0002: Path) -> tuple[ResultRequest, list[ResultObject]]:
    """Prostate-3T 03-0002 (T2W alone), reported as not analysed."""
    request = cases.request_for(cases.read_series(prostate3t_0002), cases.not_analysed())
    return request, build_results(request)


@pytest.fixture(scope="session")
def stack_finding() -> tuple[ResultRequest, list[ResultObject]]:
    """A generated oblique stack with one made-up finding, encoded."""
    request = cases.stack_request()
    return request, build_results(request)
