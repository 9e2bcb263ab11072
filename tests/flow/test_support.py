"""What goes out to others names nobody: canaries in every patient attribute, then a search."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from dicom_node.config_secrets import without_secrets
from dicom_node.errors import NodeError
from dicom_node.support import hidden, without_uids, write_bundle
from tests.flow.conftest import ADC, T2W, Node, series

STUDY = "1.2.826.0.1.3680043.8.498.4711.1"
NAMES = {
    "PatientName": "KANARI-NAME^Kanari-Given", "PatientID": "KANARI-ID",
    "PatientBirthDate": "19440607", "AccessionNumber": "KANARI-ACC",
    "IssuerOfPatientID": "KANARI-ISSUER", "InstitutionName": "KANARI-INSTITUTION",
    "StationName": "KANARI-STATION", "StudyDate": "20250304", "AcquisitionDate": "20250304",
    "StudyID": "KANARI-STUDYID", "ReferringPhysicianName": "KANARI-DOCTOR",
    "DeviceSerialNumber": "KANARI-99",
}  # fmt: skip


@pytest.fixture
def bundle(node: Node, tmp_path: Path) -> dict[str, str]:
    images = [
        *series(T2W, 8, STUDY, **NAMES),
        *series(ADC, 3, STUDY, **{**NAMES, "ProtocolName": "adc KANARI-NAME 123456"}),
    ]
    node.send_all(images)
    node.clock.advance(node.config.study.patience_s + 1)
    node.evaluate()
    assert node.state(STUDY)[2] is not None
    config = tmp_path / "node.toml"
    config.write_text(
        f'[node]\ndata_dir = "{node.data_dir}"\n[[peers]]\nname = "pacs"\nae_title = "PACS"\n'
        'host = "pacs.example"\nport = 104\nreceives_results = true\n'
    )
    log = tmp_path / "node.log"
    log.write_text(
        json.dumps({"time": "2026-01-01T00:00:00Z", "level": "info", "event": "x", "uid": STUDY})
        + "\nsomething that a library printed about KANARI-NAME\n"
    )
    out = tmp_path / "bundle.zip"
    names = write_bundle(config, out, STUDY, [log])
    with zipfile.ZipFile(out) as packed:
        assert packed.namelist() == names
        return {name: packed.read(name).decode() for name in names}


def test_no_patient_stands_in_it(bundle: dict[str, str]) -> None:
    everything = "\n".join(bundle.values())
    assert re.findall("kanari[a-z-]*", everything, re.IGNORECASE) == []
    for gone in ("19440607", "1944", "20250304", "2025-03-04", STUDY, STUDY[:24]):
        assert gone not in everything, gone


def test_it_tells_what_helps(bundle: dict[str, str]) -> None:
    told = {name: json.loads(text) for name, text in bundle.items() if name.endswith(".json")}
    assert told["about.json"]["packages"]["pydicom"]
    assert {one["name"] for one in told["doctor.json"]} >= {"disk", "database", "model"}
    assert "pacs.example" in bundle["configuration.toml"]
    (study,) = told["studies.json"]
    assert study["revisions"][0]["state"] in ("ready", "receiving", "not_analysable")
    assert study["timeline"][0]["after_s"] == 0
    found = {one["series_description"]: one for one in told["selection.json"]["series"]}
    assert found["t2_tse_tra"]["instances"] == 8
    assert found["ep2d_diff_ADC"]["protocol_name"] == "adc *** ***"
    assert told["selection.json"]["problem"]
    assert bundle["log-1.jsonl"].count("\n") == 1, "records of the node alone"


def test_words_that_hide() -> None:
    uid = "1.2.840.113619.2.1"
    assert without_uids(f"at 10.0.0.12, version 2.13.0: {uid}.") == (
        f"at 10.0.0.12, version 2.13.0: {without_uids(uid)}."
    )
    assert without_uids(uid) != uid
    assert hidden("Smith of 2024-05-06 and 20240506", {"smith"}) == "*** of *** and ***"
    text = 'database = "postgresql://node:pa ss@db/x"\nsmtp_password = "x"\nport = 1\n'
    assert without_secrets(text.replace("pa ss", "pass")) == (
        'database = "postgresql://node:REMOVED@db/x"\nsmtp_password = "REMOVED"\nport = 1\n'
    )
    for line, shown in (
        ('webhook_url = "https://h.example/services/sEcReT"', '"https://h.example/REMOVED"'),
        ('database = "postgresql://db/x?password=sEcReT"', "?password=REMOVED"),
        ('mail_password_file = "mail.secret"', '"mail.secret"'),
    ):
        assert shown in without_secrets(line)
        assert "sEcReT" not in without_secrets(line)


def test_a_study_that_is_not_here_is_said_so(node: Node, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\ndata_dir = "{node.data_dir}"\n')
    with pytest.raises(NodeError, match=r"no study 1\.2\.3 here"):
        write_bundle(config, tmp_path / "b.zip", "1.2.3")
