"""What stands in `deploy/` is linted, names commands and settings that exist, and fits together.

No container engine and no cluster is needed, and none is used: images are not built here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from sqlalchemy import text

from dicom_node.cli import app
from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig, Plaintext, load_config
from dicom_node.net.listening import listeners
from dicom_node.web.listening import check_listening
from tests.conftest import ROOT
from tests.databases import open_store

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes" / "base"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PARTS = {"receiver", "worker", "delivery", "web"}
KUBERNETES_VERSION = "1.31"
MOST_EXPOSED = 20
"""Of `systemd-analyze security`, in tenths: 0 is confined, 100 is not at all."""
RESTRICTED = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}  # fmt: skip


def run(program: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a linter that stands beside this Python, or on the path."""
    beside = Path(sys.executable).parent / program
    command = [str(beside) if beside.exists() else program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def documents(file: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]


def manifests() -> list[dict[str, Any]]:
    """Everything that the kustomization applies."""
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    return [one for name in kustomization["resources"] for one in documents(KUBERNETES / name)]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod of everything that runs in the cluster."""
    for one in manifests():
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def compose() -> dict[str, Any]:
    return documents(DEPLOY / "compose.yaml")[0]


# configurations


def test_the_sample_configuration_is_valid() -> None:
    config = load_config(DEPLOY / "sample.toml")
    assert [peer.name for peer in config.peers] == ["pacs"]
    assert config.peers[0].receives_results
    assert config.peers[0].tls and config.tls.enabled
    assert config.node.plaintext is Plaintext.OFF


@pytest.mark.parametrize("file", [DEPLOY / "box.toml", KUBERNETES / "node.toml"], ids=str)
def test_the_configurations_of_containers_open_their_ports(file: Path) -> None:
    config = load_config(file)
    assert listeners(config)
    check_listening(config)
    assert str(config.node.data_dir) == "/var/lib/prostate-node"
    assert config.shared == (file.parent == KUBERNETES)


# linters


def test_the_container_file_is_linted() -> None:
    found = run("hadolint", DEPLOY / "Containerfile")
    assert (found.returncode, found.stdout) == (0, ""), found.stdout + found.stderr


def test_the_container_file_has_the_versions_of_the_tests() -> None:
    told = (DEPLOY / "Containerfile").read_text()
    (pinned,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert set(re.findall(r"torch==([0-9.]+)", told)) == {pinned}
    assert "USER 10001" in told
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", told, re.M):
        for name in source.split():
            assert (ROOT / name).exists() and f"!{name}" in ignored


def test_the_compose_file_follows_its_specification() -> None:
    found = run(
        "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"
    )
    assert found.returncode == 0, found.stdout


def test_the_yaml_is_linted() -> None:
    found = run("yamllint", "--strict", "-c", DEPLOY / ".yamllint.yaml", DEPLOY)
    assert found.returncode == 0, found.stdout


def test_the_manifests_follow_the_schemas_of_kubernetes() -> None:
    files = sorted(KUBERNETES.glob("*.yaml"))
    found = run("kubernetes-validate", "--strict", "-k", KUBERNETES_VERSION, *files)
    assert found.returncode == 0, found.stdout + found.stderr
    unknown = set(re.findall(r"find schema for kind (\w+)", found.stdout + found.stderr))
    assert unknown <= {"Kustomization", "ScaledObject", "TriggerAuthentication"}


@pytest.fixture
def analyse() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        if os.environ.get("INTEROP_REQUIRED") == "1":
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed")
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_the_units_are_linted_and_confined(unit: Path, analyse: str, tmp_path: Path) -> None:
    # its program is not installed here: the unit is read with one that is
    name = unit.name.replace("@.", "@worker.")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/prostate-node/bin/dicom-node", "/bin/true"))
    (tmp_path / name).exists() or (tmp_path / name).symlink_to(copy)
    found = run(analyse, "verify", "--man=no", tmp_path / name)
    told = [line for line in found.stderr.splitlines() if unit.stem.rstrip("@") in line]
    assert (found.returncode, told) == (0, []), found.stderr
    judged = run(
        analyse, "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}",
        tmp_path / name,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout[-400:]


# commands


def commands() -> list[tuple[str, list[str]]]:
    """Where `dicom-node` is started in these files, and with what."""
    found = []
    for unit in UNITS:
        joined = unit.read_text().replace("\\\n", " ")
        (line,) = re.findall(r"^ExecStart=\S*/dicom-node (.+)$", joined, re.M)
        found.append((unit.name, shlex.split(line.replace("%i", "worker").replace("%H", "host"))))
    for name, pod in pods():
        if pod["containers"][0]["image"] == "prostate-node":
            found.append((name, pod["containers"][0]["args"]))
    (line,) = re.findall(r"^CMD (\[.+\])$", (DEPLOY / "Containerfile").read_text(), re.M)
    found.append(("Containerfile", json.loads(line)))
    pages = [*DEPLOY.rglob("*.yaml"), *UNITS, ROOT / "docs" / "deployment.md"]
    for page in pages:
        told = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"(?:^|[ /`(])dicom-node ((?:[a-z]+ ?)[^`\n|]*)", told):
            words = shlex.split(line.split("#")[0].replace("%i", "worker"))
            if words and words[0] in known().commands:
                found.append((page.name, words))
    return found


def known() -> Any:
    """The command line, as Typer makes it."""
    return typer.main.get_command(app)


@pytest.mark.parametrize(("where", "words"), commands(), ids=lambda value: str(value)[:60])
def test_the_commands_exist_with_their_options(where: str, words: list[str]) -> None:
    command = known()
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{where}: {words}"
        command, words = command.commands[words[0]], words[1:]
    options = {name for one in command.params for name in one.opts}
    assert {word for word in words if word.startswith("--")} <= options, where


def test_the_parts_of_the_cluster_are_those_of_the_node() -> None:
    roles = {
        pod["containers"][0]["args"][-1] for _, pod in pods()
        if pod["containers"][0].get("args", [""])[0] == "serve"
    }  # fmt: skip
    assert roles == PARTS
    assert {one["metadata"]["name"] for one in manifests() if one["kind"] == "Job"} == {"migrate"}


# the cluster fits together


@pytest.mark.parametrize(("name", "pod"), [*pods()], ids=lambda value: str(value)[:20])
def test_the_pods_are_confined_and_find_what_they_name(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    claims = {one["metadata"]["name"] for one in manifests()
              if one["kind"] == "PersistentVolumeClaim"}  # fmt: skip
    for volume in pod["volumes"]:
        assert volume.get("persistentVolumeClaim", {"claimName": "spool"})["claimName"] in claims
        assert volume.get("configMap", {"name": "node"}) == {"name": "node"}
    (container,) = pod["containers"]
    assert container["securityContext"] == RESTRICTED
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
    secrets = [one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"]
               if "valueFrom" in one]  # fmt: skip
    assert secrets == ["database"], f"{name} needs the password of the database"


def test_the_probes_ask_for_what_the_console_answers() -> None:
    (web,) = [pod["containers"][0] for name, pod in pods() if name == "web"]
    paths = {web[probe]["httpGet"]["path"] for probe in
             ("startupProbe", "livenessProbe", "readinessProbe")}  # fmt: skip
    # not ready: where a part is missing, the console is where people see it
    assert paths == {"/health/live"}
    source = (ROOT / "dicom_node" / "web" / "readiness.py").read_text()
    assert all(f'"{path}"' in source for path in paths)
    assert "/health/ready" in str(compose()["services"]["node"]["healthcheck"])


def test_network_policies_name_pods_that_there_are() -> None:
    names = {name for name, _ in pods()}
    policies = [one for one in manifests() if one["kind"] == "NetworkPolicy"]
    told = json.dumps(policies)
    for values in re.findall(r'"values": \[([^\]]*)\]', told):
        assert set(re.findall(r'"([^"]+)"', values)) <= names
    assert set(re.findall(r'"app.kubernetes.io/name": "([^"]+)"', told)) <= names
    (closed,) = [one["spec"] for one in policies if one["spec"]["podSelector"] == {}]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_length_of_the_queue_can_be_asked_for(tmp_path: Path) -> None:
    (scaled,) = [one for one in manifests() if one["kind"] == "ScaledObject"]
    (trigger,) = scaled["spec"]["triggers"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == "worker"
    config = NodeConfig.model_validate(
        {"node": {"database": load_config(KUBERNETES / "node.toml").node.database}}
    )
    assert f"{trigger['metadata']['userName']}@postgresql/" in config.database_url
    store = open_store(f"sqlite:///{tmp_path}/n.sqlite3", ManualClock())
    with store._read() as db:
        assert db.execute(text(trigger["metadata"]["query"])).scalar_one() == 0
    store.close()


# the hospital in a box fits together


def test_the_box_mounts_files_that_there_are() -> None:
    for service in compose()["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).is_file(), source
        assert ":" in service["image"], "a version of one's own choosing"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_orthanc_and_the_node_know_each_other() -> None:
    orthanc = json.loads((DEPLOY / "orthanc" / "orthanc.json").read_text())
    config = load_config(DEPLOY / "box.toml")
    (peer,) = config.peers
    assert (peer.ae_title, peer.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    assert peer.host in compose()["services"]
    node = orthanc["DicomModalities"]["prostate-node"]
    assert (node["AET"], node["Port"]) == (config.node.ae_title, config.node.port)
    assert node["Host"] in compose()["services"]
    script = (DEPLOY / "orthanc" / "route.lua").read_text()
    assert "'prostate-node'" in script and f"'{config.node.ae_title}'" in script
