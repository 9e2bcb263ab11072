"""A release from candidate to active and back, on a running node that is never restarted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from ai_core.manifest import PACKAGED_SHA256
from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.flow.outbox import results_folder
from dicom_node.net.standin import PacsStandIn
from dicom_node.store.store import Store
from tests.releases import repackage
from tests.running import NodeUnderTest, wait_until
from tests.studies import study_uid
from tests.test_commands import Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MakeStudy = Callable[..., list[Path]]
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


class Administrator:
    """Runs `dicom-node models` on the configuration of a running node, in this process."""

    def __init__(self, shell: Shell, node: NodeUnderTest) -> None:
        self._shell, self._node = shell, node

    def run(self, *arguments: object) -> tuple[int, str, str]:
        return self._shell.run("models", *arguments, "--config", self._node.config_file)

    def ok(self, *arguments: object) -> None:
        status, _, err = self.run(*arguments)
        assert status == 0, err

    def json(self, *arguments: object) -> Any:
        return self._shell.json("models", *arguments, "--config", self._node.config_file)


def _analyse(
    node: NodeUnderTest, pacs: PacsStandIn, models: Administrator, files: list[Path]
) -> str:
    """Send a study; returns the digest that every result of it names, and no other."""
    pacs.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
    uid = study_uid(files)
    row = node.wait_for(uid, {"delivered", "failed", "held"}, 240)
    assert row["state"] == "delivered"
    ours = {result["sop_instance_uid"] for result in row["results"]}
    filed = [item for item in pacs.filed(uid) if item.sop_instance_uid in ours]
    assert {item.sop_class_uid for item in filed} >= {SEG, SR}
    known = {PACKAGED_SHA256, *(row["sha256"] for row in models.json("list"))}
    named = set()
    for item in filed:
        if item.sop_class_uid in (SEG, SR):
            text = pydicom.dcmread(item.path).to_json()
            (digest,) = (one for one in known if one in text)
            named.add(digest)
    folder = node.data_dir / results_folder(uid, row["revision"])
    told = json.loads((folder / "result.json").read_bytes())
    assert named == {told["model"]["sha256"]}
    return named.pop()


def _shadowed(
    node: NodeUnderTest, models: Administrator, other: str, key: str
) -> dict[str, object]:
    """Wait for a shadow run; returns the comparison."""

    digests = {row["name"]: row["sha256"] for row in models.json("list")}
    store = Store(load_config(node.config_file).database_url, clock=SystemClock())
    try:
        wait_until(lambda: store.shadow_list(PACKAGED_SHA256, digests[other]), 180, "a shadow run")
    finally:
        store.close()
    done: dict[str, object] = models.json("compare", "packaged", other)
    assert done[key], "on a slow machine a study can have two revisions"
    return done


def test_add_shadow_compare_activate_and_roll_back(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    models = Administrator(Shell(capsys, monkeypatch), node)
    models.ok("keys", "make", "site")
    twin, broken, unsigned = (tmp_path / name for name in ("twin", "broken", "unsigned"))
    digest = repackage(twin, "twin")
    repackage(broken, "broken", significance=b"{}")
    repackage(unsigned, "unsigned")
    for folder in (twin, broken):
        models.ok("sign", folder, "--key", "site")
        models.ok("add", folder)
    status, _, err = models.run("add", unsigned)
    assert (status, "is not signed" in err) == (1, True)
    models.ok("verify")

    models.ok("shadow", "twin")
    assert _analyse(node, pacs, models, make_study("shadowed")) == PACKAGED_SHA256
    told = _shadowed(node, models, "twin", "studies")
    assert (told["agreement"], told["mean_difference"]) == (1.0, 0.0), "the same weights"
    assert (told["median_dice_gland"], told["failed"]) == (1.0, 0)

    before = models.json("rules")
    status, _, err = models.run("activate", "broken", "--yes")
    assert (status, "significance.json" in err) == (1, True)
    assert models.json("rules") == before, "a failed activation changes nothing"
    models.ok("activate", "twin", "--yes")
    assert _analyse(node, pacs, models, make_study("adapted")) == digest

    models.ok("rollback")
    models.ok("shadow", "broken")
    assert _analyse(node, pacs, models, make_study("rolled-back")) == PACKAGED_SHA256
    told = _shadowed(node, models, "broken", "failed")
    assert told["studies"] == 0, "a release that fails in the shadow touches no study"
    states = {row["name"]: row["state"] for row in models.json("list")}
    assert (states["twin"], states["broken"]) == ("retired", "shadow")

    trail = [row["event"] for row in node.json("audit", "list")]
    assert trail.count("model_changed") == 7
    assert node.json("audit", "verify")["whole"]
    database = (node.data_dir / "node.sqlite3").read_bytes()
    assert b"TEST-shadowed" in database, "the patient is known to the node"
    for path in (node.data_dir / "releases").rglob("*"):
        assert path.is_dir() or b"TEST-" not in path.read_bytes()
