"""The statement of a configuration: structure, ports, peers, secrets, the command."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.cli import app
from dicom_node.config import (
    NodeConfig,
    NodeSection,
    PeerConfig,
    Plaintext,
    TlsSection,
    WebSection,
)
from dicom_node.conformance.document import Document, Table
from dicom_node.conformance.network import listeners
from dicom_node.conformance.statement import statement
from dicom_node.net.limits import SenderLimits, ServerLimits
from dicom_node.net.sender import Address, echo
from tests.conftest import ROOT
from tests.net.conftest import OpenPortWith


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["conformance", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_chapters_and_annexes_are_those_of_the_standard(document: Document) -> None:
    chapters = [part.heading for part in document.sections if part.depth == 0]
    assert chapters == [
        "1 Overview", "2 Table of contents", "3 Introduction", "4 Implementation model",
        "5 Service and interoperability description", "6 Configuration",
        "7 Network and media communication details", "8 Security",
        "Annex A.A Information object definitions",
        "Annex A.B Structured report content encoding", "Annex A.C Security details",
        "Annex A.D Mapping of attributes", "Annex A.E Code set usage",
        "Annex A.F IHE integration",
    ]  # fmt: skip
    for heading in chapters:
        assert f"## {heading}" in document.markdown()


def test_the_page_is_the_statement_of_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: Document
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DICOM_NODE_CONFIG", raising=False)
    assert run() == (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert json.loads(run("--json")) == document.as_dict()
    assert list(tmp_path.iterdir()) == []


def test_every_bound_is_stated_with_its_value_and_meaning(document: Document) -> None:
    rows = {(row["side"], row["name"]): row for row in document.table("bounds").as_dicts()}
    for side, limits in (("acceptor", ServerLimits()), ("requestor", SenderLimits())):
        for entry in fields(limits):
            row = rows.pop((side, entry.name))
            assert row["value"] == getattr(limits, entry.name)
            assert row["meaning"]
    assert rows == {}


def test_ports_follow_the_configuration() -> None:
    config = NodeConfig(
        node=NodeSection(ae_title="HERE", bind="10.0.0.9", port=104),
        web=WebSection(port=8080),
    )
    document = statement(config)
    rows = document.table("firewall").as_dicts()
    assert [row["to"] for row in rows] == ["10.0.0.9:104", "127.0.0.1:8080"]
    assert {row["direction"] for row in rows} == {"in"}
    closed = config.model_copy(update={"web": WebSection(enabled=False)})
    rows = statement(closed).table("firewall").as_dicts()
    assert [row["to"] for row in rows] == ["10.0.0.9:104"]
    assert document.table("ae_titles").as_dicts()[0]["AE title"] == "HERE"


def test_tls_is_stated_as_configured() -> None:
    files = {"certificate": "/x/node.pem", "key": "/x/node.key", "ca": "/x/ca.pem"}
    config = NodeConfig(
        node=NodeSection(bind="10.0.0.9", plaintext=Plaintext.OFF),
        tls=TlsSection(enabled=True, port=2762, **files),
        web=WebSection(enabled=False),
    )
    peer = PeerConfig(
        name="pacs", ae_title="PACS", host="10.0.0.5", port=2762, receives_results=True, tls=True
    )
    document = statement(config, [peer])
    rows = document.table("firewall").as_dicts()
    assert [(row["to"], row["protocol"]) for row in rows] == [
        ("10.0.0.9:2762", "DICOM over TLS/TCP"), ("10.0.0.5:2762", "DICOM over TLS/TCP"),
    ]  # fmt: skip
    assert document.table("ae_titles").as_dicts()[0]["address"] == "10.0.0.9:2762 (TLS)"
    kinds = {row["kind"]: row["support"] for row in document.table("security_profiles").as_dicts()}
    transport = kinds["Secure transport connection"]
    assert transport.endswith("in this configuration: TLS on 10.0.0.9:2762")
    assert "/x/" not in document.markdown()


def test_every_setting_that_is_a_port_is_on_the_firewall_sheet() -> None:
    config = NodeConfig()
    with_port = {
        name
        for name in NodeConfig.model_fields
        if name not in ("peers", "canary") and "port" in type(getattr(config, name)).model_fields
    }
    assert {listener.section for listener in listeners(config)} == with_port
    assert {"node", "web"} <= with_port


def test_the_port_of_the_sheet_answers(open_port: OpenPortWith) -> None:
    port = open_port().port
    rows = statement(NodeConfig(node=NodeSection(port=port))).table("firewall").as_dicts()
    host, _, number = rows[0]["to"].partition(":")
    assert echo(Address("PROSTATE_AI", host, int(number)), calling_ae="PACS").ok


def test_peers_stand_on_the_sheet_in_both_directions() -> None:
    peers = (
        PeerConfig.model_validate(
            {"name": "pacs", "ae_title": "PACS", "host": "10.1.0.5", "port": 4242,
             "receives_results": True, "from": ["10.1.0.0/24"]}
        ),
        PeerConfig(name="mr", ae_title="MR1", host="10.2.0.7"),
    )  # fmt: skip
    document = statement(NodeConfig(), peers)
    rows = document.table("firewall").as_dicts()
    assert rows[0]["from"] == "10.1.0.0/24, 10.2.0.7"
    assert [row["to"] for row in rows if row["direction"] == "out"] == ["10.1.0.5:4242"]
    titles = {row["name"]: row for row in document.table("ae_titles").as_dicts()}
    assert titles["pacs"]["does"] == "sends, gets results"
    assert titles["mr"]["gets"] == ""


@pytest.mark.parametrize(
    ("section", "kind"),
    [("tls", "Secure transport connection"), ("audit", "Audit trail messages")],
)
def test_a_profile_is_stated_where_the_configuration_has_its_settings(
    document: Document, section: str, kind: str
) -> None:
    rows = document.table("security_profiles").as_dicts()
    (support,) = (str(row["support"]) for row in rows if row["kind"] == kind)
    assert support.startswith("none") == (section not in NodeConfig.model_fields)


def test_passwords_and_paths_are_not_told() -> None:
    url = "postgresql+psycopg://node:s3cret@db.example:5433/node"
    config = NodeConfig(node=NodeSection(database=url, data_dir=Path("/srv/images")))
    document = statement(config)
    text = document.markdown() + json.dumps(document.as_dict())
    assert "s3cret" not in text
    assert "/srv/images" not in text
    rows = document.table("firewall").as_dicts()
    assert ("out", "db.example:5433") in [(row["direction"], row["to"]) for row in rows]


def test_the_command_reads_the_file_and_the_peers_of_the_database(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[node]\nae_title = "HERE"\nport = 105\n')
    assert "| this node | HERE | 127.0.0.1:105 |" in run("--config", file)
    assert [path.name for path in tmp_path.iterdir()] == ["node.toml"], "no database is made"
    add = ["peers", "add", "mr", "--ae-title", "MR1", "--host", "10.2.0.7", "--config", str(file)]
    assert CliRunner().invoke(app, add).exit_code == 0
    tables = json.loads(run("--config", file, "--json"))["tables"]
    assert [row["name"] for row in tables["ae_titles"]] == ["this node", "mr"]


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["conformance", "--config", str(tmp_path / "none.toml")])
    assert done.exit_code != 0


def test_rows_fit_their_columns_and_bars_are_escaped() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        Table("k", "t", ("a", "b"), (("1",),))
    page = Document("T", Table("k", "t", ("a",), (("x|y",),)), ()).markdown()
    assert "x\\|y" in page
