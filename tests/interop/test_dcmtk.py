"""DCMTK as sender and as destination."""

from __future__ import annotations

from pathlib import Path

import gdcm
import pytest
from pydicom import dcmread

from dicom_node.net.contexts import TRANSFER_SYNTAXES
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import echo, outgoing, send
from dicom_node.net.standin import dataset_bytes
from tests.interop.conftest import NODE_AE, ReceivingNode
from tests.interop.peers import StoreScp, require, run, shuffled
from tests.net.conftest import wait_for, write_instance

pytestmark = pytest.mark.interop

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
RLE = "1.2.840.10008.1.2.5"
JPEG_57, JPEG_70 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"

ENCODERS: dict[str, tuple[str, ...]] = {
    IMPLICIT: ("dcmconv", "+ti"),
    EXPLICIT: ("dcmconv", "+te"),
    RLE: ("dcmcrle",),
    JPEG_57: ("dcmcjpeg", "+el"),
    JPEG_70: ("dcmcjpeg", "+e1"),
    JPEG_LS: ("dcmcjpls", "+el"),
}
PROPOSE = {
    IMPLICIT: "-xi",
    EXPLICIT: "-xe",
    RLE: "-xr",
    JPEG_70: "-xs",
    JPEG_LS: "-xt",
    JPEG_2000: "-xv",
}
"""storescu can propose these; it has no option for JPEG lossless process 14 (.57)."""


def encoded(source: Path, syntax: str, folder: Path) -> Path:
    """The image in a transfer syntax, encoded by a program of others."""
    target = folder / f"{syntax}.dcm"
    if syntax == JPEG_2000:
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    else:
        program, *options = ENCODERS[syntax]
        done = run(program, *options, source, target)
        assert done.returncode == 0, done.stderr
    assert str(dcmread(target).file_meta.TransferSyntaxUID) == syntax
    return target


def storescu(node: ReceivingNode, *arguments: object, called: str = NODE_AE) -> tuple[int, str]:
    done = run("storescu", "-aec", called, "127.0.0.1", node.port, *arguments)
    return done.returncode, done.stdout + done.stderr


def assert_stored_as_sent(node: ReceivingNode, study: str, files: list[Path]) -> None:
    rows = node.rows(study)
    assert set(rows) == {str(dcmread(f).SOPInstanceUID) for f in files}
    for file in files:
        row = rows[str(dcmread(file).SOPInstanceUID)]
        assert dataset_bytes(node.data_dir / row.path) == dataset_bytes(file)


def test_echoscu(node: ReceivingNode) -> None:
    assert run("echoscu", "-aec", NODE_AE, "127.0.0.1", node.port).returncode == 0


def test_echoscu_with_a_wrong_called_ae_title(node: ReceivingNode) -> None:
    done = run("echoscu", "-v", "-aec", "OTHER", "127.0.0.1", node.port)
    assert done.returncode != 0
    assert "Called AE Title Not Recognized" in done.stdout + done.stderr
    wait_for(node.store.refusals)
    assert node.store.refusals()[0]["called_ae"] == "OTHER"


def test_echoscu_of_an_unknown_peer(node: ReceivingNode) -> None:
    done = run("echoscu", "-v", "-aet", "STRANGER", "-aec", NODE_AE, "127.0.0.1", node.port)
    assert done.returncode != 0
    assert "Calling AE Title Not Recognized" in done.stdout + done.stderr
    wait_for(node.store.refusals)
    assert node.store.refusals()[0]["calling_ae"] == "STRANGER"


@pytest.mark.parametrize("syntax", PROPOSE)
def test_storescu_in_each_transfer_syntax(node: ReceivingNode, tmp_path: Path, syntax: str) -> None:
    require("storescu")
    file = encoded(write_instance(tmp_path), syntax, tmp_path)
    status, text = storescu(node, PROPOSE[syntax], "-aet", "STORESCU", file)
    assert status == 0, text
    (row,) = node.rows("1.2.3.4").values()
    assert row.transfer_syntax_uid == syntax
    assert dataset_bytes(node.data_dir / row.path) == dataset_bytes(file)


def test_two_studies_shuffled_and_interleaved_on_one_association(
    node: ReceivingNode, tmp_path: Path
) -> None:
    studies = {
        uid: [write_instance(tmp_path, study=uid) for _ in range(20)] for uid in ("1.2.5", "1.2.6")
    }
    mixed = shuffled([file for files in studies.values() for file in files], seed=7)
    status, text = storescu(node, "-xe", "-aet", "STORESCU", *mixed)
    assert status == 0, text
    for uid, files in studies.items():
        assert_stored_as_sent(node, uid, files)


def test_the_same_instance_again_is_a_success_and_one_row(
    node: ReceivingNode, tmp_path: Path
) -> None:
    file = write_instance(tmp_path)
    for _ in range(2):
        status, text = storescu(node, "-xe", "-aet", "STORESCU", file)
        assert status == 0, text
    assert_stored_as_sent(node, "1.2.3.4", [file])


def test_deflate_is_not_negotiated(node: ReceivingNode, tmp_path: Path) -> None:
    file = tmp_path / "deflated.dcm"
    assert run("dcmconv", "+td", write_instance(tmp_path), file).returncode == 0
    storescu(node, "-xd", "-R", "-aet", "STORESCU", file)
    # offered beside it, an uncompressed syntax is taken instead
    assert {row.transfer_syntax_uid for row in node.rows("1.2.3.4").values()} == {EXPLICIT}


# storescp 3.6.7 takes JPEG lossless only with selection value 1 (.70), not .57
@pytest.mark.parametrize("syntax", [syntax for syntax in TRANSFER_SYNTAXES if syntax != JPEG_57])
def test_storescp_gets_the_stored_bytes(storescp: StoreScp, tmp_path: Path, syntax: str) -> None:
    file = encoded(write_instance(tmp_path), syntax, tmp_path)
    assert echo(storescp, calling_ae=NODE_AE).ok
    (status,) = send(storescp, [outgoing(file)], calling_ae=NODE_AE)
    assert status.outcome is Outcome.SENT, status.detail
    (stored,) = storescp.stored().values()
    assert dataset_bytes(stored) == dataset_bytes(file)


def test_storescp_that_takes_only_implicit(tmp_path: Path) -> None:
    scp = StoreScp(tmp_path / "implicit", "+xi")
    try:
        file = write_instance(tmp_path)
        assert send(scp, [outgoing(file)], calling_ae=NODE_AE)[0].outcome is Outcome.SENT
        (stored,) = scp.stored().values()
    finally:
        scp.stop()
    assert dcmread(stored) == dcmread(file)


def test_storescp_that_aborts_and_one_that_is_gone(tmp_path: Path) -> None:
    scp = StoreScp(tmp_path / "aborting", "--abort-during")
    items = [outgoing(write_instance(tmp_path, kilobytes=300)) for _ in range(2)]
    try:
        statuses = send(scp, items, calling_ae=NODE_AE)
    finally:
        scp.stop()
    assert [s.outcome for s in statuses] == [Outcome.TRANSIENT] * 2
    assert send(scp, items, calling_ae=NODE_AE)[0].outcome is Outcome.TRANSIENT
