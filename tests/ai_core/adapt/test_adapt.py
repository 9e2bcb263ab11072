"""`ai-core adapt` from studies to a release, or to a refusal."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ai_core.adapt import run as run_module
from ai_core.adapt.gate import GateRefused
from ai_core.adapt.run import Request, adapt
from ai_core.errors import InputError
from ai_core.manifest import verify_files
from ai_core.origin import case_digest
from ai_core.release import load_release
from tests.ai_core.adapt.conftest import SHUT, short_plan


def _content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def accepted(
    parent: Path, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of an adaptation that passed its gate, and its report."""
    around = tmp_path_factory.mktemp("around")
    before = (_content(site), _content(parent))
    report = adapt(Request(parent, site, around / "out", short_plan(), "cpu", "hospital"))
    assert (_content(site), _content(parent)) == before
    assert [path.name for path in around.iterdir()] == ["out"]  # nothing is written beside it
    return around / "out", report


@pytest.mark.slow
def test_an_adapted_release_loads_and_names_its_parent(
    accepted: tuple[Path, dict[str, Any]], parent: Path
) -> None:
    out, report = accepted
    assert report["state"] == "accepted"
    release = load_release(out / "release", "cpu", sha256=report["sha256"])
    assert (release.info.name, release.config.version) == ("hospital", "0.0.1+4")
    assert release.profile is not None
    assert release.profile.studies == 4  # what is locked away tells the profile nothing
    origin = verify_files(out / "release").origin
    assert origin is not None
    assert origin.parent == load_release(parent, "cpu").info.sha256
    assert (origin.made_by, origin.trained_on) == ("ai-core adapt", 4)
    assert [figure.cases for figure in origin.figures][:2] == ["site hold-out (4)"] * 2
    card = (out / "release" / "MODEL_CARD.md").read_text()
    assert "site hold-out (4)" in card
    assert "index, not a probability" in card  # four cases make no probability


@pytest.mark.slow
def test_nothing_of_a_patient_stands_in_the_release(
    accepted: tuple[Path, dict[str, Any]], site: Path
) -> None:
    out, _ = accepted
    names = {path.name.rsplit("_", 1)[0] for path in site.rglob("*_t2w.mha")}
    for path in (out / "release").iterdir():
        content = path.read_bytes()
        assert not any(part.encode() in content for name in names for part in name.split("_"))
    key = bytes.fromhex((out / "site.key").read_text())
    assert (out / "site.key").stat().st_mode & 0o077 == 0
    roles = json.loads((out / "roles.json").read_text())
    fitted = {case_digest(n, key) for n in names if roles[n.split("_")[0]] != "holdout"}
    origin = verify_files(out / "release").origin
    assert origin is not None
    assert set(origin.cases) == fitted


@pytest.mark.slow
def test_a_finished_adaptation_stays_as_it_is(
    accepted: tuple[Path, dict[str, Any]], parent: Path, site: Path
) -> None:
    out, report = accepted
    (out / "release" / "signature.json").write_text("{}")
    before = _content(out)
    again = adapt(Request(parent, site, out, short_plan(), "cpu", "hospital"))
    assert again["sha256"] == report["sha256"]
    assert _content(out) == before
    (out / "release" / "signature.json").unlink()
    with pytest.raises(InputError, match="another plan"):
        adapt(Request(parent, site, out, short_plan(steps=3), "cpu"))


class _Stopped(Exception):
    pass


@pytest.mark.slow
def test_an_adaptation_that_was_stopped_goes_on_to_the_same_release(
    accepted: tuple[Path, dict[str, Any]], parent: Path, site: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    done, _ = accepted
    shutil.copytree(done, tmp_path / "out")
    for name in ("release", "work"):
        shutil.rmtree(tmp_path / "out" / name)

    def stop(*_: object) -> None:
        raise _Stopped

    request = Request(parent, site, tmp_path / "out", short_plan(), "cpu", "hospital")
    with monkeypatch.context() as patched, pytest.raises(_Stopped):
        patched.setattr(run_module, "write_site_release", stop)
        adapt(request)
    prepared = _content(tmp_path / "out" / "cases")
    adapt(request)
    (tmp_path / "out" / "report.json").unlink()  # stopped after the release, before its report
    assert adapt(request)["state"] == "accepted"
    assert _content(tmp_path / "out" / "cases") == prepared
    names = ("localizer.safetensors", "classifier.safetensors", "site_profile.json", "origin.json")
    for name in names:
        first, second = (folder / "release" / name for folder in (done, tmp_path / "out"))
        assert first.read_bytes() == second.read_bytes(), name


@pytest.mark.slow
def test_a_refused_adaptation_makes_no_release_and_says_why(
    accepted: tuple[Path, dict[str, Any]], parent: Path, site: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(accepted[0], out)
    for name in ("release", "run.json", "report.json"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(GateRefused, match="AUROC by case on the site hold-out"):
        adapt(Request(parent, site, out, short_plan(SHUT), "cpu"))
    assert not (out / "release").exists()
    report = json.loads((out / "report.json").read_text())
    assert report["state"] == "refused"
    assert [check["passed"] for check in report["checks"]] == [False, True, True]


@pytest.mark.slow
def test_too_few_annotations_give_the_list_alone(parent: Path, site: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(site, data)
    for name in ("PATIENT0_STUDY0", "PATIENT1_STUDY1"):
        (data / "human_expert" / f"{name}.nii.gz").unlink()
    report = adapt(Request(parent, data, tmp_path / "out", short_plan(), "cpu"))
    assert report["state"] == "annotate"
    assert (report["studies"], report["annotated"]) == (6, 6)
    # The untrained finder sees no prostate in what nobody drew.
    assert set(report["left_out"]) == {"PATIENT0_STUDY0", "PATIENT1_STUDY1"}
    assert not (tmp_path / "out" / "release").exists()
