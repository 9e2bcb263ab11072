"""Dynamic series: in one series, in many, in one image; what stands beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.dicom.header import ENHANCED_MR, FrameRecord, InstanceHeader
from dicom_node.dicom.select import select
from tests.dicom.make import DYNAMIC, dynamic, examination, reason_of, series


def test_dce_as_seventy_series_is_thinned_and_ordered() -> None:
    found = select([*examination(), *dynamic(70)])
    assert 5 <= len(found.dce) <= 24
    assert found.dce_times_s[0] == 0.0
    assert list(found.dce_times_s) == sorted(found.dce_times_s)
    assert found.dce_times_s[-1] == pytest.approx(69 * 4.2, abs=0.1)  # the last phase is kept
    early = [t for t in found.dce_times_s if t <= 90]
    assert len(early) >= 12


def test_pre_scans_with_other_flip_angles_and_the_reference_are_left_out() -> None:
    headers = [*examination(), *dynamic(10, step_s=8.0)]
    for flip in (2.0, 5.0, 10.0, 20.0):
        headers += series(f"vfa{flip:.0f}", DYNAMIC, slices=26, flip_angle=flip, start_s=36950.0)
    reference = {**DYNAMIC, "repetition_time": 800.0, "series_description": "tfl_3d PD ref"}
    headers += series("pd", reference, slices=26, start_s=36940.0)
    found = select(headers)
    assert len(found.dce) == 10
    assert "pre-scan" in reason_of(found, "vfa10")
    assert reason_of(found, "pd")


def test_dce_in_one_series_is_parted_by_temporal_position() -> None:
    headers = []
    for i in range(8):
        part = series("dce", DYNAMIC, slices=20, temporal_position=i + 1,
                      acquisition_time="101500", temporal_resolution=10000.0)  # fmt: skip
        headers += [replace(h, sop_instance_uid=f"{h.sop_instance_uid}.{i}") for h in part]
    found = select([*examination(), *headers])
    assert found.dce_times_s == tuple(10.0 * i for i in range(8))


def test_dce_in_one_series_is_parted_by_order_of_acquisition() -> None:
    headers = []
    for i in range(8):
        part = series("dce", DYNAMIC, slices=20, acquisition_time=f"1015{i * 7:02d}")
        headers += [replace(h, sop_instance_uid=f"{h.sop_instance_uid}.{i}") for h in part]
    found = select([*examination(), *headers])
    assert found.dce == ()  # 49 s only
    slow = [
        replace(h, acquisition_time=f"10{15 + int(h.sop_instance_uid[-1]):02d}00") for h in headers
    ]
    assert len(select([*examination(), *slow]).dce) == 8


def test_times_come_from_the_description_where_nothing_else_tells() -> None:
    headers = [replace(h, acquisition_time="101500") for h in dynamic(10, step_s=8.0)]
    found = select([*examination(), *headers])
    assert found.dce_times_s == tuple(pytest.approx(8.0 * i) for i in range(10))


def test_subtractions_of_the_same_times_do_not_hide_the_dynamic_series() -> None:
    headers = dynamic(10, step_s=8.0)
    made = [
        replace(h, series_uid=h.series_uid + ".9", sop_instance_uid=h.sop_instance_uid + ".9",
                image_type=("DERIVED", "SECONDARY", "OTHER"))
        for h in headers[26:]
    ]  # fmt: skip
    found = select([*examination(), *headers, *made])
    assert found.dce_times_s == tuple(8.0 * i for i in range(10))
    assert not any(stack.series_uid.endswith(".9") for stack in found.dce)


def test_a_phase_that_was_filed_twice_counts_once() -> None:
    headers = dynamic(10, step_s=8.0)
    twice = [
        replace(h, series_uid=h.series_uid + ".9", sop_instance_uid=h.sop_instance_uid + ".9",
                series_number=99)
        for h in headers[52:78]
    ]  # fmt: skip
    found = select([*examination(), *headers, *twice])
    assert found.dce_times_s == tuple(8.0 * i for i in range(10))
    assert found.dce[2].series_uid.endswith(".9")  # the one that was filed later


def test_dce_in_another_place_is_left_out() -> None:
    away = dynamic(8, step_s=10.0, frame_of_reference_uid="2.25.6", origin=(-60.0, -80.0, 300.0))
    found = select([*examination(), *away])
    assert found.dce == () and "another place" in reason_of(found, "dce0")
    here = dynamic(8, step_s=10.0, frame_of_reference_uid="2.25.6")
    found = select([*examination(), *here])
    assert len(found.dce) == 8 and any("dynamic series" in note for note in found.notes)


def enhanced_dce(**by_phase: list[object]) -> InstanceHeader:
    """Eight phases of 20 slices in one image, slices in turn."""
    slices = series("x", DYNAMIC, slices=20)
    frames = [
        FrameRecord(index=20 * i + z, ipp=h.ipp, temporal_position=i + 1,
                    **{name: values[i] for name, values in by_phase.items()})
        for i in range(8) for z, h in enumerate(slices)
    ]  # fmt: skip
    return replace(
        series("dce", DYNAMIC)[0], sop_class_uid=ENHANCED_MR, frames=tuple(frames),
        number_of_frames=160, ipp=None, acquisition_time="",
    )  # fmt: skip


@pytest.mark.parametrize(
    "by_phase",
    [
        {"acquisition_datetime": [f"2024010210{15 + i}00.000" for i in range(8)]},
        {"time_offset_s": [60.0 * i for i in range(8)]},
    ],
    ids=["frame acquisition date and time", "temporal position time offset"],
)
def test_an_enhanced_dynamic_series_is_parted_into_phases(
    by_phase: dict[str, list[object]],
) -> None:
    found = select([*examination(), enhanced_dce(**by_phase)])
    assert found.dce_times_s == tuple(60.0 * i for i in range(8))
    assert found.dce[3].refs[2].frame_index == 62
