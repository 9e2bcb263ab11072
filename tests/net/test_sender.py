"""The sending side against the stand-in and against peers that misbehave."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_node.net.advice import advice
from dicom_node.net.contexts import TRANSFER_SYNTAXES
from dicom_node.net.limits import SenderLimits
from dicom_node.net.outcomes import Outcome, classify
from dicom_node.net.sender import Address, Outgoing, echo, outgoing, send
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from tests.net.conftest import MR, wait_for, write_instance

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
IMPATIENT = SenderLimits(connect_s=1, associate_s=1, answer_s=1, stall_s=1)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[PacsStandIn]:
    with PacsStandIn("PACS", tmp_path / "pacs") as standin:
        yield standin


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_stored_bytes_arrive_unchanged(pacs: PacsStandIn, tmp_path: Path, syntax: str) -> None:
    path = write_instance(tmp_path, syntax=syntax)
    (status,) = send(pacs.address, [outgoing(path)], calling_ae="NODE")
    assert (status.outcome, status.code, status.detail) == (Outcome.SENT, 0, "")
    (filed,) = pacs.filed()
    assert dataset_bytes(filed.path) == dataset_bytes(path)
    assert (filed.transfer_syntax_uid, filed.calling_ae) == (syntax, "NODE")
    assert dcmread(filed.path).SOPInstanceUID == path.stem


def test_one_association_keeps_the_order(pacs: PacsStandIn, tmp_path: Path) -> None:
    paths = [write_instance(tmp_path, sop_class=c) for c in (SEG, MR, SR, SEG)]
    statuses = send(pacs.address, [outgoing(p) for p in paths], calling_ae="NODE")
    assert [s.sop_instance_uid for s in statuses] == [p.stem for p in paths]
    assert [f.sop_instance_uid for f in pacs.filed()] == [p.stem for p in paths]
    assert pacs.associations == 1


def _implicit_only(handler: Callable[[evt.Event], int]) -> tuple[AE, Address]:
    entity = AE(ae_title="OLD")
    entity.add_supported_context(MR, ImplicitVRLittleEndian)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handler)]
    )
    assert server is not None
    return entity, Address("OLD", "127.0.0.1", server.server_address[1])


def test_a_peer_that_takes_only_implicit_gets_the_same_conversion_each_time(
    tmp_path: Path,
) -> None:
    received: list[bytes] = []

    def keep(event: evt.Event) -> int:
        received.append(event.request.DataSet.getvalue())
        return 0

    entity, address = _implicit_only(keep)
    path = write_instance(tmp_path)
    try:
        for _ in range(2):
            assert send(address, [outgoing(path)], calling_ae="NODE")[0].outcome is Outcome.SENT
    finally:
        entity.shutdown()
    assert received[0] == received[1] != dataset_bytes(path)
    (tmp_path / "implicit").mkdir()
    expected = dcmread(path)
    expected.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    expected.save_as(tmp_path / "implicit" / "x.dcm", implicit_vr=True, little_endian=True)
    assert received[0] == dataset_bytes(tmp_path / "implicit" / "x.dcm")


@pytest.mark.parametrize("refused", [SEG, SR])
def test_d4_a_class_the_peer_does_not_take_is_permanent_for_that_object_alone(
    tmp_path: Path, refused: str
) -> None:
    taken = SR if refused == SEG else SEG
    with PacsStandIn("PACS", tmp_path / "pacs", sop_classes=[taken]) as pacs:
        paths = [write_instance(tmp_path, sop_class=c) for c in (SEG, SR)]
        statuses = send(pacs.address, [outgoing(p) for p in paths], calling_ae="NODE")
        outcome = {p.stem: s.outcome for p, s in zip(paths, statuses, strict=True)}
        by_class = {refused: Outcome.PERMANENT, taken: Outcome.SENT}
        assert list(outcome.values()) == [by_class[SEG], by_class[SR]]
        assert [f.sop_class_uid for f in pacs.filed()] == [taken]


def test_d4_a_peer_that_takes_nothing_offered(tmp_path: Path) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs", sop_classes=[MR]) as pacs:
        item = outgoing(write_instance(tmp_path, sop_class=SEG))
        (status,) = send(pacs.address, [item], calling_ae="NODE")
    assert status.outcome is Outcome.PERMANENT
    assert "does not take Segmentation Storage" in status.detail


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0xA700, Outcome.TRANSIENT),  # D5
        (0x0110, Outcome.TRANSIENT),
        (0xA900, Outcome.PERMANENT),  # D6
        (0xC123, Outcome.PERMANENT),
        (0x0117, Outcome.PERMANENT),
        (0x0124, Outcome.PERMANENT),
        (0x0122, Outcome.PERMANENT),
        (0xB000, Outcome.SENT),  # D7
        (0xB007, Outcome.SENT),
        (0x0111, Outcome.SENT),
        (0x7777, Outcome.UNKNOWN),  # D8
    ],
)
def test_statuses_over_the_wire(
    pacs: PacsStandIn, tmp_path: Path, code: int, outcome: Outcome
) -> None:
    pacs.answer_with([code])
    items = [outgoing(write_instance(tmp_path)) for _ in range(2)]
    statuses = send(pacs.address, items, calling_ae="NODE")
    assert [(s.outcome, s.code) for s in statuses] == [(outcome, code), (Outcome.SENT, 0)]
    assert f"{code:04X}" in statuses[0].detail


@given(st.integers(0, 0xFFFF))
def test_d8_every_code_has_an_outcome(code: int) -> None:
    outcome, meaning = classify(code)
    assert outcome in Outcome
    assert bool(meaning) is (code != 0)
    assert (outcome is Outcome.SENT) == (
        code in {0, 1, 0x0107, 0x0111, 0x0116} or 0xB000 <= code <= 0xBFFF
    )


def test_pacs_down_then_up(pacs: PacsStandIn, tmp_path: Path) -> None:
    item = outgoing(write_instance(tmp_path))
    pacs.stop()
    (status,) = send(pacs.address, [item], calling_ae="NODE")
    assert (status.outcome, status.code) == (Outcome.TRANSIENT, None)
    assert "cannot connect" in status.detail
    pacs.start()
    assert send(pacs.address, [item], calling_ae="NODE")[0].outcome is Outcome.SENT


def test_wrong_ae_title_is_said(pacs: PacsStandIn, tmp_path: Path) -> None:
    wrong = Address("OTHER", "127.0.0.1", pacs.port)
    (status,) = send(wrong, [outgoing(write_instance(tmp_path))], calling_ae="NODE")
    assert status.outcome is Outcome.TRANSIENT
    assert "Called AE title not recognised" in status.detail
    assert "rejected" in echo(wrong, calling_ae="NODE").message


def test_unknown_host_is_said() -> None:
    result = echo(Address("PACS", "no-such-host.invalid", 104), calling_ae="NODE")
    assert not result.ok
    assert "host cannot be found" in result.message


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.slow
def test_f10_a_silent_peer_costs_bounded_time(silent_port: int, tmp_path: Path) -> None:
    silent = Address("PACS", "127.0.0.1", silent_port)
    started = time.monotonic()
    item = outgoing(write_instance(tmp_path))
    (status,) = send(silent, [item], calling_ae="NODE", limits=IMPATIENT)
    assert status.outcome is Outcome.TRANSIENT
    assert not echo(silent, calling_ae="NODE", limits=IMPATIENT).ok
    assert time.monotonic() - started < 15


def _answering(handler: Callable[[evt.Event], int], **settings: float) -> tuple[AE, Address]:
    entity = AE(ae_title="ODD")
    for name, value in settings.items():
        setattr(entity, name, value)
    entity.add_supported_context(MR, list(TRANSFER_SYNTAXES))
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handler)]
    )
    assert server is not None
    return entity, Address("ODD", "127.0.0.1", server.server_address[1])


def test_d5_a_peer_that_does_not_answer_a_c_store(tmp_path: Path) -> None:
    release = threading.Event()

    def never(_event: evt.Event) -> int:
        release.wait(60)
        return 0

    entity, address = _answering(never)
    items = [outgoing(write_instance(tmp_path)) for _ in range(2)]
    limits = SenderLimits(answer_s=0.5, least_bytes_per_s=10**9)
    started = time.monotonic()
    try:
        statuses = send(address, items, calling_ae="NODE", limits=limits)
    finally:
        release.set()
        entity.shutdown()
    assert [s.outcome for s in statuses] == [Outcome.TRANSIENT] * 2
    assert time.monotonic() - started < 30


def test_d5_a_peer_that_aborts_half_way(tmp_path: Path) -> None:
    seen: list[int] = []

    def abort_second(event: evt.Event) -> int:
        seen.append(1)
        if len(seen) == 2:
            event.assoc.abort()
        return 0

    entity, address = _answering(abort_second)
    items = [outgoing(write_instance(tmp_path)) for _ in range(3)]
    started = time.monotonic()
    try:
        statuses = send(address, items, calling_ae="NODE")
    finally:
        entity.shutdown()
    assert time.monotonic() - started < 20, "does not wait for an answer that cannot come"
    wanted = [Outcome.SENT, Outcome.TRANSIENT, Outcome.TRANSIENT]
    assert [s.outcome for s in statuses] == wanted


def test_d9_a_peer_that_stops_reading(tmp_path: Path) -> None:
    """Accepts the association, then takes no more bytes: the send ends by its stall limit."""
    path = write_instance(tmp_path, kilobytes=8 * 1000)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    held: list[socket.socket] = []

    def accept() -> None:
        connection, _ = listener.accept()
        held.append(connection)
        connection.recv(65536)
        context = b"\x21\0" + (4 + 4 + 19).to_bytes(2) + b"\x01\0\0\0\x40\0\0\x13"
        context += b"1.2.840.10008.1.2.1"
        user = b"\x50\0\0\x08\x51\0\0\x04" + (65536).to_bytes(4)
        application = b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1"
        body = b"\0\1\0\0" + bytes(64) + application + context + user
        connection.sendall(b"\2\0" + len(body).to_bytes(4) + body)

    thread = threading.Thread(target=accept)
    thread.start()
    started = time.monotonic()
    limits = SenderLimits(stall_s=0.5, answer_s=30)
    address = Address("SLOW", "127.0.0.1", listener.getsockname()[1])
    (status,) = send(address, [outgoing(path)], calling_ae="NODE", limits=limits)
    assert time.monotonic() - started < 20
    assert status.outcome is Outcome.TRANSIENT
    thread.join()
    for connection in (*held, listener):
        connection.close()


def test_a_file_that_is_no_longer_what_was_stored_is_not_sent(
    pacs: PacsStandIn, tmp_path: Path
) -> None:
    paths = [write_instance(tmp_path) for _ in range(4)]
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    good = Outgoing(paths[0], MR, paths[0].stem, digest)
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"!")
    changed = Outgoing(paths[1], MR, paths[1].stem, digest)
    other = Outgoing(paths[2], MR, "1.2.3.4.5")
    paths[3].write_bytes(b"nothing")
    broken = Outgoing(paths[3], MR, paths[3].stem)
    gone = Outgoing(tmp_path / "gone.dcm", MR, "1.2.3")
    statuses = send(pacs.address, [changed, good, other, broken, gone], calling_ae="NODE")
    assert [s.outcome for s in statuses] == [
        Outcome.PERMANENT,
        Outcome.SENT,
        Outcome.PERMANENT,
        Outcome.PERMANENT,
        Outcome.PERMANENT,
    ]
    assert [f.sop_instance_uid for f in pacs.filed()] == [paths[0].stem]


def test_no_thread_is_left(pacs: PacsStandIn, tmp_path: Path) -> None:
    before = threading.active_count()
    item = outgoing(write_instance(tmp_path))
    send(pacs.address, [item], calling_ae="NODE")
    pacs.stop()
    send(pacs.address, [item], calling_ae="NODE")
    wait_for(lambda: threading.active_count() <= before)


def test_an_echo_that_fails_says_where_to_look(tmp_path: Path) -> None:
    with socket.socket() as free, PacsStandIn("REAL", tmp_path / "pacs") as pacs:
        free.bind(("127.0.0.1", 0))

        def told(ae_title: str, host: str, port: int) -> str:
            answer = echo(Address(ae_title, host, port), calling_ae="NODE")
            assert not answer.ok
            return answer.message

        assert "nothing listens on port" in told("REAL", "127.0.0.1", free.getsockname()[1])
        assert "check" in told("REAL", "no-such-host.invalid", 104)
        assert echo(Address("REAL", "127.0.0.1", pacs.port), calling_ae="NODE").ok
    rejected = "association rejected: Called AE title not recognised"
    assert "correct its AE title" in advice(rejected, "h", 104, "PACS", "NODE")
    rejected = "association rejected: Calling AE title not recognised"
    assert "does not know NODE" in advice(rejected, "h", 104, "PACS", "NODE")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "whether it wants TLS" in advice("cannot connect", "127.0.0.1", port, "A", "B")
    assert advice("another problem", "h", 104, "A", "B") == ""
