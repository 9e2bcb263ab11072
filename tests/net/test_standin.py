"""The PACS stand-in, and the port beside a PACS that echoes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.errors import DeliveryError
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import echo, outgoing, send
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from tests.net.conftest import OpenPortWith, peer, wait_for, write_instance


def test_it_echoes(tmp_path: Path) -> None:
    with PacsStandIn("PACS", tmp_path) as pacs:
        assert echo(pacs.address, calling_ae="ANY").ok


def test_copies_are_counted_and_compared(tmp_path: Path) -> None:
    path = write_instance(tmp_path)
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        send(pacs.address, [outgoing(path)] * 2, calling_ae="ANY")
        (filed,) = pacs.filed()
        assert (filed.copies, filed.differing) == (2, 0)
        first = dataset_bytes(filed.path)
        path.write_bytes(path.read_bytes()[:-2] + b"!!")
        send(pacs.address, [outgoing(path)], calling_ae="ANY")
        (filed,) = pacs.filed()
        assert (filed.copies, filed.differing) == (3, 1)
        assert dataset_bytes(filed.path) == first


def test_a_refused_object_is_not_filed(tmp_path: Path) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        pacs.answer_with([0xA700, 0xB000])
        items = [outgoing(write_instance(tmp_path)) for _ in range(3)]
        send(pacs.address, items, calling_ae="ANY")
        held = [f.sop_instance_uid for f in pacs.filed("1.2.3.4")]
        assert held == [i.sop_instance_uid for i in items[1:]]
        assert pacs.filed("1.2.3") == []


def test_it_restarts_on_its_port_with_what_it_held(tmp_path: Path) -> None:
    pacs = PacsStandIn("PACS", tmp_path / "pacs")
    port = pacs.start()
    send(pacs.address, [outgoing(write_instance(tmp_path))], calling_ae="ANY")
    pacs.stop()
    assert not echo(pacs.address, calling_ae="ANY").ok
    assert pacs.start() == port
    assert len(pacs.filed()) == 1
    pacs.stop()


def test_it_sends_a_study_and_says_when_it_was_refused(
    open_port: OpenPortWith, tmp_path: Path
) -> None:
    node = open_port([peer("PACS"), peer("OTHER", "10.1.1.1")])
    for _ in range(3):
        write_instance(tmp_path)
    (tmp_path / "notes.txt").write_text("not DICOM")
    pacs = PacsStandIn("PACS", tmp_path / "pacs")
    statuses = pacs.send_study(tmp_path, node.address)
    assert [s.outcome for s in statuses] == [Outcome.SENT] * 3
    assert len(node.ingest.received) == 3
    with pytest.raises(DeliveryError, match="3 of 3 objects were not taken"):
        PacsStandIn("OTHER", tmp_path / "pacs").send_study(tmp_path, node.address)


def test_a_pacs_that_echoes_sends_everything_back(open_port: OpenPortWith, tmp_path: Path) -> None:
    node = open_port()
    paths = [write_instance(tmp_path) for _ in range(3)]
    with PacsStandIn("PACS", tmp_path / "pacs", echo_to=node.address) as pacs:
        send(pacs.address, [outgoing(p) for p in paths], calling_ae="PROSTATE_AI")
        wait_for(lambda: len(node.ingest.received) == 3)
    assert [r["dataset_bytes"] for r in node.ingest.received] == [dataset_bytes(p) for p in paths]
