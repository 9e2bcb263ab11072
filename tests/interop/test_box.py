"""The routing of `deploy/orthanc`, run by the Orthanc of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node.domain.profile import COMPREHENSIVE_3D_SR
from dicom_node.net.sender import Address, outgoing, send
from dicom_node.net.standin import PacsStandIn
from dicom_node.phantom import Role
from tests.conftest import ROOT
from tests.interop.peers import OrthancPeer
from tests.running import wait_until
from tests.studies import StudyMaker, study_uid

pytestmark = [pytest.mark.interop, pytest.mark.slow]

BOX = ROOT / "deploy" / "orthanc"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PacsStandIn]:
    """What stands where the node is: it takes what is routed there."""
    with PacsStandIn("PROSTATE_AI", tmp_path / "node") as standin:
        yield standin


@pytest.fixture
def box(tmp_path: Path, node: PacsStandIn) -> Iterator[OrthancPeer]:
    """Orthanc with the configuration of the box; ports, hosts and folders are those of the test."""
    settings = json.loads((BOX / "orthanc.json").read_text())
    settings["DicomModalities"]["prostate-node"] |= {"Host": "127.0.0.1", "Port": node.port}
    settings |= {"LuaScripts": [str(BOX / "route.lua")], "StableAge": 1, "Plugins": []}
    kept = ("DicomPort", "HttpPort")
    peer = OrthancPeer(tmp_path / "orthanc")
    peer.ae_title = settings["DicomAet"]
    try:
        yield peer.start({k: v for k, v in settings.items() if k not in kept})
    finally:
        peer.close()


def _of_the_knee(dataset: Dataset) -> None:
    dataset.StudyDescription, dataset.SeriesDescription = "MRI knee", "t2_tse_tra"
    dataset.BodyPartExamined = "KNEE"
    dataset.ProtocolName = "t2_tse_tra"


def _report(of: Path, path: Path) -> Path:
    """A report as the node stores it in the study of an image."""
    dataset = dcmread(of, stop_before_pixels=True)
    dataset.Modality, dataset.SOPClassUID = "SR", COMPREHENSIVE_3D_SR
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = COMPREHENSIVE_3D_SR
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)
    return path


def test_prostate_mri_is_routed_and_nothing_else(
    box: OrthancPeer, node: PacsStandIn, studies: StudyMaker, tmp_path: Path
) -> None:
    t2w = frozenset({Role.T2W_AXIAL})
    knee = studies.write(tmp_path / "knee", "knee", roles=t2w, edit=_of_the_knee)
    prostate = studies.write(tmp_path / "prostate", "prostate", roles=t2w)
    own = _report(prostate[0], tmp_path / "own.dcm")
    to = Address(box.ae_title, "127.0.0.1", box.port)
    for files, calling_ae in ((knee, "STORESCU"), (prostate, "STORESCU"), ([own], "PROSTATE_AI")):
        sent = send(to, [outgoing(path) for path in files], calling_ae=calling_ae)
        assert {status.outcome.value for status in sent} == {"sent"}
    wait_until(
        lambda: len(node.filed(study_uid(prostate))) == len(prostate), 120, "the study is routed"
    )
    wait_until(lambda: box.stable_series() == 3, 120, "every series was looked at")
    assert node.filed(study_uid(knee)) == []
    assert len(node.filed(study_uid(prostate))) == len(prostate), "results are not sent back"
