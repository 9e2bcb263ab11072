"""A release is used whole and unaltered, or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ai_core.errors import ReleaseError
from ai_core.manifest import PACKAGED_SHA256, verify_files
from ai_core.origin import Origin, case_digest
from ai_core.release import FILES, NETWORKS, PACKAGED, PACKAGED_NAME, load_release


def test_a_written_release_loads_and_its_digest_is_that_of_the_manifest(
    tiny_release: Path,
) -> None:
    release = load_release(tiny_release, "cpu")
    manifest = (tiny_release / "manifest.json").read_bytes()
    assert release.info.sha256 == hashlib.sha256(manifest).hexdigest()
    assert release.info.name == "tiny"
    assert not release.info.calibrated_on_real_cases


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused(tiny_release: Path, name: str) -> None:
    path = tiny_release / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ReleaseError, match=f"{name} is not the file"):
        load_release(tiny_release, "cpu")


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused(tiny_release: Path, name: str) -> None:
    (tiny_release / name).unlink()
    with pytest.raises(ReleaseError, match=name) as caught:
        load_release(tiny_release, "cpu")
    assert "Install the release again" in str(caught.value)


def _rewrite(folder: Path, name: str, change: Callable[[Path], None]) -> None:
    """Alter a file and make the manifest agree."""
    change(folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _poison(path: Path) -> None:
    weights = load_file(path)
    first = next(name for name, value in weights.items() if value.ndim > 1)
    weights[first] = torch.full_like(weights[first], float("nan"))
    save_file(weights, path)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_compute_nan_are_refused(tiny_release: Path, name: str) -> None:
    _rewrite(tiny_release, f"{name}.safetensors", _poison)
    with pytest.raises(ReleaseError, match="not numbers"):
        load_release(tiny_release, "cpu")


def test_weights_of_another_shape_are_refused(tiny_release: Path) -> None:
    def other(path: Path) -> None:
        save_file({"x": torch.zeros(1)}, path)

    _rewrite(tiny_release, "gland.safetensors", other)
    with pytest.raises(ReleaseError, match="do not fit"):
        load_release(tiny_release, "cpu")


def test_an_invalid_setting_is_refused(tiny_release: Path) -> None:
    def bad(path: Path) -> None:
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "surprise": 1}))

    _rewrite(tiny_release, "config.json", bad)
    with pytest.raises(ReleaseError, match=r"config\.json"):
        load_release(tiny_release, "cpu")


def test_a_manifest_that_leaves_a_file_out_is_refused(tiny_release: Path) -> None:
    manifest = json.loads((tiny_release / "manifest.json").read_text())
    del manifest["files"]["calibration.json"]
    (tiny_release / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match=r"does not list calibration\.json"):
        load_release(tiny_release, "cpu")


def test_an_unknown_device_is_refused(tiny_release: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot be used"):
        load_release(tiny_release, "cuda:77")


def test_the_packaged_release_is_small_and_honest() -> None:
    folder = PACKAGED / PACKAGED_NAME
    release = load_release(None, "cpu")
    assert release.calibration.real_cases == 0
    assert release.calibration.simulated_cases > 0
    assert not release.info.calibrated_on_real_cases
    assert sum(p.stat().st_size for p in folder.iterdir()) < 40e6
    card = " ".join((folder / "MODEL_CARD.md").read_text().replace("*", "").split())
    assert "not a probability" in card


def test_the_packaged_release_is_the_one_that_is_pinned() -> None:
    """The packaged release has no signature: it is trusted for its digest in the code."""
    content = (PACKAGED / PACKAGED_NAME / "manifest.json").read_bytes()
    found = hashlib.sha256(content).hexdigest()
    assert found == PACKAGED_SHA256, f"set PACKAGED_SHA256 in ai_core/manifest.py to {found}"


def test_a_whole_release_is_refused_where_another_is_expected(tiny_release: Path) -> None:
    digest = verify_files(tiny_release).sha256
    assert load_release(tiny_release, "cpu", sha256=digest).info.sha256 == digest
    with pytest.raises(ReleaseError, match="holds release"):
        load_release(tiny_release, "cpu", sha256=PACKAGED_SHA256)


def test_cases_travel_as_digests_that_need_the_key_of_the_site() -> None:
    one = case_digest("ProstateX-0000", b"k" * 32)
    assert one != case_digest("ProstateX-0000", b"l" * 32)
    origin = Origin(made_by="test", seed=1, trained_on=1, cases=(one,))
    assert Origin.model_validate_json(origin.model_dump_json()) == origin
    with pytest.raises(ValueError, match="pattern"):
        Origin(made_by="test", seed=1, cases=("ProstateX-0000",))
    with pytest.raises(ValueError, match="16 bytes"):
        case_digest("ProstateX-0000", b"short")


def test_importing_the_core_loads_no_torch() -> None:
    code = (
        "import sys, ai_core, ai_core.types, ai_core.geometry, ai_core.errors, ai_core.manifest;"
        "print([m for m in ('torch', 'SimpleITK', 'monai', 'scipy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_door_loads_no_monai() -> None:
    code = "import sys; from ai_core import analyse, load_release; print('monai' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
