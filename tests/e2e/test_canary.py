"""No patient data where it does not belong: canaries in patient attributes, failing paths too.

Studies with canaries go through the whole node as processes, then through whatever fails. What the
node printed, logged, shows as status and writes into the audit trail is searched for them.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.dimse_primitives import C_STORE

from dicom_node.errors import DeliveryError
from dicom_node.net.library import application_entity
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from tests.running import NodeUnderTest, pacs_peer, wait_until
from tests.studies import study_uid
from tests.webhook import Hook

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::UserWarning"),
]  # fmt: skip

MakeStudy = Callable[..., list[Path]]
CANARY = "KANARI"
NAMES = {
    "PatientName": "KANARI-NAME^KANARI-GIVEN", "PatientID": "KANARI-ID",
    "OtherPatientNames": "KANARI-OTHER", "PatientAddress": "KANARI-STREET 1",
    "PatientTelephoneNumbers": "KANARI-PHONE", "PatientMotherBirthName": "KANARI-MOTHER",
    "AccessionNumber": "KANARI-ACC", "ReferringPhysicianName": "KANARI-DOCTOR",
    "PatientComments": "KANARI-COMMENT", "StudyID": "KANARI-STUDYID",
    "AdditionalPatientHistory": "KANARI-HISTORY", "IssuerOfPatientID": "KANARI-ISSUER",
    "InstitutionName": "KANARI-INSTITUTION", "OperatorsName": "KANARI-OPERATOR",
}  # fmt: skip
INVALID = {
    "PatientBirthDate": "KANARI-BIRTH",
    "PatientAge": "KANARI-AGE",
    "PatientWeight": "KANARI",
}
"""Values that break the rules of their VR: a library that complains quotes them."""


def mark(file: Path, *, invalid: bool = False, **changes: str) -> Dataset:
    """Write canaries into a file; the pixel data stays."""
    dataset = pydicom.dcmread(file)
    for name, value in {**NAMES, **(INVALID if invalid else {}), **changes}.items():
        if name in INVALID and invalid:
            tag = pydicom.datadict.tag_for_keyword(name)
            vr = pydicom.datadict.dictionary_VR(tag)
            element = pydicom.DataElement(tag, "LO", value)
            element.VR = vr
            dataset[tag] = element
        else:
            setattr(dataset, name, value)
    dataset.save_as(file)
    return dataset


def text_of(node: NodeUnderTest) -> dict[str, str]:
    """Everything of a running node that people or machines read."""
    line = next(line for line in node.lines if "http://" in line)
    base = re.search(r"http://[^ ]+", line)
    assert base is not None
    found = {"log": node.log(), "stdout": "\n".join(node.lines)}
    studies = node.json("studies", "list")
    uids = [row["study_uid"] for row in studies]
    paths = ["/account", "/", "/studies", "/peers", "/models", "/annotations", "/health/ready",
             "/settings/configuration", "/metrics", "/alarms"]  # fmt: skip
    paths += [f"/studies/{uid}" for uid in uids]
    asked = ["/status", "/studies", "/annotations", "/alarms", "/canaries"]
    asked += [f"/studies/{uid}{part}" for uid in uids for part in ("", "/timeline", "/deliveries")]
    with _administrator(node, base[0].rstrip("/")) as web:
        for path in [*paths, *(f"/api/v1{path}" for path in asked)]:
            answer = web.get(path)
            assert answer.status_code == 200, path
            found[f"GET {path}"] = answer.text
    for command in (("status",), ("studies", "list"), ("doctor",), ("peers", "list"),
                    ("alarms", "list"), ("canary", "list")):  # fmt: skip
        done = node.command(*command, check=False)
        found[" ".join(command)] = done.stdout + done.stderr
    for row in studies:
        done = node.command("studies", "show", row["study_uid"])
        found[f"show {row['study_uid']}"] = done.stdout + done.stderr
    return found


@contextlib.contextmanager
def _administrator(node: NodeUnderTest, base: str) -> Iterator[httpx.Client]:
    """A client that is logged in, and has a token."""
    code = node.json("users", "add", f"reader-{secrets.token_hex(4)}", "--role", "admin")["code"]
    name = f"monitor-{secrets.token_hex(4)}"
    token = node.json("tokens", "add", name, "--role", "admin")["token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=base, trust_env=False, headers=headers) as client:
        password = {"password": "words of a test", "again": "words of a test"}
        assert client.post(f"/welcome/{code}", data=password).status_code == 303
        yield client


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    with Hook() as opened:
        yield opened


@pytest.fixture(scope="module")
def canary_node(
    tmp_path_factory: pytest.TempPathFactory, pacs: PacsStandIn, hook: Hook
) -> Iterator[NodeUnderTest]:
    folder = tmp_path_factory.mktemp("canary")
    (folder / "secret").write_text("of the webhook")
    alarms = f'[alarms]\nevery_s = 1\nwebhook_url = "{hook.url}"\nwebhook_secret_file = "secret"\n'
    under_test = NodeUnderTest(folder, alarms + pacs_peer(pacs.port), patience_s=2.0)
    under_test.start()
    try:
        yield under_test
    finally:
        if under_test.running:
            under_test.stop()


def test_no_patient_data_in_logs_status_and_tracebacks(
    canary_node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy, tmp_path: Path,
    hook: Hook,
) -> None:  # fmt: skip
    node = canary_node

    def send(files: list[Path]) -> None:
        with contextlib.suppress(DeliveryError):  # some are meant to be refused
            pacs.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")

    whole = make_study("canary-whole")
    for file in whole:
        mark(file)
    half = make_study("canary-half")
    half = [file for file in half if "T2" in mark(file, invalid=True).SeriesDescription.upper()]
    mixed = make_study("canary-mixed")
    for number, file in enumerate(mixed):
        mark(file, PatientID=f"KANARI-ID{number % 2}")
    again = make_study("canary-again")
    for file in again:
        mark(file)
    damaged = [tmp_path / f"{generate_uid()}.dcm" for _ in range(3)]
    for cut, path in zip((300, 700, 1400), damaged, strict=True):
        path.write_bytes(again[0].read_bytes()[:cut])  # ends in the middle of patient attributes
    for files in (whole, half, mixed, again):
        send(files)
    for path in damaged:
        _send_raw(node.port, path)
    changed = mark(again[0], PatientName="KANARI-CHANGED")
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(again[0])
    send(again[:1])
    ended = {"delivered", "not_analysable", "failed", "held"}
    states = {node.wait_for(study_uid(files), ended)["state"] for files in (half, mixed, again)}
    assert states >= {"held", "not_analysable"}
    assert node.wait_for(study_uid(whole), ended)["state"] == "delivered"
    for held in (node.data_dir / "spool").rglob("*.dcm"):
        held.write_bytes(held.read_bytes()[:-1])  # from here on every read fails
    node.command("studies", "retry", study_uid(half), check=False)
    node.wait_for(study_uid(half), ended)
    wait_until(
        lambda: "study_failed" in {json.loads(body)["code"] for _, body in list(hook.posted)},
        60, "an alarm is told",
    )  # fmt: skip
    told = {f"webhook {n}": body.decode() for n, (_, body) in enumerate(hook.posted)}
    leaks = {
        where: sorted(set(re.findall(r"KANARI[A-Z0-9-]*", text)))
        for where, text in {**told, **text_of(node)}.items()
        if CANARY in text
    }
    assert leaks == {}
    assert len(node.log()) > 500, "there was something to search"
    status = node.stop()
    assert status == 0
    assert CANARY not in node.log()
    records = json.loads(node.command("audit", "list", "--limit", "1000", "--json").stdout)
    named = {found for one in records for found in re.findall(r"KANARI[A-Z0-9-]*", one["message"])}
    assert named == {"KANARI-ID", "KANARI-ID0"} | (named & {"KANARI-ID1"}), "ids alone (PS3.15)"
    events = {one["event"] for one in records}
    assert events >= {"application_start", "begin_transferring", "instances_received",
                      "instances_sent", "application_stop"}  # fmt: skip
    assert node.json("audit", "verify")["whole"]


def _send_raw(port: int, path: Path) -> None:
    """Send the rest of a file that ends too early, as a data set."""
    entity = application_entity("PACS")  # its loop leaves the answer to who waits for it
    mr = "1.2.840.10008.5.1.4.1.1.4"
    entity.add_requested_context(mr, "1.2.840.10008.1.2.1")
    assoc = entity.associate("127.0.0.1", port, ae_title="PROSTATE_AI")
    assert assoc.is_established
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = mr
    request.AffectedSOPInstanceUID = path.stem
    request.Priority = 2
    request.DataSet = BytesIO(dataset_bytes(path))
    assoc.dimse.send_msg(request, assoc.accepted_contexts[0].context_id)
    assoc.dimse.get_msg(block=True)
    assoc.release()
