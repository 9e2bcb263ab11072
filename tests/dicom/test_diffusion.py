"""Diffusion: images that belong together, directions and trace, high b, units of the ADC map."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.dicom.select import select
from dicom_node.domain.reasons import Reason
from tests.dicom.make import ADC, T2W, TRACE, b_values, examination, reason_of, series, traces


def test_the_adc_map_on_the_grid_of_the_dwi_is_preferred() -> None:
    other = series("mddw", ADC, rows=96, columns=96, start_s=39000.0)
    found = select([*examination(), *other])
    assert found.adc is not None and found.adc.series_uid.endswith(".adc")
    assert "another ADC" in reason_of(found, "mddw")


def test_the_latest_of_two_diffusion_runs_is_used() -> None:
    again = [replace(h, acquisition_time="113000") for h in traces(50, 400, 800, name="dwi2")]
    found = select([*examination(), *again])
    assert {stack.series_uid for stack in found.dwi} == {"2.25.10.dwi2"}
    assert "latest" in reason_of(found, "dwi")


def test_dwi_alone_with_two_b_values_is_enough() -> None:
    found = select([*series("t2", T2W), *traces(50, 800)])
    assert (found.problem, found.complete, found.adc) == (None, True, None)


def test_one_b_value_alone_is_not_enough() -> None:
    assert select([*series("t2", T2W), *traces(800)]).problem is Reason.NO_DIFFUSION


def test_directional_images_are_not_the_trace() -> None:
    single = traces(50, 800, name="dir", directionality="DIRECTIONAL")
    found = select([*examination(), *single])
    assert {stack.series_uid for stack in found.dwi} == {"2.25.10.dwi"}
    assert "directions" in reason_of(found, "dir")


def test_the_trace_that_is_appended_to_its_directions_is_parted_from_them() -> None:
    philips = {"image_type": ("ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"), "sequence_name": ""}
    headers = []
    for i, kind in enumerate(("DIRECTIONAL", "DIRECTIONAL", "DIRECTIONAL", "ISOTROPIC")):
        part = traces(800, name="dwi", directionality=kind)
        headers += [
            replace(h, sop_instance_uid=f"{h.sop_instance_uid}.{i}", b_source="philips", **philips)
            for h in part
        ]
    zero = traces(0, name="dwi", directionality="NONE")
    headers += [replace(h, b_source="philips", **philips) for h in zero]
    found = select([*series("t2", T2W), *headers])
    assert (b_values(found), found.problem) == ([0.0, 800.0], None)
    assert all(uid.endswith(".3") for uid in found.dwi[1].sop_instance_uids)


def test_directions_beside_a_trace_of_the_same_b_are_not_used() -> None:
    raw = [
        replace(h, image_type=("ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "ND"),
                acquisition_time="113000")
        for h in traces(50, 800, name="raw")
    ]  # fmt: skip
    found = select([*examination(), *raw])
    assert {stack.series_uid for stack in found.dwi} == {"2.25.10.dwi"}
    assert "trace" in reason_of(found, "raw")
    matrix = [replace(h, directionality="BMATRIX") for h in raw]
    assert "directions" in reason_of(select([*examination(), *matrix]), "raw")


def test_dwi_without_b_values_and_without_adc_says_so() -> None:
    bare = series("dwi", {**TRACE, "sequence_name": ""})
    assert select([*series("t2", T2W), *bare]).problem is Reason.B_VALUES_UNKNOWN


def test_one_series_per_b_value_is_one_acquisition() -> None:
    headers = [*series("t2", T2W), *series("adc", ADC)]
    for b in (100, 500, 1400):
        headers += traces(b, name=f"b{b}")
    found = select(headers)
    assert b_values(found) == [100.0, 500.0, 1400.0]
    assert len({stack.series_uid for stack in found.dwi}) == 3
    assert found.high_b is not None and found.high_b.b_value == 1400.0


def test_computed_high_b_is_known_by_a_b_beyond_the_acquired_range() -> None:
    made = {**TRACE, "sequence_name": "*ep_b50_800", "series_description": "ep2d_diff"}
    found = select([*examination(), *series("calc", made, b_value=1600.0, b_source="siemens")])
    assert found.high_b is not None and found.high_b.series_uid.endswith("calc")
    assert found.high_b_computed and b_values(found) == [50.0, 400.0, 800.0]
    assert found.chosen()["high_b"][0].computed


def test_computed_high_b_is_known_by_its_description() -> None:
    made = {**TRACE, "sequence_name": "", "series_description": "ep2d_diff_CALC_BVAL"}
    found = select([*examination(), *series("calc", made, b_value=1400.0, b_source="public")])
    assert found.high_b_computed


def test_a_computed_b_within_the_acquired_range_is_not_taken_for_acquired() -> None:
    made = {**TRACE, "sequence_name": "*ep_b50_800", "series_description": "diff_CALC_BVAL"}
    later = series("calc", made, b_value=800.0, b_source="siemens", start_s=39000.0)
    found = select([*examination(), *later])
    assert {stack.series_uid for stack in found.dwi} == {"2.25.10.dwi"}
    # "calc" in the name of the protocol stands on acquired images too
    named = [replace(h, series_description="diff_b50_800_calc1400") for h in examination()[19:76]]
    named = [replace(h, sequence_name="*ep_b50_800") for h in named]
    assert b_values(select([*examination()[:19], *named])) == [50.0, 400.0, 800.0]


# --- high b ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acquired", "computed", "chosen"),
    [
        ((50, 800), (1400,), (1400, True)),
        ((50, 800, 1500), (1600,), (1500, False)),
        ((50, 800, 1000), (), (1000, False)),
        ((50, 800), (1000,), (1000, True)),
        ((50, 400), (), None),
    ],
)
def test_high_b_choice(
    acquired: tuple[int, ...], computed: tuple[int, ...], chosen: tuple[int, bool] | None
) -> None:
    headers = [*series("t2", T2W), *series("adc", ADC), *traces(*acquired)]
    for b in computed:
        made = {**TRACE, "series_description": "calc", "sequence_name": "*ep_b50_800"}
        headers += series(f"calc{b}", made, b_value=float(b), b_source="siemens")
    found = select(headers)
    if chosen is None:
        assert found.high_b is None and any("800 or more" in note for note in found.notes)
    else:
        assert found.high_b is not None
        assert (found.high_b.b_value, found.high_b_computed) == chosen


# --- ADC units ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({}, 1.0),
        ({"manufacturer": "Some Vendor"}, None),
        ({"manufacturer": "Some Vendor", "rescale_type": "10^-6 mm2/s"}, 1.0),
        ({"rescale_slope": 0.5}, None),
        ({"manufacturer": "V", "rwvm_unit": "um2/s", "rwvm_slope": 1.0}, 1.0),
        ({"manufacturer": "V", "rwvm_unit": "mm2/s", "rwvm_slope": 1e-6}, 1e6),
        ({"manufacturer": "V", "rwvm_unit": "mm2/s"}, None),
        ({"manufacturer": "V", "rwvm_unit": "[arb'U]", "rwvm_slope": 1.0}, None),
    ],
)
def test_adc_unit(fields: dict[str, object], factor: float | None) -> None:
    headers = [*series("t2", T2W), *traces(50, 800), *series("adc", {**ADC, **fields})]
    assert select(headers).adc_to_um2_s == factor
