"""`ai-core` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ai_core.errors import GeometryError, InputError
from ai_core.geometry import grid_around
from ai_core.types import Case, Volume
from ai_core.volume_io import read_volume, write_volume


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ai_core.cli", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def files(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("volumes")
    assert case.adc is not None
    assert case.high_b is not None
    volumes = {"t2w.nii.gz": case.t2w, "adc.mha": case.adc, "hbv.nrrd": case.high_b.volume}
    for name, volume in volumes.items():
        write_volume(volume.array, volume.geometry, folder / name)
    return {name.split(".")[0]: folder / name for name in volumes}


@pytest.mark.slow
def test_predict_writes_the_contract_files_and_json_alone(
    files: dict[str, Path], tmp_path: Path
) -> None:
    done = _run(
        "predict", "--t2w", files["t2w"], "--adc", files["adc"], "--hbv", files["hbv"],
        "--out", tmp_path, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "result.json").read_text())
    expected = {"gland", "zones", "lesions", "likelihood", "relevance"}
    expected |= {f"map-{name}" for name in ("t2w", "adc", "high_b")}
    assert {p.name.removesuffix(".nii.gz") for p in tmp_path.glob("*.nii.gz")} == expected
    assert report["state"] == "analysed"
    assert set(report["case"]) == {"likelihood_percent", "significant"}
    assert len(report["model"]["sha256"]) == 64
    lesions = read_volume(tmp_path / "lesions.nii.gz")
    t2w = read_volume(files["t2w"])
    assert lesions.geometry.size_xyz == t2w.geometry.size_xyz
    assert np.allclose(lesions.geometry.origin_lps_mm, t2w.geometry.origin_lps_mm, atol=1e-3)
    assert int(lesions.array.max()) == len(report["findings"])


def test_a_missing_file_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = _run("predict", "--t2w", tmp_path / "no.nii.gz", "--adc", "x.mha", "--out", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "does not exist" in done.stderr


def test_wrong_use_is_status_2() -> None:
    assert _run("predict").returncode == 2
    assert _run("fly").returncode == 2
    done = _run("train", "--config", "a.toml", "--out", "b")
    assert (done.returncode, "give --data, or --sites" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "command", ["predict", "simulate", "train", "adapt", "experiment", "evaluate", "sites"]
)
def test_help(command: str) -> None:
    done = _run(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.slow
def test_simulate_makes_anatomies_for_training(tmp_path: Path) -> None:
    done = _run("simulate", "--out", tmp_path, "--cases", 1, "--seed", 3, "--anatomies")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("anatomy-*.npz"))) == 1


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_volumes_survive_a_round_trip(tmp_path: Path, suffix: str) -> None:
    grid = grid_around((10.0, -20.0, 30.0), (0.5, 0.6, 3.0), (12, 10, 4), np.diag([1.0, 1, 1]))
    array = np.random.default_rng(0).normal(size=grid.shape_zyx).astype(np.float32)
    write_volume(array, grid, tmp_path / f"v{suffix}")
    back = read_volume(tmp_path / f"v{suffix}")
    assert np.allclose(back.array, array)
    assert np.allclose(back.geometry.origin_lps_mm, grid.origin_lps_mm, atol=1e-4)
    assert np.allclose(back.geometry.spacing_xyz_mm, grid.spacing_xyz_mm, atol=1e-5)


def test_files_that_are_no_volumes_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mha"
    broken.write_bytes(b"not an image")
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(broken)
    with pytest.raises(InputError, match="suffix"):
        read_volume(tmp_path / "x.txt")
    flat = tmp_path / "flat.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4), np.float32)), str(flat))
    with pytest.raises(GeometryError, match="2 dimensions"):
        read_volume(flat)


def test_a_volume_needs_an_array_of_its_grid() -> None:
    with pytest.raises(ValueError, match="does not match"):
        Volume(np.zeros((2, 2, 2)), grid_around((0, 0, 0), (1, 1, 1), (3, 2, 2), np.eye(3)))
