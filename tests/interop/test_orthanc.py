"""A real Orthanc, both ways."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import echo, outgoing, send
from tests.interop.conftest import NODE_AE, ReceivingNode
from tests.interop.peers import OrthancPeer
from tests.net.conftest import wait_for, write_instance

pytestmark = pytest.mark.interop

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
SC = "1.2.840.10008.5.1.4.1.1.7"


def test_orthanc_sends_a_real_study_to_the_node(
    orthanc: OrthancPeer, node: ReceivingNode, prostatex_0000: Path
) -> None:
    orthanc.set_modality("node", NODE_AE, node.port)
    assert orthanc.echo()
    uploaded = orthanc.upload_folder(prostatex_0000)
    orthanc.store(orthanc.studies()).raise_for_status()
    (study,) = {str(dcmread(p).StudyInstanceUID) for p in _dicom(prostatex_0000)}
    rows = node.rows(study)
    assert len(rows) == len(set(uploaded)) == 164
    for file in _dicom(prostatex_0000):
        sent = dcmread(file)
        kept = dcmread(node.data_dir / rows[str(sent.SOPInstanceUID)].path)
        assert kept == sent
    assert {row.calling_ae for row in rows.values()} == {"ORTHANC"}


def test_orthanc_is_told_when_the_node_refuses(orthanc: OrthancPeer, node: ReceivingNode) -> None:
    orthanc.set_modality("node", "OTHER", node.port)
    assert not orthanc.echo()
    wait_for(node.store.refusals)
    assert node.store.refusals()[0]["calling_ae"] == "ORTHANC"


@pytest.mark.parametrize("sop_class", [SEG, SR, SC])
def test_orthanc_keeps_what_the_node_sends(
    orthanc: OrthancPeer, tmp_path: Path, sop_class: str
) -> None:
    file = write_instance(tmp_path, sop_class=sop_class)
    assert echo(orthanc, calling_ae=NODE_AE).ok
    for _ in range(2):
        (status,) = send(orthanc, [outgoing(file)], calling_ae=NODE_AE)
        assert status.outcome is Outcome.SENT, status.detail
    (instance,) = orthanc.instances("1.2.3.4")
    assert instance["MainDicomTags"]["SOPInstanceUID"] == file.stem
    assert dcmread(BytesIO(orthanc.download(instance["ID"]))) == dcmread(file)


def test_orthanc_down_then_up(orthanc: OrthancPeer, tmp_path: Path) -> None:
    item = outgoing(write_instance(tmp_path))
    orthanc.stop()
    assert send(orthanc, [item], calling_ae=NODE_AE)[0].outcome is Outcome.TRANSIENT
    orthanc.start()
    assert send(orthanc, [item], calling_ae=NODE_AE)[0].outcome is Outcome.SENT
    assert len(orthanc.instances("1.2.3.4")) == 1


def _dicom(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if path.read_bytes()[128:132] == b"DICM"]
