"""G3: identical bytes for one request; UIDs follow the content and nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pydicom
import pytest
import result_cases as cases

from ai_core.types import CaseResult, Quality, QualityFinding
from dicom_node.results.build import (
    Analysed,
    EarlierObject,
    ResultObject,
    ResultRequest,
    SelectionSummary,
    build_results,
)

Built = tuple[ResultRequest, list[ResultObject]]


def uids(objects: list[ResultObject]) -> list[tuple[str, str, str]]:
    return [(made.kind, made.sop_instance_uid, made.series_uid) for made in objects]


def all_uids(made: ResultObject) -> set[str]:
    dataset = pydicom.dcmread(io.BytesIO(made.data))
    return {str(element.value) for element in dataset.iterall() if element.VR == "UI"}


def test_g3_two_builds_are_identical_files(real_finding: Built, prostatex_0000) -> None:
    again = build_results(cases.real_request(prostatex_0000))
    assert [made.data for made in again] == [made.data for made in real_finding[1]]
    assert [made.sha256 for made in again] == [made.sha256 for made in real_finding[1]]


def test_g3_uids_do_not_depend_on_the_time(stack_finding: Built) -> None:
    request, objects = stack_finding
    later = build_results(replace(request, content_time=cases.NOW + timedelta(days=3, hours=5)))
    assert uids(later) == uids(objects)
    for one, other in zip(objects, later, strict=True):
        assert one.data != other.data
        assert all_uids(one) == all_uids(other)


def with_result(
    request: ResultRequest, change: Callable[[CaseResult], CaseResult]
) -> ResultRequest:
    assert isinstance(request.outcome, Analysed)
    return replace(request, outcome=replace(request.outcome, result=change(request.outcome.result)))


def one_voxel_more(result: CaseResult) -> CaseResult:
    lesions = result.lesions.copy()
    z, y, x = np.argwhere(lesions == 1)[0]
    lesions[z, y, x - 1] = 1
    return replace(result, lesions=lesions)


def other_sector(result: CaseResult) -> CaseResult:
    return replace(result, findings=(replace(result.findings[0], sector="TZ/a/mid/L"),))


REPORT_CHANGES: dict[str, Callable[[ResultRequest], ResultRequest]] = {
    "sector": lambda r: with_result(r, other_sector),
    "case likelihood": lambda r: with_result(r, lambda c: replace(c, case_likelihood=0.62)),
    "quality": lambda r: with_result(
        r, lambda c: replace(c, quality=(QualityFinding(Quality.LOW_SNR, "Noisy."),))
    ),
    "selection": lambda r: replace(r, selection=SelectionSummary(("T2W: other",), ())),
    "predecessor": lambda r: replace(r, earlier=(EarlierObject("sr", "", 1, "1.2", "1.3", "1.4"),)),
    "revision": lambda r: replace(r, revision=2),
    "software": lambda r: replace(r, software_version="0.2.0"),
}


@pytest.mark.parametrize("name", REPORT_CHANGES)
def test_g3_other_content_has_other_uids(name: str, stack_finding: Built) -> None:
    request, objects = stack_finding
    changed = build_results(REPORT_CHANGES[name](request))
    assert changed[-1].sop_instance_uid != objects[-1].sop_instance_uid
    for one, other in zip(objects, changed, strict=True):
        same_uid = one.sop_instance_uid == other.sop_instance_uid
        assert same_uid == (one.data == other.data)


SET_CHANGES: dict[str, Callable[[ResultRequest], ResultRequest]] = {
    "input bytes": lambda r: replace(r, inputs_digest=cases.digest("other input")),
    "settings": lambda r: replace(r, config_digest=cases.digest("other settings")),
    "weights": lambda r: with_result(
        r, lambda c: replace(c, release=replace(c.release, sha256=cases.digest("other")))
    ),
}


@pytest.mark.parametrize("name", SET_CHANGES)
def test_g3_other_input_weights_or_settings_change_every_uid(
    name: str, stack_finding: Built
) -> None:
    request, objects = stack_finding
    changed = build_results(SET_CHANGES[name](request))
    assert not {m.sop_instance_uid for m in changed} & {m.sop_instance_uid for m in objects}
    assert not {m.series_uid for m in changed} & {m.series_uid for m in objects}


def test_g3_one_voxel_changes_segmentation_and_report(stack_finding: Built) -> None:
    request, objects = stack_finding
    changed = build_results(with_result(request, one_voxel_more))
    before = {made.kind: made.sop_instance_uid for made in objects}
    after = {made.kind: made.sop_instance_uid for made in changed}
    assert before["seg-gland"] == after["seg-gland"]
    assert before["seg-lesions"] != after["seg-lesions"]
    assert before["sr"] != after["sr"]


def test_uids_are_valid_and_no_placeholder_is_left(stack_finding: Built) -> None:
    from dicom_node.results.uids import placeholder

    for made in stack_finding[1]:
        found = all_uids(made)
        for role in ("instance", "series", "dimensions", "tracking", "tracking/1", "instance/1"):
            assert placeholder(f"{made.kind}/{role}") not in found
        assert pydicom.uid.UID(made.sop_instance_uid).is_valid
        assert made.sop_instance_uid.startswith("2.25.")


def test_times_are_those_stored_in_the_zone_of_the_study() -> None:
    slices = cases.stack()
    for image in slices:
        image.TimezoneOffsetFromUTC = "-0330"
    for made in build_results(cases.stack_request(slices)):
        dataset = pydicom.dcmread(io.BytesIO(made.data))
        assert (dataset.ContentDate, dataset.ContentTime) == ("20260101", "233405")
        assert (dataset.SeriesDate, dataset.SeriesTime) == ("20260101", "233405")
        assert dataset.TimezoneOffsetFromUTC == "-0330"


@pytest.mark.parametrize("offset", ["+9900", "-2400", "soon"])
def test_an_offset_that_is_no_zone_stops_nothing(offset: str) -> None:
    slices = cases.stack()
    for image in slices:
        image.add_new("TimezoneOffsetFromUTC", "SH", offset)
    for made in build_results(cases.stack_request(slices)):
        dataset = pydicom.dcmread(io.BytesIO(made.data))
        assert (dataset.ContentDate, dataset.ContentTime) == ("20260102", "030405")
        assert dataset.TimezoneOffsetFromUTC == offset
