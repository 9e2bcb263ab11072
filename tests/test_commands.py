"""The command line as the contract fixes it: exit status, errors of one line, JSON alone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicom_node.cli import main
from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.domain.confirmation import SERVICES
from dicom_node.domain.profile import COMPREHENSIVE_3D_SR, SOP_CLASSES
from dicom_node.net.standin import PacsStandIn
from dicom_node.phantom import Role
from dicom_node.store.engine import HEAD
from dicom_node.store.store import Store
from dicom_node.supervisor import lock_data_dir
from tests.net.certificates import Authority
from tests.studies import StudyMaker, cut_pixels, noise

CONTRACT_KEYS = {
    "study_uid", "state", "reason", "message", "case", "gland", "findings", "inputs", "outputs",
    "model", "timings_s",
}  # fmt: skip
MAPS = {"gland", "zones", "lesions", "likelihood", "relevance", "map-t2w", "map-adc", "map-high_b"}


class Shell:
    """Runs `dicom-node` in this process; keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def run(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["dicom-node", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def json(self, *arguments: object) -> Any:
        status, out, err = self.run(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@pytest.fixture
def config(shell: Shell, tmp_path: Path) -> Path:
    """A configuration as `init` writes it."""
    file = tmp_path / "node.toml"
    assert shell.run("init", file)[0] == 0
    return file


def test_init_writes_once_and_every_listing_reads_it(shell: Shell, config: Path) -> None:
    assert "ae_title" in config.read_text()
    status, _, err = shell.run("init", config)
    assert (status, err.count("\n")) == (1, 1)
    assert shell.json("studies", "list", "--config", config) == []
    assert shell.json("peers", "list", "--config", config) == []
    assert shell.json("status", "--config", config)["held"]["studies"] == 0
    status, out, _ = shell.run("doctor", "--config", config, "--json")
    checks = json.loads(out)
    assert status == int(any(check["state"] == "wrong" for check in checks))
    assert all(check["advice"] for check in checks if check["state"] != "ok")


def test_peers_are_added_and_removed(shell: Shell, config: Path) -> None:
    add = ("peers", "add", "pacs", "--ae-title", "PACS", "--host", "127.0.0.1", "--port", "9")
    assert shell.run(*add, "--receives-results", "--config", config)[0] == 0
    (peer,) = shell.json("peers", "list", "--config", config)
    assert (peer["name"], peer["ae_title"], peer["receives_results"]) == ("pacs", "PACS", True)
    assert shell.run(*add, "--config", config)[0] == 1
    assert shell.run("peers", "echo", "pacs", "--config", config)[0] == 1
    assert shell.run("peers", "remove", "pacs", "--config", config)[0] == 0
    assert shell.json("peers", "list", "--config", config) == []


def test_the_audit_trail_is_listed_and_verified(shell: Shell, config: Path) -> None:
    add = ("peers", "add", "pacs", "--ae-title", "PACS", "--host", "127.0.0.1", "--port", "9")
    assert shell.run(*add, "--verify", "query", "--config", config)[0] == 0
    assert shell.json("peers", "list", "--config", config)[0]["verify"] == "query"
    assert shell.run("peers", "remove", "pacs", "--config", config)[0] == 0
    listed = shell.json("audit", "list", "--config", config)
    assert [one["event"] for one in listed] == ["network_configuration"] * 2
    again = shell.json("audit", "list", "--after", "2", "--config", config)
    assert [one["event"] for one in again] == ["audit_log_used"], "reading is recorded"
    told = shell.json("audit", "verify", "--config", config)
    assert (told["whole"], told["records"], told["problem"]) == (True, 4, None)
    noted = f"2:{listed[1]['hash']}"
    assert shell.run("audit", "verify", "--expect", noted, "--config", config)[0] == 0
    other = f"2:{listed[0]['hash']}"
    status, _, err = shell.run("audit", "verify", "--expect", other, "--config", config)
    assert (status, "record 2 is not the one that was noted" in err) == (1, True)
    assert shell.run("audit", "verify", "--expect", "x", "--config", config)[0] == 2


def test_probe_says_and_keeps_what_a_peer_takes(shell: Shell, config: Path, tmp_path: Path) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs", sop_classes=[COMPREHENSIVE_3D_SR]) as pacs:
        add = ("peers", "add", "pacs", "--ae-title", "PACS", "--host", "127.0.0.1")
        assert shell.run(*add, "--port", pacs.port, "--config", config)[0] == 0
        told = shell.json("peers", "probe", "pacs", "--config", config)
        classes = told["classes"]
        assert {one["sop_class_uid"] for one in classes} == {*SOP_CLASSES, *SERVICES}
        taken = [one["name"] for one in classes if one["answer"] == "taken"]
        assert taken == ["Comprehensive 3D SR Storage"]
        assert (told["ok"], told["test_study"]) == (True, None)
        status, out, _ = shell.run("peers", "probe", "pacs", "--config", config)
        assert (status, "not taken" in out) == (0, True)
    node = load_config(config)
    store = Store(node.database_url, clock=SystemClock())
    refused = store.refused_by("pacs", f"PACS@127.0.0.1:{pacs.port}")
    store.close()
    assert refused == set(SOP_CLASSES) - {COMPREHENSIVE_3D_SR}
    status, out, err = shell.run("peers", "probe", "pacs", "--config", config)
    assert (status, "nothing listens" in " ".join(out.split()), err) == (1, True, "")


def test_a_peer_is_edited_where_it_was_made(shell: Shell, config: Path) -> None:
    add = ("peers", "add", "pacs", "--ae-title", "PACS", "--host", "127.0.0.1", "--port", "9")
    assert shell.run(*add, "--from", "10.0.0.1", "--config", config)[0] == 0
    edit = ("peers", "edit", "pacs", "--config", config)
    changed = ("--port", "104", "--receives-results", "--objects", "sr", "--verify", "query")
    assert shell.run(*edit, *changed)[0] == 0
    (peer,) = shell.json("peers", "list", "--config", config)
    assert (peer["port"], peer["receives_results"], peer["objects"]) == (104, True, ["sr"])
    assert (peer["verify"], peer["from"], peer["may_send"]) == ("query", ["10.0.0.1"], True)
    told = shell.json(*edit, "--no-receives-results", "--port", "0", "--from", "", "--objects", "")
    assert (told["port"], told["from"], told["objects"]) == (None, [], [])
    for wrong, words in (
        ((), "nothing to change"), (("--port", "70000"), "port"), (("--from", "x"), "CIDR"),
        (("--receives-results",), "give its port"), (("--tls",), "no certificate"),
    ):  # fmt: skip
        status, _, err = shell.run(*edit, *wrong)
        assert (status, words in err) == (2, True), err
    assert shell.run("peers", "edit", "nobody", "--port", "1", "--config", config)[0] == 1
    text = config.read_text(encoding="utf-8")
    fixed = '[[peers]]\nname = "fixed"\nae_title = "FIXED"\nhost = "10.0.0.7"\n'
    config.write_text(text + fixed, encoding="utf-8")
    status, _, err = shell.run("peers", "edit", "fixed", "--port", "1", "--config", config)
    assert (status, "stands in the configuration file" in err) == (1, True), err


@pytest.mark.parametrize(
    "arguments",
    [
        ("process", "absent", "--out", "out"),
        ("studies", "show", "1.2", "--config", "{config}"),
        ("studies", "retry", "1.2", "--config", "{config}"),
        ("studies", "export", "1.2", "--out", "out", "--config", "{config}"),
        ("peers", "remove", "nobody", "--config", "{config}"),
        ("peers", "echo", "nobody", "--config", "{config}"),
        ("peers", "probe", "nobody", "--config", "{config}"),
    ],
    ids=" ".join,
)
def test_an_error_is_one_line_that_says_what_to_do(
    shell: Shell, config: Path, arguments: tuple[str, ...]
) -> None:
    status, out, err = shell.run(*(one.format(config=config) for one in arguments))
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert ";" in err, "the problem; what to do"


@pytest.mark.parametrize(
    "command", [("status",), ("serve",), ("peers", "list"), ("studies", "list")]
)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "dicom-node init"),
        ("bogus = 1\n", "unknown setting 'bogus'"),
        ("[node]\nport = 99999999\n", "setting 'node.port'"),
        ("[node\n", "not valid TOML"),
    ],
    ids=["absent", "unknown", "wrong", "no-toml"],
)
def test_a_configuration_that_cannot_be_read_is_wrong_use(
    shell: Shell, tmp_path: Path, command: tuple[str, ...], text: str | None, said: str
) -> None:
    file = tmp_path / "node.toml"
    if text is not None:
        file.write_text(text)
    status, out, err = shell.run(*command, "--config", file)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and said in err and ";" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "node-data").exists(), "nothing was begun"


