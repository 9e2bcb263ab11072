"""Watching scanners: what is kept of a study, and what an alarm does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import NodeConfig
from dicom_node.dicom.header import InstanceHeader, read_header
from dicom_node.domain.drift import Scanner
from dicom_node.drift_plot import draw
from dicom_node.flow.drift import look, look_at_all, restart, watch
from dicom_node.flow.observe import fill_in, observation, scanner_of
from dicom_node.store.observation_rows import Observation
from tests.flow.conftest import ADC, STUDY, Node, encoded, mr_image, series
from tests.store.life import PACS, claim, image, made, plan

WINDOWS = {"reference_studies": 30, "current_studies": 12, "least_studies": 10,
           "significance": 1e-4}  # fmt: skip
NORTH = Scanner("NORTH", "Maker", "One", 3.0)
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def watched(node: Node) -> Node:
    """A node with small windows."""
    values: dict[str, Any] = {"node": {"data_dir": node.data_dir}, "drift": WINDOWS}
    node.config = NodeConfig.model_validate(values)
    return node


def scan(node: Node, numbers: range, values: Callable[[int], dict[str, float | str]]) -> None:
    """Let the scanner send studies, each watched as the worker does."""
    for number in numbers:
        study = f"1.2.{number}"
        node.store.add_instances([image(study, 0, node.clock.now_s())])
        node.clock.advance(20)
        plan(node.store, study)
        seen = Observation(NORTH, {"outcome": "analysed", **values(number)}, "a" * 64)
        node.store.finish_analysed(replace(claim(node.store), seen=seen), made(study), [PACS])
        watch(node.store, node.config, node.clock, study)


def steady(number: int) -> dict[str, float | str]:
    return {"snr_t2w": 20.0 + number * 7 % 10, "t2w_spacing_mm": 0.5, "findings": number % 3 * 1.0}


def changed(number: int) -> dict[str, float | str]:
    return {**steady(number), "t2w_spacing_mm": 0.6}


def records(node: Node) -> list[str]:
    return [row.message for row in node.store.audit_list(0, 100) if row.event == "drift"]


def test_a_change_rings_once_is_recorded_and_ends_with_a_new_reference(
    watched: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    scan(watched, range(45), steady)
    (report,) = look_at_all(watched.store, watched.config)
    assert (report.state, records(watched)) == ("steady", [])
    scan(watched, range(45, 65), changed)
    (report,) = look_at_all(watched.store, watched.config)
    assert (report.state, set(report.alarms)) == ("alarm", {"t2w_spacing_mm"})
    assert len(records(watched)) == 1, "one record, not one for each study"
    assert "NORTH, Maker, One, 3 T" in records(watched)[0]
    assert [record.message for record in caplog.records] == ["drift alarm"]
    restart(watched.store, watched.config, watched.clock, watched.store.scanners())
    scan(watched, range(65, 70), changed)
    (report,) = look_at_all(watched.store, watched.config)
    assert (report.state, len(records(watched))) == ("collecting", 2)


def test_an_alarm_ends_where_the_scanner_is_as_before(watched: Node) -> None:
    scan(watched, range(30), steady)
    scan(watched, range(30, 42), changed)
    assert [row.alarms for row in watched.store.scanners()] == [{"t2w_spacing_mm"}]
    scan(watched, range(42, 60), steady)
    assert [row.alarms for row in watched.store.scanners()] == [frozenset()]
    assert len(records(watched)) == 2


def test_five_strange_studies_do_not_ring(watched: Node) -> None:
    scan(watched, range(30), steady)
    scan(watched, range(30, 35), changed)
    assert records(watched) == []


def test_another_release_begins_the_outputs_anew_and_not_the_inputs(watched: Node) -> None:
    scan(watched, range(45), steady)
    study = "1.2.99"
    watched.store.add_instances([image(study, 0, watched.clock.now_s())])
    watched.clock.advance(20)
    plan(watched.store, study)
    seen = Observation(NORTH, {"outcome": "analysed", "findings": 4.0, "snr_t2w": 20.0}, "b" * 64)
    watched.store.finish_analysed(replace(claim(watched.store), seen=seen), made(study), [PACS])
    (report,) = look_at_all(watched.store, watched.config)
    counts = {figure.name: figure.counts for figure in report.figures}
    assert (counts["findings"], counts["snr_t2w"]) == ((1, 0), (30, 12))


def test_the_plot_of_a_scanner_is_written(watched: Node, tmp_path: Path) -> None:
    scan(watched, range(30), steady)
    scan(watched, range(30, 45), changed)
    (row,) = watched.store.scanners()
    draw(watched.store, look(watched.store, watched.config, row), tmp_path / "plots" / "north.png")
    assert (tmp_path / "plots" / "north.png").read_bytes().startswith(b"\x89PNG")


def header(**changes: object) -> InstanceHeader:
    return read_header(encoded(mr_image(**changes)), EXPLICIT)  # type: ignore[arg-type]


@pytest.mark.parametrize(("told", "tesla"), [("3", 3.0), ("2.8936", 2.9), ("15000", 1.5)])
def test_the_scanner_of_a_study_is_that_of_its_t2w(told: str, tesla: float) -> None:
    t2w = header(StationName="MR1 ", ManufacturerModelName="One", MagneticFieldStrength=told)
    other = header(kind=ADC, StationName="MR2")
    found = scanner_of([other, other, t2w], t2w.series_uid)
    assert found == Scanner("MR1", "Simulated", "One", tesla)
    assert scanner_of([other, other, t2w], None).station == "MR2"
    assert scanner_of([], None) == Scanner()


def test_what_is_no_observation_is_refused() -> None:
    told = {"scanner": {"station": "A"}, "values": {"snr_t2w": 1.0, "of later": 2.0},
            "release_sha256": ""}  # fmt: skip
    assert observation(told).values == {"snr_t2w": 1.0}
    with pytest.raises(ValueError, match="not an observation"):
        observation({"scanner": {}})


def test_studies_of_before_are_read_back_from_results_and_images(node: Node) -> None:
    node.send_all([*series("t2w", StationName="MR1", MagneticFieldStrength="1.5"), *series(ADC)])
    node.clock.advance(11)
    node.evaluate()
    taken = claim(node.store)
    node.store.finish_analysed(taken, made(STUDY), [PACS])
    folder = node.data_dir / "results" / f"{STUDY}-1"
    folder.mkdir(parents=True)
    told = {
        "state": "analysed", "reason": None, "case": {"likelihood_percent": 70.0},
        "gland": {"volume_ml": 40.0}, "findings": [{"volume_ml": 0.5}, {"volume_ml": 0.25}],
        "inputs": {"t2w": f"{STUDY}.1"}, "model": {"sha256": "a" * 64},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(told))
    assert (fill_in(node.store, node.data_dir), fill_in(node.store, node.data_dir)) == (1, 0)
    (row,) = node.store.scanners()
    assert row.scanner == Scanner("MR1", "Simulated", "", 1.5)
    (seen,) = node.store.observed(row, 5, 5, "a" * 64)[0]
    assert seen.values == {"outcome": "analysed", "likelihood": 0.7, "findings": 2.0,
                           "lesions_ml": 0.75, "gland_ml": 40.0}  # fmt: skip


def test_a_result_that_cannot_be_read_back_is_asked_for_once(node: Node) -> None:
    node.send_all([*series("t2w"), *series(ADC)])
    node.clock.advance(11)
    node.evaluate()
    node.store.finish_analysed(claim(node.store), made(STUDY), [PACS])
    assert (fill_in(node.store, node.data_dir), fill_in(node.store, node.data_dir)) == (1, 0)
