"""The process that holds the model runs the release it was told, whole, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ai_core.manifest import PACKAGED_SHA256
from dicom_node import model_child
from dicom_node.flow.observe import observation
from dicom_node.phantom import packaged_study
from dicom_node.process import read_folder
from tests.releases import repackage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def job(folder: Path, sha256: str, out: Path) -> dict[str, Any]:
    study = read_folder(packaged_study())
    return {
        "study_uid": study.headers[0].study_uid, "revision": 1,
        "headers": [header.to_json() for header in study.headers],
        "files": {
            uid: {"path": str(path), "sha256": study.digests[uid]}
            for uid, path in study.files.items()
        },
        "content_time": "2026-01-01T00:00:00+00:00", "config_digest": "0" * 64,
        "installation_id": "test", "earlier": [], "kinds": ["seg-gland", "seg-lesions", "sr"],
        "variants": False, "verdict": None, "keep": True, "out": str(out),
        "release": released(folder, sha256),
    }  # fmt: skip


def released(folder: Path, sha256: str) -> dict[str, str]:
    return {"folder": str(folder), "sha256": sha256, "device": "cpu", "precision": "fp32"}


def shadow(of: dict[str, Any], folder: Path, sha256: str) -> dict[str, Any]:
    return {
        "study_uid": of["study_uid"], "revision": 1, "shadow": released(folder, sha256),
    }  # fmt: skip


def test_a_release_that_is_not_the_one_expected_never_runs(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    digest = repackage(folder, "site")
    done = model_child.answer(job(folder, digest, tmp_path / "out"))
    assert (done["outcome"], done["sha256"], done["kept"]) == ("analysed", digest, True)
    seen = observation(done["observed"])
    assert (
        json.loads((tmp_path / "out" / "result.json").read_text())["observed"] == done["observed"]
    )
    assert (seen.release_sha256, seen.values["outcome"]) == (digest, "analysed")
    assert {"snr_t2w", "t2w_spacing_mm", "b_values", "likelihood", "gland_ml"} <= set(seen.values)
    model_child._release.cache_clear()
    weights = folder / "localizer.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    done = model_child.answer(job(folder, digest, tmp_path / "tampered"))
    assert (done["outcome"], "SHA-256 differs" in done["message"]) == ("error", True)
    weights.write_bytes(sound)
    done = model_child.answer(job(folder, PACKAGED_SHA256, tmp_path / "other"))
    assert (done["outcome"], "holds release" in done["message"]) == ("error", True)
    assert not list((tmp_path / "tampered").glob("*")) and not (tmp_path / "other").exists()


def test_the_shadow_sees_the_last_study_once_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    digest = repackage(folder, "site")
    asked = job(folder, digest, tmp_path / "out")
    assert model_child.answer(asked)["kept"]
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    done = model_child.answer(shadow(asked, folder, digest))
    assert done["outcome"] == "compared"
    assert done["pair"]["first"]["likelihood"] == done["pair"]["second"]["likelihood"]
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert model_child.answer(shadow(asked, folder, digest)) == {"outcome": "gone"}
    assert model_child.answer({**asked, "keep": False})["kept"] is False
