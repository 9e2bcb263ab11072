"""`alarms`, `canary`, and what `status` and `doctor` say of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dicom_node.cli import app
from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.doctor_monitoring import monitoring
from dicom_node.domain.alarm import AlarmCode, Limits, Raised
from dicom_node.domain.canary import STUDY_ROOT, Judgement, RunState
from dicom_node.domain.roles import NEEDED, ProcessRow
from dicom_node.errors import WrongUseError
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.webhook import Hook

Run = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "node.toml"


@pytest.fixture
def run(file: Path) -> Run:
    file.write_text("")

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(file)])

    return command


@pytest.fixture
def store(file: Path, run: Run) -> Iterator[Store]:
    config = load_config(file)
    config.node.data_dir.mkdir()
    made = open_store(config.database_url, SystemClock())
    yield made
    made.close()


def hooked(file: Path, hook: Hook, more: str = "") -> None:
    secret = file.with_name("secret")
    secret.write_text("x")
    secret.chmod(0o600)
    file.write_text(f'[alarms]\nwebhook_url = "{hook.url}"\nwebhook_secret_file = "secret"\n{more}')


def checks(file: Path) -> dict[str, tuple[str, str]]:
    """What the doctor says of it, without its other checks: one of them loads the model."""
    return {
        name: (state, told + advice) for name, state, told, advice in monitoring(load_config(file))
    }


def test_a_test_message_goes_to_each_channel_and_says_what_is_wrong(run: Run, file: Path) -> None:
    with Hook() as hook:
        hooked(file, hook)
        taken = run("alarms", "test", "--json")
        hook.status = 404
        refused = run("alarms", "test", "--json")
    assert (taken.exit_code, refused.exit_code) == (0, 1)
    assert json.loads(taken.stdout) == [{"channel": "webhook", "taken": True, "problem": None}]
    assert "answered 404" in json.loads(refused.stdout)[0]["problem"]
    told: list[dict[str, Any]] = [json.loads(body) for _, body in hook.posted]
    assert {one["event"] for one in told} == {"test"}


def test_without_a_channel_there_is_nothing_to_test(run: Run) -> None:
    result = run("alarms", "test")
    assert isinstance(result.exception, WrongUseError)
    assert result.exception.exit_status == 2


def test_alarms_and_canaries_are_listed(run: Run, store: Store) -> None:
    store.alarms_turn([Raised(AlarmCode.DISK_LOW, "", "1 GiB free")], Limits(), (), lambda _: "")
    lost = store.canary_begin(STUDY_ROOT + "1", scheduled=False)
    store.canary_end(lost, Judgement(RunState.FAILED, "no worker took it"))
    (alarm,) = json.loads(run("alarms", "list", "--going-on", "--json").stdout)
    assert (alarm["code"], alarm["found"], alarm["ended_at"]) == ("disk_low", "1 GiB free", None)
    (canary,) = json.loads(run("canary", "list", "--json").stdout)
    assert (canary["state"], canary["message"]) == ("failed", "no worker took it")
    assert "1 GiB free" in run("alarms", "list").stdout
    assert "no worker took it" in run("canary", "list").stdout
    status = json.loads(run("status", "--json").stdout)
    assert [one["code"] for one in status["alarms"]] == ["disk_low"]
    assert "the disk runs full" in run("status").stdout


def test_the_doctor_looks_at_what_watches(store: Store, file: Path) -> None:
    found = checks(file)
    assert found["processes"] == ("note", "none is seenstart the node: dicom-node serve")
    assert found["alarms"][0] == "note" and found["canary"][0] == "note"
    now_s = SystemClock().now_s()
    for role in NEEDED[:2]:
        store.process_beat(ProcessRow(role, role, "", 1, "1", now_s, now_s))
    with Hook() as hook:
        hooked(file, hook, '[canary]\nto = "pacs"\n')
        found = checks(file)
        assert found["processes"] == (
            "wrong", "1 receiver, 1 workerno delivery is seen: see its log",
        )  # fmt: skip
        assert found["alarms"][0] == "ok"
        assert found["canary"][0] == "wrong" and "pacs receives no results" in found["canary"][1]
        file.with_name("secret").chmod(0o644)
        assert checks(file)["alarms"][0] == "wrong"
        file.with_name("secret").unlink()
        assert "cannot read" in checks(file)["alarms"][1]
