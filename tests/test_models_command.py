"""`dicom-node models` as the contract wants commands: exit status, one-line errors, JSON alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from ai_core.manifest import PACKAGED_SHA256
from dicom_node import rehearse
from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.domain.drift import Scanner
from dicom_node.rehearse import Rehearsal
from dicom_node.store.observation_rows import Observation, Unobserved
from dicom_node.store.store import Store
from tests.releases import light
from tests.store.life import image
from tests.test_commands import Shell

ORIGIN = {
    "parent": PACKAGED_SHA256, "made_by": "ai-core adapt", "seed": 7, "trained_on": 20,
    "figures": [{"name": "AUROC by case", "cases": "site hold-out", "before": 0.7, "after": 0.8}],
}  # fmt: skip


class Models:
    """Runs `dicom-node models ... --config` in this process."""

    def __init__(self, shell: Shell, config: Path) -> None:
        self._shell, self._config = shell, config

    def run(self, *arguments: object) -> tuple[int, str, str]:
        return self._shell.run("models", *arguments, "--config", self._config)

    def json(self, *arguments: object) -> Any:
        return self._shell.json("models", *arguments, "--config", self._config)

    def status(self) -> Any:
        return self._shell.json("status", "--config", self._config)

    def ok(self, *arguments: object) -> str:
        status, out, err = self.run(*arguments)
        assert status == 0, err
        return out


@pytest.fixture
def models(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Models:
    shell = Shell(capsys, monkeypatch)
    assert shell.run("init", tmp_path / "node.toml")[0] == 0
    return Models(shell, tmp_path / "node.toml")


@pytest.fixture
def site(models: Models, tmp_path: Path) -> Path:
    """A signed release that was adapted to a site; it holds no weights."""
    folder = tmp_path / "site"
    light(folder, "site", json.dumps(ORIGIN).encode())
    models.ok("keys", "make", "physics")
    models.ok("sign", folder, "--key", "physics")
    return folder


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """These releases hold no weights: the rehearsal has tests of its own (test_rehearse.py)."""
    found = Rehearsal(1.0, 40.0, 1, 0.5, 7)
    monkeypatch.setattr(rehearse, "rehearse", lambda _config, _release: found)


def test_the_packaged_release_is_listed_active_and_whole(models: Models) -> None:
    (row,) = models.json("list")
    assert (row["sha256"], row["state"], row["packaged"]) == (PACKAGED_SHA256, "active", True)
    assert row["rules"] == ["default"]
    (row,) = models.json("verify")
    assert (row["signed_by"], row["problem"]) == ("packaged", None)
    assert "Model card" in models.json("show", "packaged")["model_card"]


def test_a_release_is_added_shown_and_verified(models: Models, site: Path) -> None:
    added = models.json("add", site)
    assert (added["state"], added["signed_by"], added["parent"]) == (
        "candidate", "physics", PACKAGED_SHA256,
    )  # fmt: skip
    shown = models.json("show", "site")
    assert shown["origin"]["figures"] == ORIGIN["figures"]
    out = models.ok("show", "site")
    assert "AUROC by case" in out
    assert "0.7" in out and "0.8" in out
    assert models.run("verify", "site")[0] == models.run("verify", site)[0] == 0
    (site / "MODEL_CARD.md").write_text("better than it is")
    status, out, _ = models.run("verify", site, "--json")
    assert (status, "SHA-256 differs" in json.loads(out)[0]["problem"]) == (1, True)
    (key,) = models.json("keys", "list")
    assert (key["name"], key["private_here"]) == ("physics", True)
    models.ok("keys", "distrust", "physics")
    status, out, _ = models.run("verify", "--json")
    problems = [row["problem"] or "" for row in json.loads(out)]
    assert (status, any("not trusted" in problem for problem in problems)) == (1, True)


def test_assign_rules_and_rollback(models: Models, site: Path, passes: None) -> None:
    models.ok("add", site)
    scope = ("--sender", "MR1", "--protocol", "*prostate*")
    told = models.json("assign", *scope, "--release", "site", "--yes")
    assert (told["before"], told["rehearsal"]["phantom findings"]) == (None, "1")
    rules = models.json("rules")
    assert [(rule["sender"], rule["release"] == "site") for rule in rules] == [
        ("MR1", True), ("", False),
    ]  # fmt: skip
    assert "already" in models.run("assign", *scope, "--release", "site", "--yes")[2]
    assert models.json("rollback", *scope)["to"] is None
    models.ok("activate", "site", "--yes")
    assert {row["state"] for row in models.json("list")} == {"active", "retired"}
    assert models.json("rollback")["to"] == PACKAGED_SHA256
    models.ok("assign", *scope, "--release", "site", "--yes")
    models.ok("unassign", *scope)
    assert len(models.json("rules")) == 1
    models.ok("shadow", "site")
    assert models.json("compare", "packaged", "site")["studies"] == 0
    assert "Agreement says nothing" in models.ok("compare", "packaged", "site")
    models.ok("shadow", "--off")
    models.ok("reject", "site")


class Person(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


def test_a_person_decides(
    models: Models, site: Path, passes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.ok("add", site)
    before = models.json("list")
    monkeypatch.setattr("sys.stdin", Person("n\n"))
    status, out, _ = models.run("activate", "site")
    assert status == 1
    assert "phantom gland" in out
    assert "switch to site" in out
    assert models.json("list") == before
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    models.ok("activate", "site")
    assert [row["state"] for row in models.json("list")] == ["retired", "active"]


WRONG_USE = [
    ("activate", "packaged"), ("assign", "--release", "packaged", "--yes"), ("shadow",),
    ("shadow", "packaged", "--off"), ("sign", "absent"), ("keys", "make", "a/b"),
    ("assign", "--sender", "x" * 65, "--release", "packaged", "--yes"),
]  # fmt: skip
FAILURES = [
    ("activate", "absent", "--yes"), ("activate", "packaged", "--yes"), ("add", "absent"),
    ("rollback",), ("rollback", "--sender", "MR1"), ("unassign",), ("unassign", "--sender", "X"),
    ("show", "absent"), ("compare", "packaged", "absent"), ("reject", "packaged"),
    ("shadow", "packaged"), ("sign", "absent", "--key", "absent"), ("verify", "absent"),
    ("keys", "distrust", "absent"), ("keys", "trust", "a", "absent"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG_USE, ids=" ".join)
def test_wrong_use_is_status_2(models: Models, arguments: tuple[str, ...]) -> None:
    status, out, err = models.run(*arguments)
    assert (status, out) == (2, "")
    assert err


@pytest.mark.parametrize("arguments", FAILURES, ids=" ".join)
def test_a_failure_is_status_1_and_one_line(models: Models, arguments: tuple[str, ...]) -> None:
    before = models.json("list")
    status, out, err = models.run(*arguments)
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert "; " in err, "it says what to do"
    assert models.json("list") == before


def test_drift_is_shown_drawn_and_its_reference_restarted(models: Models, tmp_path: Path) -> None:
    assert models.ok("drift") == "no study was observed yet\n"
    config = load_config(tmp_path / "node.toml")
    store = Store(config.database_url, clock=SystemClock())
    for number in range(260):
        store.add_instances([image(f"1.2.{number}", 0, number)])
        seen = Observation(Scanner("NORTH"), {"t2w_spacing_mm": 0.5 if number < 210 else 0.6})
        store.observe(Unobserved(0, f"1.2.{number}", 1, "", number), seen)
    store.close()
    (found,) = models.json("drift", "--plot", tmp_path / "north.png")
    assert (found["state"], found["alarms"]) == ("alarm", ["t2w_spacing_mm"])
    assert found["scanner"]["station"] == "NORTH"
    assert Path(found["plot"]).stat().st_size > 10_000
    assert "ALARM" in models.ok("drift", "--station", "NORTH")
    store = Store(config.database_url, clock=SystemClock())
    store.set_alarms(store.scanners()[0], {"t2w_spacing_mm"})
    store.close()
    assert "t2w_spacing_mm" in models.status()["drift"]["NORTH"]
    assert models.run("drift", "--station", "SOUTH")[0] == 2
    assert models.run("drift", "--restart")[0] == 2
    (found,) = models.json("drift", "--station", "NORTH", "--restart")
    assert (found["state"], found["alarms"]) == ("collecting", [])
