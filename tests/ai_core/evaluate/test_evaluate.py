"""The whole evaluation on a few simulated cases, stored and rendered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ai_core.errors import InputError
from ai_core.evaluate.figures import Bootstrap, row_data, summary
from ai_core.evaluate.inputs import KeptInputs
from ai_core.evaluate.one import Plan, evaluate_case
from ai_core.evaluate.record import (
    FULL,
    AnalysisRecord,
    BenignRecord,
    CandidateRecord,
    CaseRecord,
    LesionRecord,
    read_record,
    write_record,
)
from ai_core.evaluate.report import as_markdown, make_report, write_report
from ai_core.evaluate.run import Outcome, Request, _claim_one, run_evaluation
from ai_core.evaluate.sources import as_labelled, draw_sites, matrix_of, open_source
from ai_core.labelled import LabelledCase
from ai_core.release import Release
from ai_core.sim.dataset import build_cache
from ai_core.sim.export import simulate_to_folder
from ai_core.sim.sites import Site
from ai_core.sim.study import SimulatedStudy, simulate_study
from ai_core.types import Modality, ReleaseInfo

QUICK_SITE = Site(t2w_matrix=224, t2w_spacing_mm=0.8, t2w_slices=20, has_dce=False)
INFO = ReleaseInfo("tiny", "0", "0" * 64)


@pytest.fixture(scope="module")
def anatomies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anatomies")
    build_cache(folder, 2, 4, positive_fraction=1.0)
    return folder


def request(folder: Path, out: Path, **more: object) -> Request:
    settings = {"plan": Plan(without=(Modality.HIGH_B,)), "sites": (QUICK_SITE,), **more}
    return Request(None, (folder,), out, device="cpu", **settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped_and_reports(anatomies: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    outcome = run_evaluation(request(anatomies, tmp_path), lambda d, t: seen.append((d, t)))
    assert seen == [(1, 2), (2, 2)]
    records = sorted((tmp_path / "cases").glob("*.json"))
    before = records[1].read_bytes()
    records[0].unlink()
    again = run_evaluation(request(anatomies, tmp_path), lambda d, t: seen.append((d, t)))
    assert seen[2:] == [(2, 2)]
    assert records[1].read_bytes() == before
    assert _without_times(again) == _without_times(outcome)
    report = make_report(again, ("map", "classifier", "features", "tissue_table"), repeats=20)
    document = write_report(report, again, tmp_path, "ai-core evaluate")
    assert document == json.loads((tmp_path / "evaluation.json").read_text())
    assert set(document["rows"]) == {
        "likelihood", "map", "classifier", "features", "tissue_table", "without_high_b",
    }  # fmt: skip
    assert document["rows"]["likelihood"]["gland_dice"]["value"] > 0.7
    for name in ("roc", "froc", "calibration", "strata"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    with pytest.raises(InputError, match="another without"):
        run_evaluation(request(anatomies, tmp_path, plan=Plan()))


def _without_times(outcome: Outcome) -> list[object]:
    rows = []
    for record in outcome.records:
        data = record.model_dump(exclude={"read_s"})
        for part in data["analyses"].values():
            part.pop("seconds")
        rows.append(data)
    return rows


@pytest.mark.slow
def test_a_case_rendered_twice_is_the_same(anatomies: Path) -> None:
    source = open_source((anatomies,), (QUICK_SITE,), 9)
    one, two = source.read(1), source.read(1)
    assert np.array_equal(one.case.t2w.array, two.case.t2w.array)
    assert one.reference.positive
    assert one.site == QUICK_SITE.name


class _Once:
    """A source that counts how often it is asked."""

    def __init__(self, case: LabelledCase) -> None:
        self.case, self.asked = case, 0
        self.names = (case.name,)

    def read(self, index: int) -> LabelledCase:
        self.asked += 1
        return self.case


@pytest.mark.slow
def test_kept_inputs_read_the_same_and_are_made_once(tmp_path: Path) -> None:
    site = dataclasses.replace(QUICK_SITE, has_dce=True)
    drawn = simulate_study(5, site=site, planes=("axial",), t2w_matrix=128, dce_phases=3)
    source = _Once(as_labelled("one", drawn))
    kept = KeptInputs(source, tmp_path)  # type: ignore[arg-type]
    first, again = kept.read(0), kept.read(0)
    assert source.asked == 1
    for read in (first, again):
        _assert_same_case(read, source.case)
    assert np.array_equal(first.case.t2w.array, again.case.t2w.array)
    (tmp_path / "one.npz").write_bytes(b"cut off")
    _assert_same_case(kept.read(0), source.case)
    assert source.asked == 2


def _assert_same_case(read: LabelledCase, drawn: LabelledCase) -> None:
    assert dataclasses.replace(
        read.reference, grades=None, gland=None, zones=None
    ) == dataclasses.replace(drawn.reference, grades=None, gland=None, zones=None)
    for name in ("grades", "gland", "zones"):
        one, other = getattr(read.reference, name), getattr(drawn.reference, name)
        assert np.array_equal(one, other)
    pairs = [(read.case.t2w, drawn.case.t2w), (read.case.adc, drawn.case.adc)]
    pairs += [(a.volume, b.volume) for a, b in zip(read.case.dwi, drawn.case.dwi, strict=True)]
    assert [d.b_value_s_per_mm2 for d in read.case.dwi] == [
        d.b_value_s_per_mm2 for d in drawn.case.dwi
    ]
    if drawn.case.dce is not None:
        assert read.case.dce is not None
        assert read.case.dce.times_s == drawn.case.dce.times_s
        pairs += list(zip(read.case.dce.phases, drawn.case.dce.phases, strict=True))
    for one, other in pairs:
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.geometry == other.geometry
            top = float(np.abs(other.array).max())
            assert np.allclose(one.array, other.array, rtol=6e-4, atol=top * 1e-6)


def test_inputs_of_other_data_are_refused(tmp_path: Path) -> None:
    _claim_one(tmp_path / "inputs", {"seed": 4}, "--inputs")
    with pytest.raises(InputError, match="another seed"):
        _claim_one(tmp_path / "inputs", {"seed": 5}, "--inputs")


def test_other_seeds_draw_other_sites() -> None:
    assert draw_sites(3, 1) == draw_sites(3, 1)
    assert {s.name for s in draw_sites(5, 1)}.isdisjoint({s.name for s in draw_sites(5, 2)})


def test_pixels_are_rendered_no_finer_than_scanners_acquire_them() -> None:
    fine = dataclasses.replace(QUICK_SITE, t2w_matrix=640, t2w_spacing_mm=0.3)
    assert matrix_of(fine) == 384
    assert matrix_of(QUICK_SITE) == QUICK_SITE.t2w_matrix


@pytest.mark.slow
def test_stored_examinations_are_read_with_their_labels(tmp_path: Path, packaged: Release) -> None:
    site = dataclasses.replace(QUICK_SITE, positive_fraction=1.0, has_dce=True)
    simulate_to_folder(tmp_path, 1, 3, (site,))
    source = open_source((tmp_path,), None, 1)
    labelled = source.read(0)
    assert labelled.reference.positive
    assert labelled.case.dce is not None
    assert labelled.reference.benign is not None
    record = evaluate_case(labelled, packaged, Plan(tissue_table=False))
    assert len(record.lesions) >= 1
    assert record.analyses[FULL].gland_dice is not None
    assert record.site == site.name


@pytest.mark.slow
def test_a_withheld_image_changes_the_analysis(study: SimulatedStudy, packaged: Release) -> None:
    plan = Plan(tissue_table=False, without=(Modality.DCE,))
    record = evaluate_case(as_labelled("one", study), packaged, plan)
    assert record.analyses["without_dce"].candidates != record.analyses[FULL].candidates


def test_a_case_that_cannot_be_used_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "anatomy-000000.npz").write_bytes(b"broken")
    outcome = run_evaluation(request(tmp_path / "data", tmp_path / "out"))
    assert "not a cached anatomy" in str(outcome.records[0].problem)
    with pytest.raises(InputError, match="no case could be evaluated"):
        make_report(outcome, ())


def _candidate(score: float, lesion: int = 0, false: bool = True) -> CandidateRecord:
    scores = dict.fromkeys(("likelihood", "map", "classifier", "features"), score)
    return CandidateRecord(
        lesion=lesion, false=false, overlap=0.5, peak_inside=False, scores=scores
    )


def _records() -> Iterator[CaseRecord]:
    """Ten cases: odd ones hold a lesion found at 0.9, even ones a mimic found at 0.6."""
    for index in range(10):
        positive = index % 2 == 1
        found = _candidate(0.9, 1, False) if positive else _candidate(0.6)
        benign = () if positive else (BenignRecord(kind="wedge", isup=0, pirads=4),)
        part = AnalysisRecord(
            candidates=(found,), benign_candidates=() if positive else ((0,),), gland_dice=0.9
        )
        yield CaseRecord(
            name=f"c{index}",
            site=f"s{index % 5}",
            positive=positive,
            lesions=(LesionRecord(isup=3, volume_ml=0.7, zone="PZ"),) if positive else (),
            benign=benign,
            highest_pirads=4,
            analyses={FULL: part},
        )


def test_figures_of_known_cases() -> None:
    report = make_report(Outcome(INFO, tuple(_records())), ("map",), repeats=50)
    row = report.rows["likelihood"]
    assert row["auroc"].value == 1.0
    assert row["average_precision"].value == 1.0
    assert row["lesions_over_pirads4_mimics"].value == 1.0
    assert row["sensitivity_at_0.5"].value == 1.0
    assert row["gland_dice"].value == pytest.approx(0.9)
    assert row["ece_case"].value == pytest.approx((0.1 + 0.6) / 2)
    assert row["brier_case"].value == pytest.approx((0.01 + 0.36) / 2)
    assert report.differences["map"]["auroc"].value == 0.0
    assert report.strata["zone"]["PZ"]["lesions"].value == 5
    assert report.strata["size"]["0.5-1.5 mL"]["sensitivity_at_1"].value == 1.0
    assert "| AUROC by case | 1.000 |" in as_markdown(report, Outcome(INFO, ()), "x")


def test_calibration_by_case_is_of_what_is_said_of_the_case() -> None:
    def saying(record: CaseRecord) -> CaseRecord:
        said = record.analyses[FULL].model_copy(update={"case_likelihood": float(record.positive)})
        return record.model_copy(update={"analyses": {FULL: said}})

    report = make_report(Outcome(INFO, tuple(map(saying, _records()))), ("map",), repeats=5)
    assert report.rows["likelihood"]["ece_case"].value == 0.0
    assert report.rows["likelihood"]["brier_case"].value == 0.0
    assert report.rows["likelihood"]["auroc"].value == 1.0


def test_a_missed_lesion_lowers_sensitivity_and_intervals_hold_the_value() -> None:
    records = list(_records())
    lost = records[1].model_copy(update={"analyses": {FULL: AnalysisRecord(candidates=())}})
    records[1] = lost
    data = row_data(records, (FULL, "likelihood"))
    boot = Bootstrap.draw(len(records), 200, 3)
    from ai_core.evaluate.figures import FIGURES

    value = summary(boot.values(FIGURES["sensitivity_at_1"], data))
    assert value.value == pytest.approx(0.8)
    assert value.low < 0.8 < value.high


def test_records_survive_a_round_trip_and_broken_ones_are_made_again(tmp_path: Path) -> None:
    record = next(_records())
    write_record(record, tmp_path)
    assert read_record(tmp_path, record.name) == record
    (tmp_path / f"{record.name}.json").write_text("{")
    assert read_record(tmp_path, record.name) is None
