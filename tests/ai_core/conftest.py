"""Releases and cases for the tests of the core."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ai_core.calibration import Calibration
from ai_core.config import CoreConfig, Nets, Phase, Training
from ai_core.features import FEATURES
from ai_core.logistic import LogisticModel
from ai_core.release import NETWORKS, Release, build_networks, load_release, write_release
from ai_core.sim.study import SimulatedStudy, simulate_study
from ai_core.types import Case


def small_config(**training: object) -> CoreConfig:
    """A configuration whose networks are tiny and whose phases last a few steps."""
    few = Phase(steps=3, batch=2, max_minutes=5.0)
    settings = {
        "workers": 0,
        "gland": few,
        "presence_cases": 6,
        "localize": few,
        "classify": few,
        "joint": few,
        "calibration_cases": 4,
        **training,
    }
    return CoreConfig(
        name="tiny",
        version="0.0.1",
        nets=Nets(gland=(4, 8), modality=(4, 8, 8), fusion=(4, 8, 8), classifier=(4, 8, 8)),
        training=Training.model_validate(settings),
    )


@pytest.fixture
def tiny_release(tmp_path: Path) -> Path:
    """A complete release folder with tiny, untrained networks: for plumbing alone."""
    torch.manual_seed(0)
    config = small_config()
    weights = {
        name: dict(network.state_dict())
        for name, network in zip(NETWORKS, build_networks(config), strict=True)
    }
    zeros = tuple(0.0 for _ in FEATURES)
    model = LogisticModel(
        features=FEATURES,
        mean=zeros,
        spread=tuple(1.0 for _ in FEATURES),
        weight=zeros,
        intercept=0.0,
    )
    folder = tmp_path / "release"
    write_release(folder, config, weights, Calibration(), model, model, "# Model card\n")
    return folder


@pytest.fixture(scope="session")
def packaged() -> Release:
    """The release that the package carries."""
    return load_release(None, "cpu")


@pytest.fixture(scope="session")
def study() -> SimulatedStudy:
    """A simulated examination with a lesion."""
    return simulate_study(11, lesion=True, planes=("axial",), dce_phases=5, t2w_matrix=256)


@pytest.fixture(scope="session")
def case(study: SimulatedStudy) -> Case:
    """The images of that examination."""
    return Case(
        t2w=study.t2w,
        adc=study.adc,
        adc_to_um2_s=1.0,
        dwi=study.dwi,
        high_b=study.high_b,
        dce=study.dce,
    )