def test_echo_of_a_peer_without_a_port_says_what_to_do(shell: Shell, config: Path) -> None:
    add = ("peers", "add", "scanner", "--ae-title", "MR1", "--host", "127.0.0.1")
    assert shell.run(*add, "--config", config)[0] == 0
    status, _, err = shell.run("peers", "echo", "scanner", "--config", config)
    assert status == 1
    assert "MR1 at 127.0.0.1: the peer has no port; add it again with --port" in err
    assert "None" not in err
    receives = (*add[:2], "pacs", *add[3:], "--receives-results")
    status, _, err = shell.run(*receives, "--config", config)
    assert (status, err.count("\n")) == (2, 1)
    assert "give its port" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[node]\nbind = "0.0.0.0"\n', "plain DICOM can be read on the way; use TLS"),
        ('[node]\nplaintext = "off"\n', "no DICOM port is open"),
        ("[tls]\nenabled = true\n", "set certificate, key and ca"),
        ('[tls]\nenabled = true\ncertificate = "a"\nkey = "b"\nca = "c"\n', "cannot read"),
        (
            '[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "pacs"\ntls = true\n',
            "peer 'pacs' uses TLS: set tls.certificate",
        ),
    ],
    ids=["plain", "no-port", "no-certificate", "no-file", "peer"],
)
def test_a_port_that_may_not_open_is_wrong_use(
    shell: Shell, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    status, out, err = shell.run("serve", "--config", file)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and said in err and ";" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "node-data").exists(), "nothing was begun"


