"""The whole node as a process: a study comes in over C-STORE, results go back over C-STORE."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.errors import DeliveryError
from dicom_node.net.sender import Address, echo
from dicom_node.net.standin import PacsStandIn
from dicom_node.phantom import Role
from tests.running import NodeUnderTest, pacs_peer, wait_until
from tests.studies import cut_pixels, noise, study_uid

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MakeStudy = Callable[..., list[Path]]
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
SC = "1.2.840.10008.5.1.4.1.1.7"
TWIN = "1.2.840.10008.5.1.4.1.1.88.33"
OUTLINES = "1.2.840.10008.5.1.4.1.1.11.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
ENDED = {"delivered", "not_analysable", "failed", "held"}


def send(pacs: PacsStandIn, node: NodeUnderTest, files: list[Path]) -> None:
    pacs.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")


def test_results_come_back_into_the_same_study(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy
) -> None:
    files = make_study("same-study")
    send(pacs, node, files)
    row = node.wait_for(study_uid(files), ENDED - {"not_analysable"})
    assert row["state"] == "delivered", row
    filed = pacs.filed(study_uid(files))
    assert {item.sop_class_uid for item in filed} >= {SEG, SR, SC}
    assert all(item.copies == 1 for item in filed)
    assert filed[-1].sop_class_uid == SR, "the report follows what it refers to"
    source = pydicom.dcmread(files[0])
    for item in filed:
        header = pydicom.dcmread(item.path)
        assert header.PatientID == source.PatientID
        assert header.StudyInstanceUID == source.StudyInstanceUID
    listed = {row["study_uid"]: row for row in node.json("studies", "list")}
    assert listed[study_uid(files)]["instances"] == len(files)
    assert listed[study_uid(files)]["state"] == "delivered"
    scanners = node.json("models", "drift")
    told = {figure["name"] for one in scanners for figure in one["figures"]
            if figure["reference"]["count"]}  # fmt: skip
    assert {"snr_t2w", "t2w_spacing_mm", "likelihood", "outcome"} <= told
    assert all(one["state"] == "collecting" for one in scanners)


def test_a_pacs_without_segmentations_gets_stand_ins_and_the_record_says_so(
    tmp_path: Path, make_study: MakeStudy
) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs", sop_classes=[SC, TWIN, OUTLINES, MR]) as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs_peer(pacs.port))
        node.start()
        try:
            files = make_study("stand-ins")
            send(pacs, node, files)
            uid = study_uid(files)
            assert node.wait_for(uid, ENDED)["state"] == "delivered"
            (row,) = node.json("studies", "show", uid)
        finally:
            node.stop()
        filed = [item.sop_class_uid for item in pacs.filed(uid)]
        assert set(filed) == {SC, TWIN, OUTLINES}
        assert filed.count(TWIN) == 1
        left_out = {one["kind"]: one["replaced_by"] for one in row["left_out"]}
        assert left_out["seg-gland"] == "presentation-state"
        assert left_out["sr"] == "sr (comprehensive-no-seg)"
        assert all(one["deliveries"] for one in row["results"])
        assert "adapted to destination" in {event["event"] for event in row["timeline"]}


def test_own_objects_routed_back_are_acknowledged_and_change_nothing(
    tmp_path: Path, make_study: MakeStudy
) -> None:
    pacs = PacsStandIn("PACS", tmp_path / "pacs")
    pacs.start()
    node = NodeUnderTest(tmp_path / "node", pacs_peer(pacs.port), patience_s=4.0)
    node.start()
    try:
        pacs.echo_to = Address("PROSTATE_AI", "127.0.0.1", node.port)
        files = make_study("echo")
        send(pacs, node, files)
        node.wait_for(study_uid(files), {"delivered"})
        before = len(pacs.filed())
        time.sleep(6)  # longer than quiet_s and patience_s
        rows = node.revisions(study_uid(files))
        assert [(row["revision"], row["state"]) for row in rows] == [(1, "delivered")]
        assert rows[0]["instances"] == len(files), "an own object never counts as an image"
        assert len(pacs.filed()) == before
    finally:
        node.stop()
        pacs.stop()


def test_t2w_alone_comes_back_as_a_report_that_says_why(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy
) -> None:
    files = make_study("t2w-alone", roles=frozenset({Role.T2W_AXIAL}))
    send(pacs, node, files)
    row = node.wait_for(study_uid(files), ENDED)
    assert (row["state"], row["reason"]) == ("not_analysable", "no_diffusion")
    filed = pacs.filed(study_uid(files))
    assert {item.sop_class_uid for item in filed} == {SR, SC}
    report = pydicom.dcmread(filed[-1].path)
    assert "NOT ANALYSED" in report.SeriesDescription
    # what completes a study after "not analysable" is analysed
    send(pacs, node, make_study("t2w-alone"))
    again = node.wait_for(study_uid(files), {"delivered", "failed", "held"})
    assert (again["revision"], again["state"]) == (2, "delivered")
    filed = pacs.filed(study_uid(files))
    later = [pydicom.dcmread(i.path) for i in filed if i.sop_class_uid == SR][-1]
    predecessor = later.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    named = predecessor.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == report.SOPInstanceUID


def test_pacs_down_at_delivery_and_up_later(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy
) -> None:
    files = make_study("pacs-down")
    send(pacs, node, files)
    pacs.stop()
    uid = study_uid(files)

    def tried() -> bool:
        rows = node.revisions(uid)
        return any(d["attempts"] for row in rows for r in row["results"] for d in r["deliveries"])

    wait_until(tried, 120, "a delivery was tried")
    assert node.revisions(uid)[0]["state"] == "analysed"
    pacs.start()
    assert node.wait_for(uid, {"delivered"})["state"] == "delivered"
    assert all(item.copies == 1 for item in pacs.filed(uid))


def _set(keyword: str, value: str) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def _brain(dataset: Dataset) -> None:
    dataset.BodyPartExamined = "BRAIN"
    dataset.StudyDescription = dataset.ProtocolName = "MRI brain"
    dataset.SeriesDescription = dataset.SeriesDescription.replace("prostate", "brain")


def _no_pixels(dataset: Dataset) -> None:
    if "DIFFUSION" in dataset.ImageType or "t2" in dataset.SeriesDescription:
        del dataset.PixelData


def _second_patient(dataset: Dataset) -> None:
    if dataset.InstanceNumber == 3:
        dataset.PatientID = "SOMEBODY-ELSE"


@pytest.mark.parametrize(
    ("name", "edit", "state", "reason", "sent"),
    [
        ("brain", _brain, "not_analysable", "not_prostate", False),
        ("female", _set("PatientSex", "F"), "not_analysable", "not_prostate", False),
        ("no-gland", noise, "not_analysable", "not_prostate", False),
        ("ct", _set("Modality", "CT"), "not_analysable", "not_mr", False),
        ("cut-pixels", cut_pixels, "not_analysable", "corrupt_pixel_data", True),
        ("no-pixels", _no_pixels, "not_analysable", "no_pixel_data", True),
        ("two-patients", _second_patient, "held", "identity_conflict", False),
    ],
)
def test_G2_G4_what_cannot_be_analysed_ends_with_a_reason_and_the_node_goes_on(
    node: NodeUnderTest,
    pacs: PacsStandIn,
    make_study: MakeStudy,
    name: str,
    edit: Callable[[Dataset], None],
    state: str,
    reason: str,
    sent: bool,
) -> None:
    files = make_study(name, edit=edit)
    send(pacs, node, files)
    row = node.wait_for(study_uid(files), ENDED)
    assert (row["state"], row["reason"]) == (state, reason), row
    assert row["message"]
    assert bool(pacs.filed(study_uid(files))) is sent
    good = make_study(f"{name}-good-one")
    send(pacs, node, good)
    # on a busy machine more than patience_s may pass between two images: "not analysed" comes
    # first then, and the rest of the images makes the revision that counts
    row = node.wait_for(study_uid(good), ENDED - {"not_analysable"})
    assert row["state"] == "delivered", row


def test_files_that_end_early_end_with_a_reason(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy
) -> None:
    files = make_study("damaged")
    uid = study_uid(files)
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) - 2000])  # inside the pixel data
    send(pacs, node, files)
    row = node.wait_for(uid, ENDED)
    assert (row["state"], row["reason"]) == ("not_analysable", "corrupt_pixel_data")
    assert "decoded" in row["message"] and row["results"]


def test_a_data_set_that_cannot_be_read_is_refused_and_the_others_are_analysed(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy
) -> None:
    first, *others = make_study("unreadable")
    data = first.read_bytes()
    first.write_bytes(data[: data.index(b"PHANTOM^PROSTATE") + 4])  # inside an element
    with pytest.raises(DeliveryError, match="0x"):
        send(pacs, node, [first])
    send(pacs, node, others)
    row = node.wait_for(study_uid(others), ENDED - {"not_analysable"})
    assert (row["state"], row["instances"]) == ("delivered", len(others))


def test_peers_are_live_and_refusals_are_recorded(node: NodeUnderTest) -> None:
    address = Address("PROSTATE_AI", "127.0.0.1", node.port)
    assert not echo(address, calling_ae="NEW_SCANNER").ok
    wait_until(lambda: node.json("status")["refusals"], 60, "the refusal is recorded")
    status = node.json("status")
    assert [(r["calling_ae"], r["called_ae"]) for r in status["refusals"]] == [
        ("NEW_SCANNER", "PROSTATE_AI")
    ]
    assert status["refusals"][0]["address"] == "127.0.0.1"
    assert status["refusals"][0]["reason"]
    node.command("peers", "add", "scanner", "--ae-title", "NEW_SCANNER", "--host", "127.0.0.1")
    wait_until(lambda: echo(address, calling_ae="NEW_SCANNER").ok, 60, "the new peer is known")
    names = {peer["name"]: peer["origin"] for peer in node.json("peers", "list")}
    assert names == {"pacs": "file", "scanner": "database"}
    assert node.command("peers", "remove", "pacs", check=False).returncode == 1
    node.command("peers", "remove", "scanner")


def test_export_writes_the_bytes_as_received(
    node: NodeUnderTest, pacs: PacsStandIn, make_study: MakeStudy, tmp_path: Path
) -> None:
    from dicom_node.net.standin import dataset_bytes

    files = make_study("export", roles=frozenset({Role.ADC}))
    send(pacs, node, files)
    out = tmp_path / "exported"
    node.command("studies", "export", study_uid(files), "--out", str(out))
    sent = sorted(dataset_bytes(path) for path in files)
    assert sorted(dataset_bytes(path) for path in out.iterdir()) == sent


def test_all_processes_end_with_the_supervisor(tmp_path: Path) -> None:
    node = NodeUnderTest(tmp_path / "node", "")
    node.start()
    group = node.pid
    os.kill(group, signal.SIGKILL)  # the supervisor alone, not its group
    node.collect(60.0)

    def gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(gone, 60, "every process of the group is gone")


def test_sigterm_drains_and_exits_with_0(tmp_path: Path) -> None:
    node = NodeUnderTest(tmp_path / "node", "")
    node.start()
    assert node.lines[-1] == "ready"
    assert node.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port), timeout=1)
