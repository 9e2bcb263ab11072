"""The port with real sockets: services, access control, live peers, errors of the receive path."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from pydicom.uid import UID
from pynetdicom import AE

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig
from dicom_node.errors import ConfigError, StoreError
from dicom_node.net.access import PEERS_FRESH_S, Refusal
from dicom_node.net.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicom_node.net.limits import ServerLimits
from dicom_node.net.outcomes import Outcome
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import Address, echo, outgoing, send
from dicom_node.net.standin import dataset_bytes
from dicom_node.store.store import Store
from tests.net.conftest import (
    MR,
    Answer,
    OpenPortWith,
    peer,
    wait_for,
    write_instance,
)
from tests.net.wire import Wire, pdata, status_of, store_rq

DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
CT = "1.2.840.10008.5.1.4.1.1.2"


def test_echo_from_a_known_peer(open_port: OpenPortWith) -> None:
    node = open_port()
    result = echo(node.address, calling_ae="PACS")
    assert result.ok, result.message


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_bytes_arrive_as_sent_in_every_transfer_syntax(
    open_port: OpenPortWith, tmp_path: Path, syntax: str
) -> None:
    node = open_port()
    path = write_instance(tmp_path, syntax=syntax, kilobytes=300)
    statuses = send(node.address, [outgoing(path)], calling_ae="PACS")
    assert [s.outcome for s in statuses] == [Outcome.SENT]
    (received,) = node.ingest.received
    assert received["dataset_bytes"] == dataset_bytes(path)
    assert received["transfer_syntax_uid"] == syntax
    assert received["sop_instance_uid"] == path.stem
    assert (received["calling_ae"], received["address"]) == ("PACS", "127.0.0.1")


@pytest.mark.parametrize("sop_class", STORAGE_CLASSES)
def test_every_sop_class_of_the_table_is_taken(
    open_port: OpenPortWith, tmp_path: Path, sop_class: str
) -> None:
    node = open_port()
    path = write_instance(tmp_path, sop_class=sop_class)
    assert send(node.address, [outgoing(path)], calling_ae="PACS")[0].outcome is Outcome.SENT


@pytest.mark.parametrize("syntax", [DEFLATED, JPEG_BASELINE])
def test_deflate_and_lossy_are_not_negotiated(open_port: OpenPortWith, syntax: str) -> None:
    node = open_port()
    entity = AE(ae_title="PACS")
    entity.add_requested_context(UID(MR), [UID(syntax)])
    assoc = entity.associate("127.0.0.1", node.port, ae_title="PROSTATE_AI")
    assert not assoc.is_established
    assert [cx.result for cx in assoc.rejected_contexts] == [4]
    wait_for(node.refusals)
    assert node.refusals()[0][3] == f"{Refusal.TRANSFER_SYNTAX_NOT_SUPPORTED}: {MR}"


def test_unsupported_sop_class_is_refused_and_recorded(
    open_port: OpenPortWith, tmp_path: Path
) -> None:
    node = open_port()
    paths = [write_instance(tmp_path), write_instance(tmp_path, sop_class=CT)]
    statuses = send(node.address, [outgoing(p) for p in paths], calling_ae="PACS")
    assert [s.outcome for s in statuses] == [Outcome.SENT, Outcome.PERMANENT]
    reason = f"{Refusal.SOP_CLASS_NOT_SUPPORTED}: {CT}"
    wait_for(node.refusals)
    assert node.refusals() == [("PACS", "PROSTATE_AI", "127.0.0.1", reason)]


@pytest.mark.parametrize(
    "case",
    [
        ("PACS", "WRONG", peer(), Refusal.CALLED_AE_UNKNOWN, (1, 1, 7)),
        ("NOBODY", "PROSTATE_AI", peer(), Refusal.CALLING_AE_UNKNOWN, (1, 1, 3)),
        ("pacs", "PROSTATE_AI", peer(), Refusal.CALLING_AE_UNKNOWN, (1, 1, 3)),
        ("PACS", "PROSTATE_AI", peer(host="10.9.8.7"), Refusal.ADDRESS_NOT_ALLOWED, (1, 1, 3)),
        (
            "PACS",
            "PROSTATE_AI",
            peer(**{"from": ["10.0.0.0/8"]}),
            Refusal.ADDRESS_NOT_ALLOWED,
            (1, 1, 3),
        ),
        ("PACS", "PROSTATE_AI", peer(may_send=False), Refusal.MAY_NOT_SEND, (1, 1, 3)),
    ],
)
def test_who_is_refused_and_what_is_recorded(
    open_port: OpenPortWith,
    case: tuple[str, str, PeerConfig, Refusal, tuple[int, int, int]],
) -> None:
    calling, called, known, refusal, reason = case
    node = open_port([known])
    entity = AE(ae_title=calling)
    entity.add_requested_context("1.2.840.10008.1.1")
    assoc = entity.associate("127.0.0.1", node.port, ae_title=called)
    assert assoc.is_rejected
    answer = assoc.acceptor.primitive
    assert answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == reason
    wait_for(node.refusals)
    assert node.refusals() == [(calling, called, "127.0.0.1", refusal.value)]


@pytest.mark.parametrize("block", ["127.0.0.0/8", "127.0.0.1"])
def test_from_allows_an_address_block(open_port: OpenPortWith, block: str) -> None:
    node = open_port([peer(host="10.9.8.7", **{"from": [block]})])
    assert echo(node.address, calling_ae="PACS").ok


def test_a_peer_added_while_running_counts_within_a_second(open_port: OpenPortWith) -> None:
    node = open_port([peer("OTHER")])
    assert not echo(node.address, calling_ae="PACS").ok
    elsewhere = Store(node.database_url, clock=SystemClock())
    elsewhere.peer_add(peer())
    time.sleep(1.0)
    assert echo(node.address, calling_ae="PACS").ok
    elsewhere.peer_remove("pacs")
    elsewhere.close()
    time.sleep(1.0)
    assert not echo(node.address, calling_ae="PACS").ok


def test_when_peers_cannot_be_read_nobody_comes_in(
    open_port: OpenPortWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_port()

    def fail() -> None:
        raise StoreError("database is locked")

    monkeypatch.setattr(node.store, "peers", fail)
    time.sleep(PEERS_FRESH_S + 0.1)
    assert not echo(node.address, calling_ae="PACS").ok
    wait_for(node.refusals)
    assert node.refusals()[0][3] == Refusal.NODE_UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (OSError("disk"), 0xA700, Outcome.TRANSIENT),
        (StoreError("database is locked"), 0xA700, Outcome.TRANSIENT),
        (KeyError("a bug"), 0x0110, Outcome.TRANSIENT),
    ],
)
def test_an_error_is_answered_and_the_association_lives_on(
    open_port: OpenPortWith, tmp_path: Path, error: Exception, code: int, outcome: Outcome
) -> None:
    node = open_port()
    node.ingest.error = error
    paths = [write_instance(tmp_path) for _ in range(2)]
    statuses = send(node.address, [outgoing(p) for p in paths], calling_ae="PACS")
    assert [(s.code, s.outcome) for s in statuses] == [(code, outcome)] * 2
    node.ingest.error = None
    assert send(node.address, [outgoing(paths[0])], calling_ae="PACS")[0].code == 0


def test_the_answer_of_the_receive_path_goes_out(open_port: OpenPortWith, tmp_path: Path) -> None:
    node = open_port()
    node.ingest.answer = Answer(0xA900, "SOP Instance UID differs in the data set")
    (status,) = send(node.address, [outgoing(write_instance(tmp_path))], calling_ae="PACS")
    assert status.code == 0xA900
    assert "differs in the data set" in status.detail


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    "uid", ["../../../etc/x", "..", "1.2/../../a", "A" * 64, "1..2", "1.2.3\0.4"]
)
def test_what_is_no_uid_never_reaches_the_receive_path(open_port: OpenPortWith, uid: str) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        wire.send(store_rq(uid.encode()) + pdata(b"\x08\x00\x05\x00\x00\x00\x00\x00", control=2))
        kind, body = wire.read_pdu()
        assert kind == 4
        assert status_of(body) == 0x0117
    assert node.ingest.received == []


def test_stop_lets_a_running_association_finish(open_port: OpenPortWith, tmp_path: Path) -> None:
    node = open_port()
    node.ingest.hold = threading.Event()
    results: list[object] = []
    items = [outgoing(write_instance(tmp_path)) for _ in range(3)]
    sending = threading.Thread(
        target=lambda: results.extend(send(node.address, items, calling_ae="PACS"))
    )
    sending.start()
    wait_for(node.handle._connections.associations)
    stopping = threading.Thread(target=node.handle.stop, kwargs={"drain_s": 60})
    stopping.start()
    wait_for(lambda: not echo(node.address, calling_ae="PACS").ok)
    node.ingest.hold.set()
    sending.join(60)
    stopping.join(60)
    assert not stopping.is_alive()
    assert len(node.ingest.received) == len(results) == 3


def test_stop_ends_an_idle_association(open_port: OpenPortWith) -> None:
    node = open_port()
    entity = AE(ae_title="PACS")
    entity.add_requested_context("1.2.840.10008.1.1")
    assoc = entity.associate("127.0.0.1", node.port, ae_title="PROSTATE_AI")
    started = time.monotonic()
    node.handle.stop(drain_s=0.2)
    assert time.monotonic() - started < 20
    wait_for(lambda: assoc.is_aborted)


def test_a_slow_answer_does_not_cut_the_association(
    open_port: OpenPortWith, tmp_path: Path
) -> None:
    node = open_port(limits=ServerLimits(idle_s=1.0))
    node.ingest.hold = threading.Event()
    threading.Timer(2.0, node.ingest.hold.set).start()
    items = [outgoing(write_instance(tmp_path)) for _ in range(2)]
    statuses = send(node.address, items, calling_ae="PACS")
    assert [s.outcome for s in statuses] == [Outcome.SENT, Outcome.SENT]


def test_a_port_in_use_is_said_plainly(open_port: OpenPortWith) -> None:
    node = open_port()
    config = NodeConfig(node=NodeSection(port=node.port))
    with pytest.raises(ConfigError, match="cannot listen"):
        Receiver(config, node.store, node.ingest, SystemClock()).start()


def test_address_of_a_stranger(open_port: OpenPortWith) -> None:
    result = echo(Address("PROSTATE_AI", "127.0.0.1", open_port().port), calling_ae="STRANGER")
    assert "rejected" in result.message
