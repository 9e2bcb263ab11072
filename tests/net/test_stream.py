"""The loop that reads storage associations, driven byte by byte."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.net.contexts import VERIFICATION, supported_contexts
from dicom_node.net.library import application_entity
from dicom_node.net.limits import ServerLimits
from dicom_node.net.serving import drain, open_server, serve_in_thread
from dicom_node.net.stream import StorageStream, command_elements, encode_command
from tests.net.conftest import MR, OpenPortWith, wait_for
from tests.net.wire import AT_LAST_S, Wire, element, pdata, pdu, status_of, store_rq

COMMAND_AND_LAST, DATA, DATA_AND_LAST = 3, 0, 2
ABORT, RELEASE_RQ, RELEASE_RP = 7, 5, 6


def command_of(request: bytes) -> bytes:
    """The command set inside a P-DATA-TF of one value."""
    return request[12:]


def value(data: bytes, control: int, context_id: int = 1) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def received(node: object) -> list[bytes]:
    return [item["dataset_bytes"] for item in node.ingest.received]  # type: ignore[attr-defined]


def test_fragments_of_any_size_make_one_data_set(open_port: OpenPortWith) -> None:
    node = open_port()
    command, data = command_of(store_rq(b"1.2.3")), bytes(range(256)) * 1000
    with Wire(node.port).associate() as wire:
        for at in range(0, len(command), 7):
            last = at + 7 >= len(command)
            wire.send(pdata(command[at : at + 7], COMMAND_AND_LAST if last else 1))
        for at in range(0, len(data), 30_001):
            last = at + 30_001 >= len(data)
            wire.send(pdata(data[at : at + 30_001], DATA_AND_LAST if last else DATA))
        assert status_of(wire.read_pdu()[1]) == 0
        # command and data set in the values of one PDU; an empty last value
        wire.send(pdu(4, value(command, 3) + value(b"ab", DATA) + value(b"", DATA_AND_LAST)))
        assert status_of(wire.read_pdu()[1]) == 0
    assert received(node) == [data, b"ab"]


def test_bytes_that_come_one_by_one_and_pdus_that_come_together(open_port: OpenPortWith) -> None:
    node = open_port()
    both = store_rq(b"1.2.3") + pdata(b"abcd", DATA_AND_LAST)
    with Wire(node.port).associate() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in both:
            wire.send(bytes([byte]))
        assert status_of(wire.read_pdu()[1]) == 0
        wire.send(both + both)  # the next request before the answer
        assert [status_of(wire.read_pdu()[1]) for _ in range(2)] == [0, 0]
    assert received(node) == [b"abcd"] * 3


def test_a_small_message_after_a_large_one_is_not_mixed_with_it(open_port: OpenPortWith) -> None:
    node = open_port()
    large = bytes([7]) * 100_000
    with Wire(node.port).associate() as wire:
        for data in (large, b"xy", large[:50_000]):
            wire.send(store_rq(b"1.2.3") + pdata(data, DATA_AND_LAST))
            assert status_of(wire.read_pdu()[1]) == 0
    assert received(node) == [large, b"xy", large[:50_000]]


def test_release_is_answered_and_the_place_is_free_again(open_port: OpenPortWith) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        wire.send(pdu(RELEASE_RQ, bytes(4)))
        assert wire.read_pdu() == (RELEASE_RP, bytes(4))
        assert wire.closed_within(AT_LAST_S)
    wait_for(lambda: not any("AcceptorThread" in t.name for t in threading.enumerate()))


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (pdu(4, value(b"abcd", DATA)), 6),  # data before a command
        (pdu(4, value(b"", 3, context_id=9)), 6),  # a context that was not agreed on
        (pdu(4, struct.pack(">LBB", 1, 1, 3)), 6),  # a value shorter than its own header
        (pdu(4, struct.pack(">LBB", 500, 1, 3) + b"ab"), 6),  # longer than its PDU
        (pdu(4, b"\0\0\0"), 6),  # no room for a value
        (pdata(b"junk" * 10, COMMAND_AND_LAST), 6),  # no command set
        (pdata(element(0x0100, b"\x01\0") + b"\x08" + element(0x0018, b"ab")[1:], 3), 6),  # (0008
        (store_rq(b"1.2.3") + store_rq(b"1.2.3"), 6),  # a command inside a data set
        (store_rq(b"1.2.3") + pdu(4, value(b"ab", DATA, context_id=3)), 6),
        (pdu(1, bytes(100)), 2),  # a second association request
        (pdu(2, bytes(10)), 2),
        (pdu(99, bytes(10)), 2),  # no PDU type
    ],
)
def test_what_breaks_the_protocol_is_aborted(
    open_port: OpenPortWith, sent: bytes, reason: int
) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        wire.send(sent)
        assert wire.read_pdu() == (ABORT, bytes([0, 0, 2, reason]))
        assert wire.closed_within(AT_LAST_S)
    assert node.ingest.received == []


def test_a_cancel_is_no_request_and_an_unknown_one_is_refused(open_port: OpenPortWith) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        for field in (0x0FFF, 0x8001, 0x0020):  # C-CANCEL, a response, C-FIND
            body = element(0x0100, struct.pack("<H", field)) + element(
                0x0800, struct.pack("<H", 0x0101)
            )
            wire.send(pdata(element(0, struct.pack("<L", len(body))) + body, COMMAND_AND_LAST))
        kind, answer = wire.read_pdu()
        assert (kind, status_of(answer)) == (4, 0x0211)
        assert command_elements(answer[6:])[0x0100] == struct.pack("<H", 0x8020)


def test_the_answer_names_the_request(open_port: OpenPortWith) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        wire.send(store_rq(b"1.2.3") + pdata(b"ab", DATA_AND_LAST))
        _, answer = wire.read_pdu()
    found = command_elements(answer[6:])
    assert found[0x0002].rstrip(b"\0").decode() == MR
    assert (found[0x0100], found[0x0120]) == (b"\x01\x80", b"\x07\0")
    assert (found[0x0800], found[0x1000].rstrip(b"\0")) == (b"\x01\x01", b"1.2.3")


@given(st.lists(st.tuples(st.integers(1, 0xFFFF), st.binary(max_size=80)), min_size=1, max_size=9))
def test_command_sets_come_back_as_they_went(pairs: list[tuple[int, bytes]]) -> None:
    elements = {**dict(pairs), 0x0100: b"\x01\0"}
    back = command_elements(encode_command(list(elements.items())))
    assert back.pop(0) == struct.pack("<L", len(encode_command(list(elements.items()))) - 12)
    assert back == {n: v + b"\0" * (len(v) % 2) for n, v in elements.items()}


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_commands(data: bytes) -> None:
    with contextlib.suppress(OSError):
        assert 0x0100 in command_elements(data)


def test_an_association_with_another_service_stays_with_the_library(
    open_port: OpenPortWith, tmp_path: Path
) -> None:
    """A port that offers more than storage: who asks for it is served as before."""
    node = open_port()
    scp = node.handle._scp
    other = "1.2.840.10008.1.20.1"
    entity = application_entity("PROSTATE_AI")
    contexts = [*supported_contexts(), build_context(other)]
    server = open_server(entity, ("127.0.0.1", 0), scp.handlers(), ServerLimits(), contexts)
    thread = serve_in_thread(server)
    streams: list[object] = []
    entity_out = application_entity("PACS")
    try:
        for asked in ([VERIFICATION], [VERIFICATION, other]):
            for syntax in asked:
                entity_out.add_requested_context(syntax)
            assoc = entity_out.associate(
                "127.0.0.1", server.server_address[1], ae_title="PROSTATE_AI"
            )
            assert assoc.send_c_echo().Status == 0
            (acceptor,) = server.connections.associations()
            streams.append(
                isinstance(getattr(acceptor._run_reactor, "__self__", None), StorageStream)
            )
            assoc.release()
            wait_for(lambda: not server.connections.associations())
    finally:
        server.shutdown()
        thread.join()
        drain(server.connections, 0)
    assert streams == [True, False]


def has_taken_over(assoc: Association) -> bool:
    stream = getattr(assoc._run_reactor, "__self__", None)
    return isinstance(stream, StorageStream) and stream._connection is not None


def test_an_end_from_outside_is_told_to_the_peer(open_port: OpenPortWith) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        wait_for(lambda: any(map(has_taken_over, node.handle._connections.associations())))
        node.handle.stop(drain_s=0)
        assert wire.read_pdu() == (ABORT, bytes(4))
        assert wire.closed_within(AT_LAST_S)


def test_the_library_hears_how_an_association_ended(open_port: OpenPortWith) -> None:
    node = open_port()
    heard: list[str] = []
    (server, _thread) = node.handle._running[0]
    for event, name in ((evt.EVT_RELEASED, "released"), (evt.EVT_ABORTED, "aborted")):
        server.bind(event, lambda _event, name=name: heard.append(name))
    with Wire(node.port).associate() as wire:
        wire.send(pdu(RELEASE_RQ, bytes(4)))
        wire.read_pdu()
    wait_for(lambda: heard == ["released"])
    with Wire(node.port).associate() as wire:
        wire.reset()
    wait_for(lambda: heard == ["released", "aborted"])


def test_a_sender_that_waits_for_acknowledgements_is_not_held_up(open_port: OpenPortWith) -> None:
    """Header and body written apart on a socket with Nagle's algorithm, as stock senders do."""
    node = open_port()
    request, body = store_rq(b"1.2.3"), pdata(bytes(5000), DATA_AND_LAST)
    with Wire(node.port).associate() as wire:
        took_s = []
        for _ in range(40):
            begun = time.monotonic()
            for part in (request[:12], request[12:], body[:12], body[12:]):
                wire.send(part)
            assert status_of(wire.read_pdu()[1]) == 0
            took_s.append(time.monotonic() - begun)
    assert sorted(took_s)[10] < 0.04  # one delayed acknowledgement takes longer