def test_a_peer_with_tls_needs_a_certificate_of_the_node(
    shell: Shell, config: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    own, fingerprint = authority.issue("node", "127.0.0.1"), "sha256:" + "ab" * 32
    add = ("peers", "add", "pacs", "--ae-title", "PACS", "--host", "127.0.0.1", "--port", "9")
    secure = ("--tls", "--certificate", "PACS.example", "--certificate", fingerprint.upper())
    status, _, err = shell.run(*add, *secure, "--config", config)
    assert (status, err.count("\n")) == (2, 1)
    assert "set tls.certificate, tls.key and tls.ca" in err
    files = {"certificate": own.certificate, "key": own.key, "ca": authority.file}
    text = config.read_text()
    for name, file in files.items():
        text = re.sub(rf"^{name} = .*$", f'{name} = "{file}"', text, flags=re.M)
    config.write_text(text)
    assert shell.run(*add, "--certificate", "sha256:12", "--config", config)[0] == 2
    assert shell.run(*add, *secure, "--config", config)[0] == 0
    (peer,) = shell.json("peers", "list", "--config", config)
    assert (peer["tls"], peer["certificate"]) == (True, ["pacs.example", fingerprint])
    status, _, err = shell.run("peers", "echo", "pacs", "--config", config)
    assert (status, err.count("\n")) == (1, 1)
    assert "no TLS connection" in err
    found = {line["name"]: line for line in json.loads(shell.run(
        "doctor", "--config", config, "--json")[1])}  # fmt: skip
    assert found["certificate"]["state"] == found["private key"]["state"] == "ok"
    own.key.chmod(0o644)
    found = {line["name"]: line for line in json.loads(shell.run(
        "doctor", "--config", config, "--json")[1])}  # fmt: skip
    assert found["private key"]["state"] == "wrong"


def test_a_node_is_backed_up_and_brought_back_elsewhere(
    shell: Shell, config: Path, tmp_path: Path
) -> None:
    peer = ("--ae-title", "MR1", "--host", "127.0.0.1")
    assert shell.run("peers", "add", "mr1", *peer, "--config", config)[0] == 0
    told = shell.json("retention", "plan", "--config", config)
    assert (told["enabled"], told["studies"]) == (True, [])
    assert shell.json("retention", "run", "--config", config)["studies"] == 0
    made = shell.json("backup", "--out", tmp_path / "backups", "--images", "--config", config)
    assert Path(made["folder"]).parent == tmp_path / "backups"
    assert made["missing"] == []
    bundle = tmp_path / "bundle.zip"
    assert shell.run("support-bundle", "--out", bundle, "--config", config)[0] == 0
    assert bundle.stat().st_size > 1000
    status, _, err = shell.run("restore", "--from", tmp_path / "backups", "--config", config)
    assert (status, err.strip().splitlines()[-1].startswith("error: ")) == (1, True)
    assert "is not empty" in err
    other = tmp_path / "other" / "node.toml"
    other.parent.mkdir()
    report = shell.json("restore", "--from", tmp_path / "backups", "--config", other)
    assert report["images_absent"] == 0
    (known,) = shell.json("peers", "list", "--config", other)
    assert known["name"] == "mr1"
    assert shell.run("restore", "--from", tmp_path, "--config", other)[0] == 1


@pytest.mark.parametrize("arguments", [("process",), ("nonsense",), ("status", "--nonsense")])
def test_wrong_use_exits_with_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert shell.run(*arguments)[0] == 2


@pytest.mark.parametrize("command", ["serve", "process", "phantom", "doctor", "recover", "status"])
def test_every_command_has_help(shell: Shell, command: str) -> None:
    status, out, _ = shell.run(command, "--help")
    assert status == 0
    assert "--" in out


def test_phantom_writes_the_packaged_study(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("phantom", "--out", tmp_path / "phantom")[0] == 0
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True)
        for path in (tmp_path / "phantom").rglob("*.dcm")
    ]
    assert len({header.StudyInstanceUID for header in headers}) == 1
    assert len({header.SeriesInstanceUID for header in headers}) >= 6


