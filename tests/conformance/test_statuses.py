"""Every status code that the port returns stands in the statement, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection
from dicom_node.conformance.document import Document
from dicom_node.flow import health
from dicom_node.flow.ingest import Ingest
from dicom_node.net import receiver as receiver_module
from dicom_node.net.outcomes import CLASS_NOT_TAKEN, classify
from dicom_node.net.sender import outgoing, send
from dicom_node.net.standin import dataset_bytes
from tests.databases import open_store
from tests.net.conftest import MR, OpenPortWith, write_instance
from tests.net.wire import Wire, pdata, status_of, store_rq

EXPLICIT = "1.2.840.10008.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def stated(document: Document, service: str) -> set[int]:
    rows = document.table("status_returned").as_dicts()
    return {int(row["status"], 16) for row in rows if row["service"] == service}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_every_status_of_a_c_store_is_returned_and_stated(
    open_port: OpenPortWith, document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned = _of_the_port(open_port, tmp_path) | _of_the_receive_path(tmp_path, monkeypatch)
    assert returned == stated(document, "C-STORE")


def _of_the_port(open_port: OpenPortWith, tmp_path: Path) -> set[int]:
    """Success, a fault, no room, a UID that is none, a class beside the context."""
    node = open_port()
    found = set()
    for error in (None, KeyError("a bug"), OSError("disk")):
        node.ingest.error = error
        (status,) = send(node.address, [outgoing(write_instance(tmp_path))], calling_ae="PACS")
        assert status.code is not None
        found.add(status.code)
    node.ingest.error = None
    for request in (store_rq(b"../etc/x"), store_rq(b"1.2.3", sop_class=ENHANCED_MR.encode())):
        with Wire(node.port).associate() as wire:
            wire.send(request + pdata(b"\x08\x00\x05\x00\x00\x00\x00\x00", control=2))
            _, answer = wire.read_pdu()
            found.add(status_of(answer))
    return found


def _of_the_receive_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    config = NodeConfig(node=NodeSection(data_dir=tmp_path / "node"))
    (tmp_path / "node").mkdir()
    store = open_store(config.database_url, SystemClock())
    ingest = Ingest(store, config.node.data_dir, SystemClock())
    path = write_instance(tmp_path)
    good = dataset_bytes(path)

    def answer(data: bytes = good, uid: str = path.stem) -> int:
        return ingest.accept(
            dataset_bytes=data, transfer_syntax_uid=EXPLICIT, sop_class_uid=MR,
            sop_instance_uid=uid,
        ).status  # fmt: skip

    found = {answer(), answer(uid="1.2.3"), answer(uid=".."), answer(data=b"\xff" * 64)}
    other = dataset_bytes(write_instance(tmp_path, study=".."))
    found.add(answer(data=other))
    monkeypatch.setattr(health, "disk_of", lambda _: health.Disk(0, 1 << 40, read_only=False))
    full = write_instance(tmp_path)
    found.add(answer(data=dataset_bytes(full), uid=full.stem))
    store.close()
    return found


def test_every_service_that_the_port_answers_has_its_status_codes(
    open_port: OpenPortWith, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[str] = []
    real = receiver_module.open_server

    def spy(entity: object, address: object, handlers: list, *more: object, **named: object):
        bound.extend(event.name for event, *_ in handlers)
        return real(entity, address, handlers, *more, **named)

    monkeypatch.setattr(receiver_module, "open_server", spy)
    open_port()
    services = {name for name in (event.removeprefix("EVT_") for event in bound) if name[1] == "_"}
    rows = document.table("status_returned").as_dicts()
    assert {name.replace("_", "-") for name in services} == {row["service"] for row in rows}
    assert {"C_ECHO", "C_STORE"} <= services


def test_what_a_response_means_is_stated_for_all_codes(document: Document) -> None:
    rows = document.table("status_understood").as_dicts()
    ranges = []
    for row in rows[:-1]:
        first, _, last = row["status"].partition("-")
        ranges.append((int(first, 16), int(last or first, 16), row))
    for code in range(0x10000):
        row = next((row for first, last, row in ranges if first <= code <= last), rows[-1])
        outcome, _ = classify(code)
        assert row["outcome"] == outcome, f"{code:04X}"
        assert ("whole class" in row["behaviour"]) == (code in CLASS_NOT_TAKEN), f"{code:04X}"
