"""The parts of an adaptation, each on numbers that can be checked by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ai_core.adapt.calibrate import Odds, refit, shrunken_platt
from ai_core.adapt.cases import SiteCase
from ai_core.adapt.finetune import Finetune, Material, Watcher, with_weights
from ai_core.adapt.gate import GENERAL, SITE, GateRefused, Pair, demand, enough, judge
from ai_core.adapt.keep import claim, read_roles
from ai_core.adapt.order import Wanted, diverse_order, uncertainties, write_wanted
from ai_core.adapt.plan import AdaptPlan, CalibrationPlan, FinetunePlan, Order, read_plan
from ai_core.adapt.profile_fit import Tissue, _measured, fit_profile
from ai_core.adapt.roles import Role, deal
from ai_core.adapt.score import Sheet, sheet_of
from ai_core.adapt.stages import training_order
from ai_core.calibration import Calibration, logit
from ai_core.config import Phase
from ai_core.errors import InputError
from ai_core.evaluate.metrics import Rows
from ai_core.features import FEATURES
from ai_core.logistic import LogisticModel
from ai_core.prepare.normalise import Images, network_input
from ai_core.release import Release, load_release
from ai_core.site_profile import Landmarks, SiteProfile
from ai_core.train.archive_source import ArchiveSource
from ai_core.train.fit import HeldOut, Row
from ai_core.train.phases import JointModel
from tests.ai_core.conftest import small_config

PLAN = AdaptPlan()
NO_MODEL = LogisticModel(features=(), mean=(), spread=(), weight=(), intercept=0.0)


def _cases(positive: int, negative: int) -> list[SiteCase]:
    return [
        SiteCase(name=f"p{i}_s", patient=f"p{i}", annotated=True, positive=i < positive)
        for i in range(positive + negative)
    ]


# Landmarks and profile


def test_landmarks_map_piece_by_piece_and_shift_beyond() -> None:
    marks = Landmarks(site=(0.0, 1.0, 2.0), training=(0.0, 2.0, 3.0))
    values = np.array([-1.0, 0.0, 0.5, 1.5, 2.0, 4.0], dtype=np.float32)
    assert marks.apply(values).tolist() == [-1.0, 0.0, 1.0, 2.5, 3.0, 5.0]
    assert Landmarks().apply(values) is values


@pytest.mark.parametrize("site", [(0.0,), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0, 2.0)])
def test_landmarks_that_are_none_are_refused(site: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Landmarks(site=site, training=(0.0, 1.0))


def test_a_profile_brings_the_tissue_of_the_site_to_that_of_the_training() -> None:
    training = Tissue(*(np.array([0.5, 0.8, 1.0, 1.3, 2.0]) * k for k in (1.0, 1.0, 1.0)))
    site = Tissue(*(np.array([0.6, 1.0, 1.25, 1.5, 1.8]) * k for k in (1.0, 0.9, 1.0)))
    many = fit_profile(site, training, _cases(0, 2000), PLAN.profile)
    assert site.t2w is not None
    assert training.t2w is not None
    assert many.t2w.apply(site.t2w.astype(np.float32)) == pytest.approx(training.t2w, abs=0.01)
    assert many.high_b.apply(np.zeros(1, np.float32)).tolist() == [0.0]
    assert many.adc_scale == pytest.approx(1.0 / (1.25 * 0.9), abs=0.01)
    few = fit_profile(site, training, _cases(0, 1), PLAN.profile)
    change = few.t2w.apply(site.t2w.astype(np.float32)) - site.t2w
    whole = training.t2w - site.t2w
    assert change == pytest.approx(whole / 11, abs=0.01)  # one study against ten of prior


def test_an_adc_far_off_is_not_explained_away() -> None:
    training = Tissue(None, np.full(5, 1.5), None)
    wrong = Tissue(None, np.full(5, 0.0015), None)
    assert fit_profile(wrong, training, _cases(0, 1000), PLAN.profile).adc_scale == 1.15


def test_a_profile_is_applied_where_there_is_image_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    t2w = rng.uniform(50, 150, (4, 20, 20)).astype(np.float32)
    t2w[:, :5] = 0
    gland = np.zeros(t2w.shape, bool)
    gland[:, 8:18, 5:15] = True
    images = Images(t2w, t2w * 10, t2w)
    rules = small_config().normalise
    profile = SiteProfile(
        studies=9, t2w=Landmarks(site=(-1.0, 1.0), training=(0.0, 2.0)), adc_scale=1.1
    )
    plain, changed = (
        network_input(images, gland, rules),
        network_input(images, gland, rules, profile),
    )
    seen = t2w > 0
    assert changed[0][seen] == pytest.approx(np.clip(plain[0][seen] + 1, -4, 4), abs=1e-5)
    assert (changed[0][~seen] == 0).all()
    assert changed[1][seen] == pytest.approx(np.clip(plain[1][seen] * 1.1, 0, 3), abs=1e-5)
    assert np.array_equal(changed[2], plain[2])


def test_normalisation_statistics_are_blended_with_those_of_the_site() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm3d(1), torch.nn.Conv3d(1, 1, 1)).eval()
    norm = network[0]
    assert isinstance(norm, torch.nn.BatchNorm3d)
    images = torch.randn(6, 2, 1, 4, 8, 8) * 3 + 5
    with _measured(network, 0.25):
        for image in images:
            network(image)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert float(norm.running_mean) == pytest.approx(0.25 * float(images.mean()), rel=1e-4)
    variance = 0.75 + 0.25 * float(images.var(unbiased=False))
    assert float(norm.running_var) == pytest.approx(variance, rel=1e-4)
    assert not norm.training


# Roles


def test_roles_are_dealt_by_class_and_stay() -> None:
    first = deal(_cases(6, 14), PLAN, {})
    held = [name for name, role in first.items() if role is Role.HOLDOUT]
    assert sum(int(name[1:]) < 6 for name in held) == 2
    assert len(held) == 6
    assert set(first.values()) == set(Role)
    more = deal(_cases(6, 30), PLAN, first)
    assert {name: more[name] for name in first} == first
    assert sum(role is Role.HOLDOUT for role in more.values()) > len(held)
    assert deal(list(reversed(_cases(6, 14))), PLAN, {}) == first


def test_a_patient_is_never_split() -> None:
    twice = [*_cases(4, 4), SiteCase(name="p0_t", patient="p0", annotated=True, positive=False)]
    assert len(deal(twice, PLAN, {})) == 8


def test_a_hold_out_without_cancer_is_not_enough() -> None:
    assert enough([True, True, False, False], PLAN) == ""
    assert "1 cases with significant cancer and 3 without" in enough([True] + 3 * [False], PLAN)


# Order


def _held_out(scores: list[tuple[float, float, bool]]) -> HeldOut:
    """One candidate a case: classifier logit, spread, whether it is a lesion."""
    held_out = HeldOut()
    for case, (value, spread, significant) in enumerate(scores):
        row = Row(case, 0.5, value, dict.fromkeys(FEATURES), significant, int(significant), spread)
        held_out.rows.append(row)
        held_out.significant[case] = int(significant)
        held_out.embeddings.append(np.array([float(case), 0.0]))
    return held_out


ONE = Calibration(map_weight=0.0, classifier_weight=1.0, feature_weight=0.0)


def test_what_could_be_either_and_varies_is_uncertain(tiny_release: Path) -> None:
    release = replace(load_release(tiny_release, "cpu"), calibration=ONE)
    found = uncertainties(_held_out([(-4, 0.0, False), (0, 0.2, False), (4, 0.01, True)]), release)
    assert max(range(3), key=lambda i: found[i].uncertainty) == 1
    assert found[1].likelihood == pytest.approx(0.5)


def test_the_next_to_annotate_is_uncertain_and_unlike_those_before() -> None:
    embeddings = [np.array([0.0, 0.0]), np.array([0.01, 0.0]), np.array([5.0, 5.0])]
    assert diverse_order([1.0, 0.99, 0.6], embeddings) == [0, 2, 1]
    assert diverse_order([], []) == []


def test_the_training_order_follows_the_plan() -> None:
    def plan(order: Order) -> AdaptPlan:
        finetune = PLAN.finetune.model_copy(update={"order": order})
        return PLAN.model_copy(update={"finetune": finetune})

    assert training_order([0.1, 0.9, 0.5], plan(Order.UNCERTAIN_FIRST)) == [1, 2, 0]
    assert training_order([0.1, 0.9, 0.5], plan(Order.CERTAIN_FIRST)) == [0, 2, 1]
    assert sorted(training_order([0.1, 0.9, 0.5], plan(Order.RANDOM))) == [0, 1, 2]


def test_the_list_is_written_for_people_and_for_the_node(tmp_path: Path) -> None:
    write_wanted([Wanted(1, "a_b", 0.9, 0.1, 0.3)], tmp_path)
    stored = json.loads((tmp_path / "to-annotate.json").read_text())
    assert stored["wanted"][0]["name"] == "a_b"
    assert (tmp_path / "to-annotate.csv").read_text().splitlines()[1] == "1,a_b,0.9,0.1,0.3"


# Fine-tuning


def _job(folder: Path, release: Release, site: Path) -> Finetune:
    """A fine-tuning on two prepared cases that watch themselves."""
    source = ArchiveSource.open((site,), folder / "prepared", small_config(held_out=0.5))
    source = replace(source, files=source.files[:2])
    plan = FinetunePlan(phase=Phase(steps=10, batch=1), first=0.5, all_open=0.5, patience=2)
    return Finetune(release, Material(source, source, source), plan, folder, 1)


def test_the_window_grows_in_the_order_of_the_cases(
    tmp_path: Path, tiny_release: Path, site: Path
) -> None:
    job = _job(tmp_path, load_release(tiny_release, "cpu"), site)
    assert [job.opened(step) for step in (0, 1, 5, 9)] == [1, 2, 2, 2]


def test_the_best_weights_are_kept_and_no_gain_stops(
    tmp_path: Path, tiny_release: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = load_release(tiny_release, "cpu")
    network = JointModel(release.localizer, release.classifier, freeze=False)
    watcher = Watcher(_job(tmp_path, release, site), network)
    losses = iter([1.0, 0.5, 0.7, 0.6])
    monkeypatch.setattr(watcher, "_loss", lambda _weights: next(losses))
    weights = {"w": torch.zeros(1)}
    watcher.begin(weights)
    stops = [watcher.look(step, {"w": torch.full((1,), float(step))}) for step in (4, 8, 12)]
    assert stops == [False, False, True]
    assert (watcher.steps(), watcher.best()["w"].tolist()) == (4, [4.0])


def test_both_networks_are_trained_and_their_statistics_stay(
    tmp_path: Path, tiny_release: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = load_release(tiny_release, "cpu")
    start = JointModel(parent.localizer, parent.classifier, freeze=False).state_dict()
    job = _job(tmp_path, with_weights(parent, start), site)
    phase = Phase(steps=2, batch=1, frozen_norm_from=0.0)
    plan = job.plan.model_copy(update={"phase": phase, "check_every": 1})
    losses = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(Watcher, "_loss", lambda *_: next(losses))
    tuned = replace(job, plan=plan).run()
    for before, after in (
        (parent.localizer, tuned.localizer), (parent.classifier, tuned.classifier)
    ):  # fmt: skip
        old, new = before.state_dict(), after.state_dict()
        moved = {name for name in old if not torch.equal(old[name], new[name])}
        assert any(name.endswith("weight") for name in moved)
        assert not any("running" in name for name in moved)


# Calibration


def _odds(value: np.ndarray, positive: np.ndarray) -> Odds:  # type: ignore[type-arg]
    return Odds(value, positive, np.ones(len(value)), np.arange(len(value)))


def test_a_calibration_that_fits_is_left_alone() -> None:
    rng = np.random.default_rng(3)
    value = rng.normal(0, 2, 30)
    positive = rng.random(30) < 1 / (1 + np.exp(-value))
    assert shrunken_platt(_odds(value, positive), CalibrationPlan()) == (1.0, 0.0)


def test_a_shifted_calibration_is_moved_and_few_cases_move_it_less() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(0, 2, 400)
    positive = rng.random(400) < 1 / (1 + np.exp(-truth))
    _, many = shrunken_platt(_odds(truth - 3, positive), CalibrationPlan())
    _, few = shrunken_platt(_odds(truth[:10] - 3, positive[:10]), CalibrationPlan())
    assert many == pytest.approx(3.0, abs=0.5)
    assert 0.0 <= few < many


def test_few_real_cases_make_no_probability() -> None:
    rng = np.random.default_rng(5)
    scores = [(float(rng.normal(2 * (i % 2) - 3)), 0.0, i % 2 == 1) for i in range(20)]
    held_out = _held_out(scores)
    held_out.real = True
    found = refit(held_out, ONE, NO_MODEL, CalibrationPlan())
    assert found.real_cases == 0
    assert 0 < found.report_from < 1
    enough_plan = CalibrationPlan(enough_positive=10)
    assert refit(held_out, ONE, NO_MODEL, enough_plan).real_cases == 20
    held_out.real = False
    assert refit(held_out, ONE, NO_MODEL, CalibrationPlan()).simulated_cases == 20


def test_what_is_said_of_a_case_follows_the_cases_not_the_candidates() -> None:
    rng = np.random.default_rng(7)
    held_out = HeldOut(prevalence=0.5)
    for case in range(200):
        cancer = case % 2 == 0
        held_out.significant[case] = int(cancer)
        for place in range(3):
            value = float(rng.normal(0.0 if cancer and place == 0 else -3.0))
            row = Row(case, 0.5, value, dict.fromkeys(FEATURES), cancer and place == 0, 1, 0.0)
            held_out.rows.append(row)
    parent = ONE.model_copy(update={"case_offset": -4.0})  # every case is said to be healthy
    found = refit(held_out, parent, NO_MODEL, CalibrationPlan())
    stated = []
    for case in range(200):
        rows = [row for row in held_out.rows if row.case == case]
        best = max(found.likelihood(row.heat, row.logit, 0.5) for row in rows)
        stated.append(found.case_likelihood(best))
    assert np.mean(stated) == pytest.approx(0.5, abs=0.05)
    assert np.mean(stated[::2]) > 0.7
    assert np.mean(stated[1::2]) < 0.3


def test_no_answer_of_one_kind_changes_nothing() -> None:
    held_out = _held_out([(1.0, 0.0, False)] * 12)
    assert refit(held_out, ONE, NO_MODEL, CalibrationPlan()) == ONE


def test_a_refit_keeps_the_order_of_candidates() -> None:
    rng = np.random.default_rng(6)
    held_out = _held_out([(float(rng.normal(-2)), 0.0, i % 3 == 0) for i in range(40)])
    found = refit(held_out, ONE, NO_MODEL, CalibrationPlan())
    before = [ONE.likelihood(r.heat, r.logit, 0.5) for r in held_out.rows]
    after = [found.likelihood(r.heat, r.logit, 0.5) for r in held_out.rows]
    assert np.array_equal(np.argsort(before), np.argsort(after))
    assert found.classifier_weight > 0


# Figures and gate


def test_missed_lesions_count_against_the_precision(tiny_release: Path) -> None:
    release = replace(load_release(tiny_release, "cpu"), calibration=ONE)
    held_out = _held_out([(2.0, 0.0, True), (-2.0, 0.0, False)])
    assert sheet_of(held_out, release).average_precision() == 1.0
    held_out.significant[0] = 2
    assert sheet_of(held_out, release).average_precision() == 0.5


def _sheet(positive: list[bool], likelihood: list[float]) -> Sheet:
    none = Rows(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0))
    return Sheet(np.array(positive), np.array(likelihood), none)


TRUTH = [True] * 10 + [False] * 10
GOOD = [0.9] * 9 + [0.2] + [0.3] * 10
BAD = [0.9] * 5 + [0.2] * 5 + [0.3] * 10


def test_a_release_that_is_no_worse_passes() -> None:
    same = Pair(SITE, _sheet(TRUTH, BAD), _sheet(TRUTH, GOOD))
    general = Pair(GENERAL, _sheet(TRUTH, GOOD), _sheet(TRUTH, GOOD))
    checks = judge(same, general, PLAN)
    assert all(check.passed for check in checks)
    assert checks[2].bound == 0.0
    demand(checks)


@pytest.mark.parametrize("where", [SITE, GENERAL])
def test_a_release_that_is_worse_somewhere_is_refused_with_the_figures(where: str) -> None:
    better = Pair(SITE, _sheet(TRUTH, BAD), _sheet(TRUTH, GOOD))
    worse = Pair(where, _sheet(TRUTH, GOOD), _sheet(TRUTH, BAD))
    site = worse if where == SITE else better
    general = worse if where == GENERAL else Pair(GENERAL, better.before, better.after)
    with pytest.raises(GateRefused, match=rf"on the {where} \(20 cases\): before 0.900, after 0.5"):
        demand(judge(site, general, PLAN))


def test_a_loss_that_could_be_large_is_refused() -> None:
    truth = [True, True, False, False]
    before, after = [0.8, 0.6, 0.5, 0.2], [0.8, 0.49, 0.48, 0.2]
    after_worse_for_some = [0.9, 0.45, 0.46, 0.1]
    general = Pair(GENERAL, _sheet(TRUTH, GOOD), _sheet(TRUTH, GOOD))
    fine = judge(Pair(SITE, _sheet(truth, before), _sheet(truth, after)), general, PLAN)
    assert fine[0].bound == 0.0
    doubtful = judge(
        Pair(SITE, _sheet(truth, before), _sheet(truth, after_worse_for_some)), general, PLAN
    )
    assert doubtful[0].bound > PLAN.gate.site_bound
    assert not doubtful[0].passed


def test_surer_and_wronger_is_refused_though_the_ranks_stay() -> None:
    before = _sheet([True, True, False, False], [0.6, 0.4, 0.5, 0.1])
    after = _sheet([True, True, False, False], [0.99, 0.02, 0.98, 0.01])
    general = Pair(GENERAL, _sheet(TRUTH, GOOD), _sheet(TRUTH, GOOD))
    checks = judge(Pair(SITE, before, after), general, PLAN)
    assert checks[0].passed
    assert not checks[1].passed


# Plan and folder


def test_a_plan_is_read_and_a_wrong_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("holdout = 0.4\n[gate]\nsite_loss = 0.05\n")
    assert read_plan(path).gate.site_loss == 0.05
    assert read_plan(None) == AdaptPlan()
    path.write_text("hold_out = 0.4\n")
    with pytest.raises(InputError, match="hold_out"):
        read_plan(path)


def test_the_guide_shows_the_plan_as_it_is(tmp_path: Path) -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "adaptation.md").read_text()
    path = tmp_path / "plan.toml"
    path.write_text(guide.split("```toml adapt plan\n")[1].split("```")[0])
    assert read_plan(path) == AdaptPlan()


def test_a_folder_belongs_to_one_adaptation(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "x").write_text("1")
    claim(out, "a" * 64, data, PLAN)
    claim(out, "a" * 64, data, PLAN)
    with pytest.raises(InputError, match="another parent"):
        claim(out, "b" * 64, data, PLAN)
    (data / "y").write_text("1")
    with pytest.raises(InputError, match=r"another data.*--roles"):
        claim(out, "a" * 64, data, PLAN)


def test_a_file_of_roles_is_one(tmp_path: Path) -> None:
    path = tmp_path / "roles.json"
    path.write_text('{"p1": "holdout"}')
    assert read_roles(path) == {"p1": Role.HOLDOUT}
    path.write_text('{"p1": "king"}')
    with pytest.raises(InputError, match="not a file of roles"):
        read_roles(path)


def test_equal_odds_are_what_the_likelihood_says() -> None:
    assert logit(ONE.likelihood(0.5, 1.5, 0.5)) == pytest.approx(1.5)
