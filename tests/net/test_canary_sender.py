"""The sender of canaries at a real port: let in while one is on its way, over TLS too, else not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.domain.canary import RunState, is_canary
from dicom_node.domain.roles import ProcessRow
from dicom_node.flow.peers import senders
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import Address, echo
from dicom_node.path_canary import PATIENT_NAME, PathCanary, write_canary
from dicom_node.phantom import packaged_study
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.net.certificates import Authority
from tests.net.conftest import MemoryIngest

STUDY = "2.25.1.2"


@contextmanager
def a_port(settings: dict[str, object], folder: Path) -> Iterator[SimpleNamespace]:
    """A receiver whose process is seen, over a database of its own."""
    own = {"data_dir": folder, "port": 0, **settings.pop("node", {})}  # type: ignore[dict-item]
    config = NodeConfig.model_validate({**settings, "node": own})
    clock, ingest = SystemClock(), MemoryIngest()
    store = open_store(config.database_url, clock)
    receiver = Receiver(config, store, ingest, clock)
    try:
        receiver.start()
        ports = {"port": receiver.plain_port, "tls_port": receiver.tls_port}
        opened = {name: port for name, port in ports.items() if port is not None}
        now_s = clock.now_s()
        store.process_beat(ProcessRow("r", "receiver", "", 1, "1", now_s, now_s, opened))
        yield SimpleNamespace(config=config, store=store, ingest=ingest, ports=opened)
    finally:
        receiver.stop(drain_s=0)
        store.close()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A phantom of three images: the way counts here, not the study."""
    import shutil

    folder = tmp_path / "phantom"
    folder.mkdir()
    for file in sorted(packaged_study().rglob("*.dcm"))[:3]:
        shutil.copy(file, folder / file.name)
    monkeypatch.setattr("dicom_node.path_canary.packaged_study", lambda: folder)


def canary_of(port: SimpleNamespace) -> PathCanary:
    return PathCanary(port.store, port.config, SystemClock())


def test_it_is_let_in_while_one_is_on_its_way(few: None, tmp_path: Path) -> None:
    with a_port({}, tmp_path) as port:
        target = Address("PROSTATE_AI", "127.0.0.1", port.ports["port"])
        assert not echo(target, calling_ae="CANARY").ok
        canary = canary_of(port)
        run = canary.begin(scheduled=False)
        canary.send(run)
        assert len(port.ingest.received) == 3
        assert {one["calling_ae"] for one in port.ingest.received} == {"CANARY"}
        assert canary.settle(run) is RunState.RUNNING, "the collaborator filed nothing"
        assert [peer.name for peer in senders(port.store, port.config)] == ["canary"]
        port.store.canary_end(run, SimpleNamespace(state=RunState.PASSED, message=""))
        assert senders(port.store, port.config) == []
        assert canary.settle(run) is RunState.PASSED


def test_over_tls_alone_where_nothing_else_is_spoken(few: None, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("node", "127.0.0.1")
    tls = authority.section(issued, enabled=True, port=0)
    with a_port({"node": {"plaintext": "off"}, "tls": tls.model_dump()}, tmp_path) as port:
        canary = canary_of(port)
        canary.send(canary.begin(scheduled=True))
        assert len(port.ingest.received) == 3


def test_a_refused_image_is_a_lost_canary(few: None, tmp_path: Path) -> None:
    with a_port({}, tmp_path) as port:
        port.ingest.error = OSError("disk")
        canary = canary_of(port)
        run = canary.begin(scheduled=True)
        canary.send(run)
        (told,) = port.store.canary_runs()
        assert (told.state, "images refused" in told.message) == (RunState.FAILED, True)


def test_a_peer_of_its_ae_title_takes_its_place(tmp_path: Path) -> None:
    peers = [{"name": "far", "ae_title": "CANARY", "host": "10.0.0.7"}]
    config = NodeConfig.model_validate({"node": {"data_dir": tmp_path}, "peers": peers})
    store = open_store(config.database_url, SystemClock())
    try:
        store.canary_begin("2.25.1", scheduled=True)
        assert [one.name for one in senders(store, config)] == ["far"]
    finally:
        store.close()


def test_the_study_is_the_phantom_under_new_uids_and_a_test_patient(tmp_path: Path) -> None:
    found = write_canary(tmp_path, STUDY, "CANARY")
    originals = {
        str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        for file in packaged_study().rglob("*.dcm")
    }
    read = [pydicom.dcmread(one.path, stop_before_pixels=True) for one in found]
    assert len(found) == len(originals) == len({one.sop_instance_uid for one in found})
    assert not originals & {one.sop_instance_uid for one in found}
    assert {(str(d.StudyInstanceUID), d.PatientID, str(d.PatientName)) for d in read} == {
        (STUDY, "CANARY", PATIENT_NAME)
    }
    for d, one in zip(read, found, strict=True):
        assert d.SOPInstanceUID == d.file_meta.MediaStorageSOPInstanceUID == one.sop_instance_uid
    again = write_canary(tmp_path, STUDY, "CANARY")
    assert again == found, "a function of the run"


def test_one_at_a_time_and_when_it_is_time(tmp_path: Path) -> None:
    from dicom_node.clock import ManualClock

    clock = ManualClock()
    config = NodeConfig.model_validate({"node": {"data_dir": tmp_path}, "canary": {"every_h": 24}})
    store: Store = open_store(config.database_url, clock, host="here")
    sent: list[object] = []
    canary = PathCanary(store, config, clock, sent.append)
    try:
        for _ in range(3):
            canary.turn()
        (run,) = store.canary_runs()
        assert (len(sent), run.scheduled, is_canary(run.study_uid)) == (1, True, True)
        clock.advance(60 * config.canary.limit_min)
        canary.turn()
        (run,) = store.canary_runs()
        assert (run.state, run.message) == (
            RunState.FAILED, "not back in time: it was not received",
        )  # fmt: skip
        canary.turn()
        assert len(sent) == 1, "the next is a day after the last"
        clock.advance(24 * 3600)
        canary.turn()
        assert len(sent) == 2
    finally:
        store.close()