@pytest.mark.slow
def test_process_answers_in_the_shape_of_the_contract(
    shell: Shell, studies: StudyMaker, tmp_path: Path
) -> None:
    studies.write(tmp_path / "in", "process")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    told = shell.json("process", tmp_path / "in", "--out", out, "--maps")
    assert set(told) >= CONTRACT_KEYS
    assert (told["state"], told["reason"], told["skipped_files"]) == ("analysed", None, 1)
    assert set(told["inputs"]) == {"t2w", "adc", "high_b", "dce"}
    assert set(told["timings_s"]) == {"read", "load", "prepare", "infer", "encode"}
    assert [one["rank"] for one in told["findings"]] == list(range(1, len(told["findings"]) + 1))
    assert all(Path(path).is_file() for path in told["outputs"])
    assert {path.name.removesuffix(".nii.gz") for path in out.glob("*.nii.gz")} == MAPS
    first = {path.name: path.read_bytes() for path in out.glob("*.dcm")}
    shell.json("process", tmp_path / "in", "--out", out)
    assert {path.name: path.read_bytes() for path in out.glob("*.dcm")} == first


@pytest.mark.slow
def test_process_writes_the_objects_asked_for(
    shell: Shell, studies: StudyMaker, tmp_path: Path
) -> None:
    studies.write(tmp_path / "in", "objects")
    asked = ("--objects", "sr", "--objects", "pdf", "--objects", "seg-zones")
    out = tmp_path / "out"
    told = shell.json("process", tmp_path / "in", "--out", out, *asked, "--psa", "6.5")
    names = {Path(path).name for path in told["outputs"]}
    assert names == {"sr.dcm", "pdf.dcm", "seg-zones.dcm"}
    assert "15325-4" in {
        str(item.CodeValue)
        for element in pydicom.dcmread(out / "sr.dcm").iterall()
        if element.keyword == "ConceptNameCodeSequence"
        for item in element.value
    }
    status, _, err = shell.run("process", tmp_path / "in", "--out", out, "--psa", "-1")
    assert (status, err.count("\n")) == (1, 1)
    assert shell.run("process", tmp_path / "in", "--out", out, "--objects", "x")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason", "report"),
    [
        ({"roles": frozenset({Role.T2W_AXIAL})}, "no_diffusion", True),
        ({"edit": cut_pixels}, "corrupt_pixel_data", True),
        ({"edit": noise}, "not_prostate", False),
    ],
    ids=["t2w-alone", "corrupt", "no-gland"],
)
def test_process_of_what_cannot_be_analysed_exits_with_0(
    shell: Shell, studies: StudyMaker, tmp_path: Path, options: dict[str, Any], reason: str,
    report: bool,
) -> None:  # fmt: skip
    studies.write(tmp_path / "in", reason, **options)
    told = shell.json("process", tmp_path / "in", "--out", tmp_path / "out")
    assert (told["state"], told["reason"]) == ("not_analysable", reason)
    assert told["message"]
    assert (told["case"], told["gland"], told["findings"]) == (None, None, None)
    assert bool(told["outputs"]) is report


def test_a_part_of_a_node_needs_a_database_to_share(shell: Shell, config: Path) -> None:
    status, _, err = shell.run("serve", "--roles", "worker", "--config", config)
    assert (status, err) == (
        2, "error: a part of a node needs a database that the others share; set node.database\n",
    )  # fmt: skip
    status, _, err = shell.run("serve", "--roles", "workers", "--config", config)
    assert status == 2 and "no such roles" in err


def test_a_database_is_brought_up_to_date_once(shell: Shell, config: Path) -> None:
    status, out, _ = shell.run("migrate", "--config", config)
    assert (status, out) == (0, f"schema {HEAD}, was none\n")
    status, out, _ = shell.run("migrate", "--config", config)
    assert (status, out) == (0, f"schema {HEAD}, nothing to do\n")


def test_a_database_is_not_changed_under_a_node_that_runs(shell: Shell, config: Path) -> None:
    with lock_data_dir(load_config(config).node.data_dir, shared=True):
        status, _, err = shell.run("migrate", "--config", config)
    assert status == 1 and "another node runs" in err
