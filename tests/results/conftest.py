"""Requests shared by the tests of result objects."""

from __future__ import annotations

import sys
from dataclasses import replace
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
def full_finding(prostatex_0000: Path) -> tuple[ResultRequest, list[ResultObject]]:
    """Every kind and form, of a later revision of PROSTATEx-0000 with a PSA."""
    request = cases.real_request(prostatex_0000, **cases.EVERYTHING)
    return request, build_results(request)


@pytest.fixture(scope="session")
def full_no_finding(prostatex_0000: Path) -> tuple[ResultRequest, list[ResultObject]]:
    """Every kind and form where nothing was found."""
    request = cases.real_request(prostatex_0000, (), **cases.EVERYTHING)
    return request, build_results(request)


@pytest.fixture(scope="session")
def full_not_analysed(prostate3t_0002: Path) -> tuple[ResultRequest, list[ResultObject]]:
    """Every kind and form that a study has that was not analysed."""
    slices = cases.read_series(prostate3t_0002)
    request = cases.request_for(slices, cases.not_analysed(), **cases.EVERYTHING)
    return request, build_results(request)


@pytest.fixture(scope="session")
def full_stack() -> tuple[ResultRequest, list[ResultObject]]:
    """Every kind and form on a generated oblique stack with non-square pixels and gaps."""
    slices = cases.stack()
    for image in slices:
        image.SliceThickness = "2.5"  # of 4.0 mm between slices
    request = cases.stack_request(slices, **cases.EVERYTHING)
    return request, build_results(request)


@pytest.fixture(scope="session")
def full_enhanced(prostatex_0000: Path) -> tuple[ResultRequest, list[ResultObject]]:
    """Every kind and form on the T2W of PROSTATEx-0000 converted to one multi-frame image."""
    request = cases.real_request(prostatex_0000, **cases.EVERYTHING)
    image = cases.enhanced(list(request.sources))
    order = cases.frame_numbers(image, list(request.sources))
    request = replace(request, sources=[image], frames=order)
    return request, build_results(request)


@pytest.fixture(scope="session")
def stack_finding() -> tuple[ResultRequest, list[ResultObject]]:
    """A generated oblique stack with one made-up finding, encoded."""
    request = cases.stack_request()
    return request, build_results(request)
