"""A parent with tiny networks, a site whose studies are drawn in a moment, and a short plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ai_core.adapt.plan import AdaptPlan, FinetunePlan, GatePlan
from ai_core.calibration import Calibration
from ai_core.config import Phase
from ai_core.features import FEATURES
from ai_core.logistic import LogisticModel
from ai_core.release import NETWORKS, build_networks, write_release
from tests.ai_core.conftest import small_config
from tests.ai_core.picai.test_archive_source import _write

#: What these networks find is chance: the gate lets every change pass.
OPEN = GatePlan(
    site_loss=1, site_bound=1, site_log_loss=9, general_loss=1, general_bound=1, repeats=50
)
#: No change is an improvement of one half.
SHUT = OPEN.model_copy(update={"site_loss": -0.5})


def short_plan(gate: GatePlan = OPEN, steps: int = 2) -> AdaptPlan:
    """A plan of seconds."""
    phase = Phase(steps=steps, learning_rate=1e-3, frozen_norm_from=0.0, max_minutes=5)
    return AdaptPlan(
        workers=0,
        simulated_cases=4,
        profile=AdaptPlan().profile.model_copy(update={"fewest_studies": 2}),
        finetune=FinetunePlan(phase=phase, check_every=1, patience=5),
        gate=gate,
    )


@pytest.fixture(scope="package")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with tiny, untrained networks whose map is not empty."""
    torch.manual_seed(0)
    config = small_config()
    networks = build_networks(config)
    torch.nn.init.constant_(networks[1].lesion_head.bias, -1.0)  # type: ignore[arg-type]
    zeros = tuple(0.0 for _ in FEATURES)
    ones = tuple(1.0 for _ in FEATURES)
    model = LogisticModel(features=FEATURES, mean=zeros, spread=ones, weight=zeros, intercept=0.0)
    weights = {
        name: dict(network.state_dict()) for name, network in zip(NETWORKS, networks, strict=True)
    }
    folder = tmp_path_factory.mktemp("parent") / "release"
    write_release(folder, config, weights, Calibration(), model, model, "# Model card\n")
    return folder


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight annotated studies of eight patients, half of them with a lesion."""
    folder = tmp_path_factory.mktemp("site")
    for number in range(8):
        _write(folder, f"PATIENT{number}_STUDY{number}", lesion=number % 2 == 0)
    return folder
