"""Adaptations that are killed, or that the disk refuses: nothing is lost, and nothing is harmed."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ai_core.adapt.run import Request, adapt
from ai_core.errors import CoreError
from ai_core.manifest import MANIFEST, verify_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PLAN = """
workers = 0
simulated_cases = 4
profile = { fewest_studies = 2 }
[finetune]
check_every = 1
patience = 5
phase = { steps = 2, learning_rate = 1e-3, frozen_norm_from = 0.0, max_minutes = 5 }
[gate]
site_loss = 1
site_bound = 1
site_log_loss = 9
general_loss = 1
general_bound = 1
repeats = 50
"""
KEY = "ab" * 32
Live = Callable[..., int]


@pytest.fixture(scope="module")
def live(parent: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Run `ai-core adapt` once in a folder; returns the exit status, negative for a signal."""
    file = tmp_path_factory.mktemp("plan") / "plan.toml"
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.ai_core.adapt.lives"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdin is not None
    assert program.stdout is not None

    def run(out: Path, plan: str = PLAN, **how: int) -> int:
        out.mkdir(exist_ok=True)
        file.write_text(plan, encoding="utf-8")
        (out / "site.key").write_text(KEY)  # the same names of cases: releases can be compared
        words = {"release": parent, "data": site, "out": out, "plan": file, "device": "cpu"}
        argv = ["ai-core", "adapt", *(str(w) for n, v in words.items() for w in (f"--{n}", v))]
        order = {"argv": argv, "log": str(log_of(out)), **how}
        print(json.dumps(order), file=program.stdin, flush=True)
        return int(program.stdout.readline())

    yield run
    program.stdin.close()
    program.stdout.close()
    program.wait(600)


def log_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def content_of(folder: Path) -> dict[str, str]:
    """Digest of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adaptation that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert live(out) == 0, log_of(out).read_text()
    return out


def digest_of(out: Path) -> str:
    return hashlib.sha256((out / "release" / MANIFEST).read_bytes()).hexdigest()


def begun(undisturbed: Path, out: Path) -> Path:
    """An adaptation that was stopped early: two studies and an anatomy are still to be prepared."""
    for name in ("cases", "simulated"):
        shutil.copytree(undisturbed / name, out / name)
    for path in [*out.glob("cases/PATIENT[01]_*"), out / "simulated" / "anatomy-000003.npz"]:
        path.unlink()
    return out


def test_an_adaptation_killed_again_and_again_ends_with_the_same_release(
    live: Live, undisturbed: Path, parent: Path, site: Path, tmp_path: Path
) -> None:
    before = content_of(parent), content_of(site)
    out, status, lives = begun(undisturbed, tmp_path / "out"), -int(signal.SIGKILL), 0
    while status == -signal.SIGKILL:
        lives += 1
        status = live(out, kill_at=3 * lives)
        if (out / "release").exists():  # it is there whole, or not at all
            verify_files(out / "release")
    assert status == 0, log_of(out).read_text()
    assert lives > 3, "it was killed in several parts of its work"
    assert digest_of(out) == digest_of(undisturbed)
    assert (content_of(parent), content_of(site)) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.log"}


def test_a_full_disk_ends_it_with_a_sentence_and_it_goes_on_when_there_is_room(
    live: Live, undisturbed: Path, parent: Path, site: Path, tmp_path: Path
) -> None:
    """A file that may not grow is refused as on a full disk: by the system, half written."""
    before = content_of(parent), content_of(site)
    early = begun(undisturbed, tmp_path / "early")
    done = shutil.copytree(undisturbed, tmp_path / "done")
    shutil.rmtree(done / "release")
    (done / "report.json").unlink()
    # While studies are prepared, while networks are trained, while the release is written.
    for out, largest in ((early, 20_000), (early, 1_000_000), (done, 100_000)):
        assert live(out, largest=largest) == 1
        told = log_of(out).read_text().splitlines()[-1]
        assert told.startswith("error: [Errno 27]"), told
        assert told.endswith("Check the path, its rights and the disk.")
        assert not (out / "release").exists()
    assert (early / "work" / "finetune").is_dir()
    for out in (early, done):
        assert live(out) == 0, log_of(out).read_text()
        assert digest_of(out) == digest_of(undisturbed)
    assert (content_of(parent), content_of(site)) == before
    assert {path.stem for path in tmp_path.iterdir()} == {"early", "done"}


def test_a_refusal_is_status_1_with_the_figures_and_leaves_no_release(
    live: Live, undisturbed: Path, parent: Path, site: Path, tmp_path: Path
) -> None:
    before = content_of(parent), content_of(site)
    out = shutil.copytree(undisturbed, tmp_path / "out")
    shutil.rmtree(out / "release")
    for name in ("run.json", "report.json"):
        (out / name).unlink()
    assert live(out, plan=PLAN.replace("site_loss = 1", "site_loss = -0.5")) == 1
    told = log_of(out).read_text().splitlines()[-1]
    assert told.startswith("error: the adapted release is refused; AUROC by case on the site")
    assert "The release in use stays as it is." in told
    assert not (out / "release").exists()
    assert json.loads((out / "report.json").read_text())["state"] == "refused"
    assert (content_of(parent), content_of(site)) == before


def test_a_wrong_path_claims_no_folder(parent: Path, site: Path, tmp_path: Path) -> None:
    wrong = [
        Request(tmp_path / "absent", site, tmp_path / "out"),
        Request(parent, tmp_path / "absent", tmp_path / "out"),
        Request(parent, site, tmp_path / "out", roles=tmp_path / "absent"),
    ]
    for request in wrong:
        with pytest.raises(CoreError, match="absent"):
            adapt(request)
    assert not list(tmp_path.iterdir())
