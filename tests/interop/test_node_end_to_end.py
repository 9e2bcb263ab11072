"""A real PACS and DCMTK tools against the whole node, with a public examination."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.interop.peers import OrthancPeer, require, run, shuffled
from tests.running import NodeUnderTest, pacs_peer, wait_until
from tests.studies import StudyMaker, study_uid

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
STORESCU = '[[peers]]\nname = "storescu"\nae_title = "STORESCU"\nhost = "127.0.0.1"\n'


@pytest.fixture
def node(tmp_path: Path, orthanc: OrthancPeer) -> Iterator[NodeUnderTest]:
    """The whole node; Orthanc sends and receives, storescu may send."""
    peers = pacs_peer(orthanc.port, ae_title="ORTHANC") + STORESCU
    under_test = NodeUnderTest(tmp_path / "node", peers)
    under_test.start()
    orthanc.set_modality("node", "PROSTATE_AI", under_test.port)
    try:
        yield under_test
    finally:
        under_test.stop()


def results_of(orthanc: OrthancPeer, uid: str, folder: Path) -> dict[str, list[Path]]:
    """Download what the PACS holds of a study beside MR images, by SOP class."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Path]] = {}
    for modality in ("SEG", "SR", "OT"):
        for instance in orthanc.instances(uid, modality):
            path = folder / f"{instance['ID']}.dcm"
            path.write_bytes(orthanc.download(instance["ID"]))
            sop_class = pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID
            found.setdefault(str(sop_class), []).append(path)
    return found


def judge(results: dict[str, list[Path]]) -> None:
    """Every object passes dciodvfy without an Error; dsrdump reads the report."""
    for path in (path for paths in results.values() for path in paths):
        done = subprocess.run(
            [require("dciodvfy"), str(path)], capture_output=True, text=True, check=False
        )
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert errors == [], f"{path}: {errors}"
    for path in results[SR]:
        dump = run("dsrdump", path)
        assert dump.returncode == 0
        # DCMTK 3.6.7 cannot check text in UTF-8 and says so; the report copies the source's set
        told = [line for line in dump.stderr.splitlines() if "Specific Character Set" not in line]
        assert told == []


def test_orthanc_sends_and_gets_results_back(
    node: NodeUnderTest, orthanc: OrthancPeer, prostatex_0000: Path, tmp_path: Path
) -> None:
    orthanc.upload_folder(prostatex_0000)
    uid = study_uid(sorted(prostatex_0000.rglob("*.dcm")))
    assert orthanc.store(orthanc.studies()).status_code == 200
    row = node.wait_for(uid, {"delivered", "failed", "held", "not_analysable"}, 240)
    assert row["state"] == "delivered", row
    results = results_of(orthanc, uid, tmp_path / "results")
    assert len(results[SEG]) >= 1
    assert len(results[SR]) == 1
    judge(results)


def test_orthanc_gets_a_report_for_t2w_alone(
    node: NodeUnderTest, orthanc: OrthancPeer, prostate3t_0002: Path, tmp_path: Path
) -> None:
    orthanc.upload_folder(prostate3t_0002)
    uid = study_uid(sorted(prostate3t_0002.rglob("*.dcm")))
    assert orthanc.store(orthanc.studies()).status_code == 200
    row = node.wait_for(uid, {"not_analysable"}, 120)
    assert row["reason"] == "no_diffusion"
    results = results_of(orthanc, uid, tmp_path / "results")
    assert SEG not in results
    judge(results)
    words = run("dsrdump", "+Pl", results[SR][0]).stdout
    assert "no diffusion imaging" in words
    assert "Absent" not in words


def test_storescu_shuffled_two_studies_interleaved_on_one_association(
    node: NodeUnderTest, orthanc: OrthancPeer, prostatex_0000: Path, studies: StudyMaker,
    tmp_path: Path,
) -> None:  # fmt: skip
    real = sorted(prostatex_0000.rglob("*.dcm"))
    synthetic = studies.write(tmp_path / "synthetic", "interleaved")
    mixed = shuffled([*real, *synthetic], seed=5)
    sent = run(
        "storescu", "-aec", "PROSTATE_AI", "-aet", "STORESCU", "127.0.0.1", node.port, *mixed,
        limit_s=120,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    for files in (real, synthetic):
        uid = study_uid(files)
        row = node.wait_for(uid, {"delivered", "failed", "held", "not_analysable"}, 240)
        assert (row["state"], row["instances"]) == ("delivered", len(files))
        judge(results_of(orthanc, uid, tmp_path / uid))
    wait_until(lambda: node.running, 30, "the node goes on")
