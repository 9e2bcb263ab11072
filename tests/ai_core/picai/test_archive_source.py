"""Real layout to training draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ai_core.config import CoreConfig, Grid, ModalityDropout, Training
from ai_core.errors import InputError
from ai_core.geometry import grid_around
from ai_core.release import load_release
from ai_core.sim.dataset import build_cache
from ai_core.train.archive_source import ArchiveSource
from ai_core.train.data import LesionSamples
from ai_core.train.datasets import Mixed, open_cases
from ai_core.train.package import make_release
from ai_core.train.run import train
from ai_core.volume_io import write_volume
from tests.ai_core.conftest import small_config

GRID = grid_around((5.0, -9.0, 30.0), (0.8, 0.8, 3.0), (150, 150, 20), np.eye(3))
CONFIG = CoreConfig(name="t", version="0", training=Training(held_out=0.5))
TARGET = Grid(shape_zyx=(24, 80, 80), spacing_zyx_mm=(3.0, 1.2, 1.2))
MIDDLE = (10, 75, 75)


def _write(root: Path, name: str, lesion: bool) -> None:
    z, y, x = np.indices(GRID.shape_zyx)
    inside = ((z - 10) / 6) ** 2 + ((y - 75) / 28) ** 2 + ((x - 75) / 32) ** 2 < 1
    zones = np.where(inside, np.where(y > 80, 1, 2), 0).astype(np.uint8)
    spot = ((z - 10) / 2) ** 2 + ((y - 90) / 6) ** 2 + ((x - 90) / 6) ** 2 < 1
    rng = np.random.default_rng(1)
    t2w = (200 + 100 * inside + rng.normal(0, 5, inside.shape)).astype(np.float32)
    adc = (1500.0 - 700.0 * (spot & lesion)).astype(np.float32)
    high_b = (40.0 + 60.0 * (spot & lesion)).astype(np.float32)
    folder = root / "images" / name.split("_", maxsplit=1)[0]
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("t2w", t2w), ("adc", adc), ("hbv", high_b)):
        write_volume(array, GRID, folder / f"{name}_{kind}.mha")
    labels = {"zonal_pz_tz": zones, "human_expert": np.where(spot & lesion, 3, 0).astype(np.uint8)}
    for kind, array in labels.items():
        (root / kind).mkdir(exist_ok=True)
        write_volume(array, GRID, root / kind / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    _write(folder, "1_10", lesion=True)
    _write(folder, "1_11", lesion=False)
    _write(folder, "2_20", lesion=True)
    return folder


def test_draws_hold_image_and_label_together(root: Path, tmp_path: Path) -> None:
    source = ArchiveSource.open((root,), tmp_path, CONFIG)
    held = ArchiveSource.open((root,), tmp_path, CONFIG, held_out=True)
    assert {p.name.split("_")[0] for p in source.files}.isdisjoint(
        {p.name.split("_")[0] for p in held.files}
    )
    assert len(source) + len(held) == 3
    both = ArchiveSource((*source.files, *held.files))
    lesions = 0
    for number in range(3):
        drawn = both.draw(
            np.random.default_rng(number), TARGET, (5.0, 4.0, 4.0), ("adc", "high_b"), number
        )
        assert drawn.images.t2w.shape == TARGET.shape_zyx
        assert set(np.unique(drawn.zones)) == {0, 1, 2}
        assert drawn.images.dce is None
        spot = drawn.instances > 0
        if spot.any():
            lesions += 1
            assert drawn.foci == {1: (3, 4)}
            assert drawn.images.adc_um2_s is not None
            assert np.median(drawn.images.adc_um2_s[spot]) < 1150  # halfway
            rest = (drawn.zones > 0) & ~spot
            assert np.median(drawn.images.adc_um2_s[rest]) == pytest.approx(1500, abs=5)
    assert lesions == 2


def test_a_draw_is_a_function_of_its_generator(root: Path, tmp_path: Path) -> None:
    source = ArchiveSource.open((root,), tmp_path, CONFIG)
    one, two = (
        source.draw(np.random.default_rng(3), TARGET, (5.0, 4.0, 4.0), ("adc",)) for _ in range(2)
    )
    assert np.array_equal(one.images.t2w, two.images.t2w)
    assert one.images.high_b is None
    other = source.draw(np.random.default_rng(4), TARGET, (5.0, 4.0, 4.0), ("adc",))
    assert not np.array_equal(one.images.t2w, other.images.t2w)


def test_what_cannot_be_trained_on_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no examination has gland and zone labels"):
        ArchiveSource.open((root / "images",), tmp_path, CONFIG)
    few = CoreConfig(name="t", version="0", training=Training(held_out=0.1))
    with pytest.raises(InputError, match="too few"):
        ArchiveSource.open((root,), tmp_path, few)
    (tmp_path / "broken.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="is broken"):
        ArchiveSource((tmp_path / "broken.npz",)).draw(
            np.random.default_rng(0), TARGET, (0.0, 0.0, 0.0), ()
        )


@pytest.mark.slow
def test_examinations_and_anatomies_are_trained_on_together(root: Path, tmp_path: Path) -> None:
    build_cache(tmp_path / "simulated", 2, seed=3)
    folders = [root, tmp_path / "simulated"]
    both = open_cases(folders, CONFIG, tmp_path / "scratch")
    assert isinstance(both, Mixed) and not both.real
    assert {part.real for part in both.parts} == {True, False}
    held_out = open_cases(folders, CONFIG, tmp_path / "scratch", held_out=True)
    assert held_out.real and len(held_out) + len(both.parts[0]) == 3
    dropout = ModalityDropout(dce=0.0, high_b=0.0, adc=0.0, t2w_only=0.0)
    config = small_config(held_out=0.5)
    for index in range(3):
        batch = LesionSamples(both, config, "localize", 2, dropout).batch(index)
        there = batch["image"].abs().sum(dim=(0, 2, 3, 4)) > 0
        assert bool(batch["present"][3]) == bool(there[3])


@pytest.mark.slow
def test_calibration_on_patients_says_so(root: Path, tmp_path: Path) -> None:
    config = small_config(held_out=0.5)
    weights = train(config, [root], tmp_path / "run", resume=False, device="cpu")
    make_release(config, weights, [root], tmp_path / "run" / "release", "cpu")
    release = load_release(tmp_path / "run" / "release", "cpu")
    assert release.calibration.simulated_cases == 0
    card = (tmp_path / "run" / "release" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "of patients" in card


def test_a_folder_of_neither_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no cached anatomies and no examinations"):
        open_cases([tmp_path], CONFIG, tmp_path / "scratch")
