"""The branch in a release, in training and in an analysis; and everything as before without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ai_core import analyse, load_release
from ai_core.config import Phase
from ai_core.errors import ReleaseError
from ai_core.manifest import SYNTHESIS_FILES, verify_files
from ai_core.nets.synthesis import Generator
from ai_core.pipeline import examine
from ai_core.predict import write_maps
from ai_core.release import Release
from ai_core.sim.dataset import build_cache
from ai_core.synthesis.branch import Branch
from ai_core.synthesis.compare import NormalSpread
from ai_core.train.branch import add_branch
from ai_core.train.data import LesionSamples
from ai_core.train.normals import normals_of
from ai_core.train.package import make_release
from ai_core.train.run import train
from ai_core.train.source import Source
from ai_core.train.synthesis import DROPOUT, Adversaries, SynthesisStep, normal_samples
from ai_core.types import Case, Quality
from tests.ai_core.conftest import small_config

NAMES = ("t2w", "t2w+adc", "t2w+high_b", "t2w+adc+high_b")


def branch(believed_to: float, widths: tuple[int, ...] = (4, 4, 8, 8)) -> Branch:
    """An untrained generator; its differences count in units of 1."""
    torch.manual_seed(2)
    numbers = 3 * 2 * 4 * 4 * 3
    spread = NormalSpread(
        cases=2,
        mean=(0.0,) * numbers,
        spread=(1.0,) * numbers,
        joined=dict.fromkeys(NAMES, 1.0),
        credible_to=dict.fromkeys(NAMES, believed_to),
    )
    return Branch(Generator(widths).eval(), spread)


def with_branch(packaged: Release, believed_to: float) -> Release:
    values = {name: getattr(packaged, name) for name in packaged.__dataclass_fields__}
    return Release(**{**values, "synthesis": branch(believed_to)})


@pytest.mark.slow
def test_findings_do_not_depend_on_the_branch(
    case: Case, packaged: Release, tmp_path: Path
) -> None:
    before, after = analyse(case, packaged), analyse(case, with_branch(packaged, 100.0))
    assert before.synthesis is None
    assert "synthesis" not in before.timings_s
    assert all(finding.abnormality is None for finding in before.findings)
    said = after.synthesis
    assert said is not None
    assert said.abnormality is not None
    assert said.abnormality.shape == case.t2w.geometry.shape_zyx
    assert said.abnormality.dtype == np.float32
    assert float(said.abnormality.min()) >= 0
    assert set(said.input) == set(said.normal)
    assert [f.likelihood for f in after.findings] == [f.likelihood for f in before.findings]
    assert all(finding.abnormality is not None for finding in after.findings)
    assert np.array_equal(before.likelihood, after.likelihood)
    assert "abnormality.nii.gz" in write_maps(after, tmp_path)
    assert "abnormality.nii.gz" not in write_maps(before, tmp_path)


@pytest.mark.slow
def test_it_abstains_and_says_so(case: Case, packaged: Release) -> None:
    seen = examine(case, with_branch(packaged, 0.0))
    assert seen.abnormality is not None
    assert seen.result.synthesis is not None
    assert seen.result.synthesis.abnormality is None
    assert all(finding.abnormality is None for finding in seen.result.findings)
    remark = next(q for q in seen.result.quality if q.code is Quality.SYNTHESIS_ABSTAINS)
    assert "not credible" in remark.message
    assert remark not in seen.result.inadequate


def test_a_branch_is_added_and_the_rest_stays_bit_by_bit(
    tiny_release: Path, tmp_path: Path
) -> None:
    config = small_config().model_copy(update={"name": "more", "version": "0.0.2"})
    config = config.model_copy(
        update={"nets": config.nets.model_copy(update={"synthesis": (4, 4, 8, 8)})}
    )
    folder = tmp_path / "more"
    add_branch(folder, tiny_release, branch(1.0), config)
    old, new = verify_files(tiny_release), verify_files(folder)
    same = ("gland", "localizer", "classifier")
    for name in (*(f"{n}.safetensors" for n in same), "calibration.json", "significance.json"):
        assert old.contents[name] == new.contents[name]
    assert new.origin is not None
    assert new.origin.parent == old.sha256
    release = load_release(folder, "cpu")
    assert release.synthesis is not None
    assert release.info.name == "more"
    assert release.config.nets.synthesis == (4, 4, 8, 8)
    assert load_release(folder, "cpu", synthesis=False).synthesis is None
    assert load_release(tiny_release, "cpu").synthesis is None


def test_half_a_branch_is_refused(tiny_release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    config = small_config()
    nets = config.nets.model_copy(update={"synthesis": (4, 4, 8, 8)})
    add_branch(folder, tiny_release, branch(1.0), config.model_copy(update={"nets": nets}))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][SYNTHESIS_FILES[1]]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match="one is missing"):
        load_release(folder, "cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    build_cache(folder, 4, seed=5, positive_fraction=1.0)
    return folder


def test_normal_prostates_have_no_lesion(cache: Path) -> None:
    config = small_config(held_out=0.0)
    source = Source((cache,), 0)
    assert normals_of(source) == Source((cache,), 0, normal=True)
    sick = LesionSamples(source, config, "x", 1, DROPOUT, augment=False, in_order=True)
    normal = LesionSamples(normals_of(source), config, "x", 1, DROPOUT, False, True)
    one, other = sick.batch(0), normal.batch(0)
    assert int((one["instances"] > 0).sum()) > int((other["instances"] > 0).sum())
    assert not bool(other["lesion"].any())
    assert torch.equal(one["zones"], other["zones"])


def test_both_players_learn_and_neither_moves_the_other(cache: Path) -> None:
    config = small_config(synthesis=Phase(steps=1, batch=1))
    torch.manual_seed(0)
    network = Adversaries((4, 4, 8, 8))
    batch = normal_samples(Source((cache,), 0), config).batch(0)
    loss, values = SynthesisStep(config)(network, batch)
    loss.backward()
    assert set(values) == {"rebuilt", "fooled", "judged"}
    for part in (network.generator, network.discriminator):
        assert any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
    network.zero_grad(set_to_none=True)
    slices = torch.randn(2, 3, 32, 32, requires_grad=True)
    network.verdict(slices, learning=False).sum().backward()
    assert slices.grad is not None
    assert all(p.grad is None for p in network.discriminator.parameters())


@pytest.mark.slow
def test_the_phase_runs_resumes_and_adds_the_branch(
    cache: Path, tiny_release: Path, tmp_path: Path
) -> None:
    none = Phase(steps=0)
    config = small_config(
        held_out=0.5, gland=none, localize=none, classify=none, joint=none,
        synthesis=Phase(steps=2, batch=1, max_minutes=5.0), synthesis_cases=2,
    )  # fmt: skip
    nets = config.nets.model_copy(update={"synthesis": (4, 4, 8, 8)})
    config = config.model_copy(update={"nets": nets})
    run = tmp_path / "run"
    weights = train(config, [cache], run, False, "cpu", tiny_release)
    again = train(config, [cache], run, True, "cpu", tiny_release)
    assert all(torch.equal(v, again["synthesis"][k]) for k, v in weights["synthesis"].items())
    values = make_release(config, weights, [cache], tmp_path / "out", "cpu", tiny_release)
    assert values["normal cases"] == 2
    release = load_release(tmp_path / "out", "cpu")
    assert release.synthesis is not None
    assert "Abnormality by synthesis" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
