"""Training: a few steps of every phase, interrupted and resumed, then a release."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from ai_core.candidates import Candidate
from ai_core.config import ModalityDropout, Phase, read_config
from ai_core.errors import InputError, TrainingError
from ai_core.features import DIRECTION
from ai_core.manifest import verify_files
from ai_core.nets.classifier import Classifier, corn_loss, cut_patches, suspicion_score
from ai_core.nets.localizer import Localizer
from ai_core.release import NETWORKS, build_networks, load_release
from ai_core.sim.dataset import build_cache
from ai_core.train.data import GlandSamples, LesionSamples, draw_present, stream
from ai_core.train.logistic_fit import STRENGTH, bounded_logistic
from ai_core.train.loop import PhasePlan, PhaseRun
from ai_core.train.matching import Match, Truth, match
from ai_core.train.package import make_release
from ai_core.train.phases import ClassifyStep, JointModel
from ai_core.train.plots import plot_log
from ai_core.train.run import begin_from, train
from ai_core.train.source import Source
from tests.ai_core.conftest import small_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    build_cache(folder, 4, seed=5)
    return folder


@pytest.mark.slow
def test_every_phase_runs_and_the_release_loads(cache: Path, tmp_path: Path) -> None:
    config = small_config(held_out=0.5)
    weights = train(config, [cache], tmp_path / "run", resume=False, device="cpu")
    values = make_release(config, weights, [cache], tmp_path / "release", "cpu")
    release = load_release(tmp_path / "release", "cpu")
    origin = verify_files(tmp_path / "release").origin
    assert origin is not None
    assert (origin.parent, origin.seed) == (None, config.training.seed)
    assert origin.trained_on > 0
    assert origin.figures
    assert release.calibration.simulated_cases == 2
    assert values["cases"] == 2
    again = train(config, [cache], tmp_path / "run", resume=True, device="cpu")
    for name, tensors in weights.items():
        assert all(torch.equal(value, again[name][key]) for key, value in tensors.items())


@pytest.mark.slow
def test_a_phase_without_steps_is_left_out(cache: Path, tmp_path: Path) -> None:
    config = small_config(held_out=0.5, joint=Phase(steps=0))
    weights = train(config, [cache], tmp_path, resume=False, device="cpu")
    kept = load_file(tmp_path / "classify.safetensors")
    assert not (tmp_path / "joint.safetensors").exists()
    assert all(torch.equal(v, kept[f"classifier.{k}"]) for k, v in weights["classifier"].items())


def test_a_run_is_not_overwritten(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "gland.checkpoint.pt").write_bytes(b"")
    with pytest.raises(InputError, match="holds a training run"):
        train(small_config(), [cache], tmp_path, resume=False, device="cpu")


def test_an_empty_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no cached anatomies"):
        train(small_config(), [tmp_path], tmp_path / "out", resume=False, device="cpu")


class _Interrupted(Exception):
    pass


def _noise_batches(start: int) -> Iterator[dict[str, Tensor]]:
    index = start
    while True:
        generator = torch.Generator().manual_seed(index)
        yield {"x": torch.randn(2, 1, 4, 8, 8, generator=generator)}
        index += 1


def _network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Dropout(0.5), nn.Conv3d(2, 1, 1))


def _step(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    return network(batch["x"]).square().mean(), {}


def _run(folder: Path, resume: bool, stop_at: int | None = None) -> dict[str, Tensor]:
    plan = PhasePlan("x", Phase(steps=12, max_minutes=60.0), _step, _noise_batches)
    run = PhaseRun(plan, _network(), folder, torch.device("cpu"), checkpoint_minutes=0.0)
    torch.manual_seed(7)
    if stop_at is not None:
        one = run._one

        def interrupted(batch: dict[str, Tensor], share: float) -> dict[str, float]:
            if run.state.step == stop_at:
                raise _Interrupted
            return one(batch, share)

        run._one = interrupted  # type: ignore[method-assign]
    return run.run(resume)


def test_a_resumed_phase_ends_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = _run(tmp_path / "a", resume=False)
    with pytest.raises(_Interrupted):
        _run(tmp_path / "b", resume=False, stop_at=6)
    resumed = _run(tmp_path / "b", resume=True)
    for name, value in whole.items():
        assert torch.allclose(value.float(), resumed[name].float(), atol=1e-6), name


def test_a_watched_phase_ends_when_it_is_told(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(step: int, average: dict[str, Tensor]) -> bool:
        assert average.keys() == _network().state_dict().keys()
        seen.append(step)
        return step == 6

    plan = PhasePlan("x", Phase(steps=12), _step, _noise_batches, watch, 3)
    run = PhaseRun(plan, _network(), tmp_path, torch.device("cpu"), 1.0)
    run.run(False)
    assert seen == [3, 6]
    assert run.state.step == 6


def test_a_loss_that_is_not_finite_stops_training(tmp_path: Path) -> None:
    def bad(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        return network(batch["x"]).mean() * float("nan"), {}

    plan = PhasePlan("x", Phase(steps=3), bad, _noise_batches)
    with pytest.raises(TrainingError, match="not finite"):
        PhaseRun(plan, _network(), tmp_path, torch.device("cpu"), 1.0).run(False)


def test_batches_depend_on_their_index_alone(cache: Path) -> None:
    config = small_config(held_out=0.5)
    samples = GlandSamples(Source((cache,), 2), config, "gland", 2, 0.5)
    batches = stream(samples.batch, 3, workers=0)
    third, fourth = next(batches), next(batches)
    assert torch.equal(third["image"], samples.batch(3)["image"])
    assert torch.equal(fourth["image"], samples.batch(4)["image"])
    assert not torch.equal(third["image"], fourth["image"])


def test_training_and_held_out_cases_are_apart(cache: Path) -> None:
    train_cases = {Source((cache,), 2).case_at(i)[1] for i in range(10)}
    held_out = {Source((cache,), 2, held_out=True).case_at(i)[1] for i in range(10)}
    assert train_cases == {0, 2}
    assert held_out == {1, 3}


def test_volumes_without_a_prostate_come_at_the_stated_rate(cache: Path) -> None:
    samples = GlandSamples(Source((cache,), 0), small_config(), "presence", 1, 1.0)
    batch = samples.batch(0)
    assert batch["has_gland"].tolist() == [0.0]
    assert not bool(batch["zones"].any())
    assert float(batch["image"].std()) > 0.1


def test_a_batch_without_a_modality_is_empty_there(cache: Path) -> None:
    dropout = ModalityDropout(dce=1.0, high_b=1.0, adc=0.0, t2w_only=0.0)
    config = small_config()
    batch = LesionSamples(Source((cache,), 0), config, "localize", 1, dropout).batch(0)
    assert batch["present"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert bool((batch["image"][:, 2:] == 0).all())
    assert bool((batch["image"][:, :2] != 0).any())


def test_modality_dropout_has_the_stated_rates() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_present(rng, ModalityDropout()) for _ in range(4000)])
    assert (drawn[:, 0] == 1).all()
    assert drawn[:, 3].mean() == pytest.approx(0.59, abs=0.03)
    assert drawn[:, 2].mean() == pytest.approx(0.78, abs=0.03)
    assert drawn[:, 1].mean() == pytest.approx(0.94, abs=0.02)


def test_joint_training_reaches_the_localizer_and_phase_two_does_not(cache: Path) -> None:
    config = small_config()
    everything = ModalityDropout(dce=0, high_b=0, adc=0, t2w_only=0)
    batch = LesionSamples(Source((cache,), 0), config, "joint", 2, everything).batch(1)
    nets = config.nets
    for freeze in (True, False):
        torch.manual_seed(0)
        localizer = Localizer(nets.modality, nets.fusion)
        model = JointModel(localizer, Classifier(nets.classifier), freeze=freeze).train()
        step = ClassifyStep(config, joint=not freeze)
        with torch.set_grad_enabled(not freeze):
            result = localizer(batch["image"], batch["present"])
        loss, _ = step._classification(model.classifier, batch, result)
        loss.backward()
        gradient = localizer.lesion_head.weight.grad
        assert (gradient is None) == freeze
        if gradient is not None:
            assert float(gradient.abs().sum()) > 0


def test_an_absent_modality_is_not_run() -> None:
    torch.manual_seed(0)
    network = Localizer((4, 8, 8), (4, 8, 8)).eval()
    image = torch.randn(2, 5, 8, 16, 16)
    present = torch.tensor([1.0, 1.0, 0.0, 0.0])
    changed = image.clone()
    changed[:, 2:] = 0
    with torch.no_grad():
        network.nets["dce"] = nn.Identity()  # would fail if it were called
        maps = network(changed, present).maps
    assert bool((maps[:, 2:] == maps[0, 2, 0, 0, 0]).all())


def test_patches_lie_where_they_should() -> None:
    stack = torch.zeros(1, 1, 20, 40, 40)
    stack[0, 0, 10, 20, 25] = 1.0
    center = torch.tensor([[10.0, 20.0, 20.0]])
    plain = cut_patches(stack, center, (5, 21, 21), 1.0, False)
    mirrored = cut_patches(stack, center, (5, 21, 21), 1.0, True)
    assert float(plain[0, 0, 2, 10, 15]) == pytest.approx(1.0, abs=1e-4)
    assert float(mirrored[0, 0, 2, 10, 5]) == pytest.approx(1.0, abs=1e-4)


def test_suspicion_is_ordinal() -> None:
    logits = torch.tensor([[-9.0] * 4, [9.0, -9, -9, -9], [9.0] * 4])
    assert suspicion_score(logits) == pytest.approx([1.0, 2.0, 5.0], abs=0.01)
    right = corn_loss(torch.tensor([[9.0, 9.0, -9.0, 0.0]]), torch.tensor([3]))
    wrong = corn_loss(torch.tensor([[-9.0, 9.0, -9.0, 0.0]]), torch.tensor([3]))
    assert float(right) < 0.01 < float(wrong)


def _candidate(mask: np.ndarray, peak: tuple[int, int, int]) -> Candidate:  # type: ignore[type-arg]
    return Candidate(mask, peak, 0.5)


def test_a_candidate_matches_by_peak_or_by_overlap() -> None:
    instances = np.zeros((6, 20, 20), dtype=np.int16)
    instances[2:4, 5:10, 5:10] = 1
    truth = Truth(instances, {1: 3}, {1: 5})
    mask = np.zeros(instances.shape, dtype=bool)
    mask[2:4, 5:10, 7:12] = True
    assert match(_candidate(mask, (2, 6, 11)), truth).significant
    assert match(_candidate(mask, (2, 6, 6)), truth).score == 5
    far = np.zeros(instances.shape, dtype=bool)
    far[0, 15:18, 15:18] = True
    assert match(_candidate(far, (0, 16, 16)), truth) == Match(False, 1, 0)


def test_the_shipped_configuration_is_valid() -> None:
    config = read_config(CONFIGS / "first.toml")
    assert config.name == "first"


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('name = "x"\nversion = "1"\nspeed = 3\n')
    with pytest.raises(InputError, match="speed"):
        read_config(path)


@pytest.mark.slow
def test_training_goes_on_from_a_release(cache: Path, tmp_path: Path) -> None:
    config = small_config(held_out=0.5)
    first = train(config, [cache], tmp_path / "run", resume=False, device="cpu")
    make_release(config, first, [cache], tmp_path / "release", "cpu")
    networks = build_networks(config)
    begin_from(tmp_path / "release", networks)
    for name, network in zip(NETWORKS, networks, strict=True):
        state = network.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in first[name].items())


def test_a_log_becomes_a_picture(tmp_path: Path) -> None:
    log = tmp_path / "phase.csv"
    assert plot_log(log) is None
    rows = [f"{step},{step / 10},{1 / step},{'nan' if step % 3 else 0.5}" for step in range(1, 60)]
    log.write_text("\n".join(["step,elapsed_s,loss,hit", *rows]) + "\n", encoding="utf-8")
    picture = plot_log(log)
    assert picture is not None and picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_processes_train_one_network(cache: Path, tmp_path: Path) -> None:
    """`torchrun` with two processes: other batches, one set of weights, one log."""
    settings = tmp_path / "small.json"
    config = small_config(held_out=0.5, localize=Phase(steps=20, max_minutes=5.0))
    settings.write_text(config.model_dump_json(), encoding="utf-8")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "ai_core.cli", "train", "--config", str(settings), "--data", str(cache)]
    command += ["--out", str(out), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    load_release(out / "release", "cpu")
    steps = (out / "localize.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len({row.split(",")[0] for row in steps}) == len(steps)


def test_a_bounded_fit_keeps_its_signs_and_else_equals_the_plain_one() -> None:
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(400, 3))
    inputs[:, 1] = inputs[:, 0] + 0.2 * inputs[:, 1]
    chance = 1 / (1 + np.exp(-(2 * inputs[:, 0] - inputs[:, 1] - 0.5)))
    labels = rng.random(400) < chance
    plain = LogisticRegression(C=STRENGTH).fit(inputs, labels)
    free, intercept = bounded_logistic(inputs, labels, (0, 0, 0))
    assert np.allclose(free, plain.coef_[0], atol=2e-3)
    assert intercept == pytest.approx(float(plain.intercept_[0]), abs=2e-3)
    assert free[1] < 0
    bounded, _ = bounded_logistic(inputs, labels, (1, 1, 0))
    assert bounded[0] > 0 and bounded[1] == 0.0


def test_the_significance_model_never_argues_against_what_is_known() -> None:
    significance = load_release(None, "cpu").significance
    for name, weight in zip(significance.features, significance.weight, strict=True):
        assert weight * DIRECTION.get(name, 0) >= 0, name
