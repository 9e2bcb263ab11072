"""Peers that are silent, slow, too long or gone: the port stays open for the others.

The numbers F1-F9 name the attacks that the plain server of the library does not survive.
"""

from __future__ import annotations

import struct
import threading
import time

import pytest

from dicom_node.net.limits import ServerLimits
from dicom_node.net.sender import echo
from tests.net.conftest import OpenPort, OpenPortWith, peer, wait_for
from tests.net.wire import Wire, associate_rq, pdata, pdu, store_rq

PROMPT_S = 5.0
"""An honest echo beside an attack; the plain server rejects it or takes longer than 8 s."""
QUICK = ServerLimits(associate_s=0.6, pdu_s=0.6, idle_s=0.6)


def _echo_s(node: OpenPort) -> float:
    started = time.monotonic()
    result = echo(node.address, calling_ae="PACS")
    assert result.ok, result.message
    return time.monotonic() - started


def _acceptor_threads() -> int:
    return sum("AcceptorThread" in thread.name for thread in threading.enumerate())


def test_a_silent_client_is_dropped_and_holds_no_thread(open_port: OpenPortWith) -> None:
    node = open_port(limits=QUICK)
    with Wire(node.port) as silent:
        assert _echo_s(node) < PROMPT_S
        assert silent.closed_within(3)
    wait_for(lambda: _acceptor_threads() == 0)


def test_f2_half_pdus_hold_nobody_up(open_port: OpenPortWith) -> None:
    node = open_port(limits=QUICK)
    silent = [Wire(node.port) for _ in range(20)]
    for wire in silent:
        wire.send(associate_rq()[:7])
    assert _echo_s(node) < PROMPT_S
    assert all(wire.closed_within(5) for wire in silent)
    for wire in silent:
        wire.socket.close()
    wait_for(lambda: _acceptor_threads() == 0)


def test_f2_a_pdu_that_drips_is_cut_at_its_deadline(open_port: OpenPortWith) -> None:
    node = open_port(limits=QUICK)
    with Wire(node.port) as wire:
        started = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            for byte in associate_rq():
                wire.send(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - started < 4


@pytest.mark.parametrize("declared", [300 * 1024, 2**31, 2**32 - 1])
def test_f3_an_over_long_request_is_refused_at_its_header(
    open_port: OpenPortWith, declared: int
) -> None:
    node = open_port()
    with Wire(node.port) as wire:
        wire.send(struct.pack(">BBL", 1, 0, declared))
        assert wire.read_pdu() == (7, bytes([0, 0, 2, 6]))  # A-ABORT, invalid parameter
        assert wire.closed_within(3)
    assert _echo_s(node) < PROMPT_S


def test_f3_an_over_long_data_pdu_is_refused(open_port: OpenPortWith) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        wire.send(struct.pack(">BBL", 4, 0, 200 * 1024))
        assert wire.read_pdu()[0] == 7
    assert node.ingest.received == []


def test_an_over_long_data_set_ends_the_association(open_port: OpenPortWith) -> None:
    node = open_port(limits=ServerLimits(instance_bytes=100_000))
    with Wire(node.port).associate() as wire:
        wire.send(store_rq(b"1.2.3"))
        for _ in range(8):
            wire.send(pdata(bytes(16_000), control=0))
        assert wire.read_pdu()[0] == 7
    assert node.ingest.received == []


def test_an_endless_command_set_ends_the_association(open_port: OpenPortWith) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        for _ in range(6):
            wire.send(pdata(bytes(16_000), control=1))
        assert wire.read_pdu()[0] == 7


def test_f4_idle_connections_do_not_count_as_associations(open_port: OpenPortWith) -> None:
    node = open_port(limits=ServerLimits(associations=2))
    idle = [Wire(node.port) for _ in range(10)]
    assert _echo_s(node) < PROMPT_S
    for wire in idle:
        wire.socket.close()


def test_at_the_cap_the_oldest_connection_without_association_gives_way(
    open_port: OpenPortWith,
) -> None:
    node = open_port(limits=ServerLimits(connections=5, connections_per_address=5))
    idle = [Wire(node.port) for _ in range(5)]
    wait_for(lambda: _acceptor_threads() == 5)
    assert _echo_s(node) < PROMPT_S
    assert idle[0].closed_within(3)
    for wire in idle:
        wire.socket.close()


def test_established_associations_keep_their_place(open_port: OpenPortWith) -> None:
    node = open_port(limits=ServerLimits(associations=2))
    standing = [Wire(node.port).associate() for _ in range(2)]
    result = echo(node.address, calling_ae="PACS")
    assert not result.ok
    assert "limit" in result.message.lower()
    for wire in standing:
        wire.reset()
    wait_for(lambda: echo(node.address, calling_ae="PACS").ok)


@pytest.mark.parametrize("way", ["reset", "abort", "half pdu"])
def test_f7_an_association_cut_in_a_c_store_stores_nothing(
    open_port: OpenPortWith, way: str
) -> None:
    node = open_port()
    wire = Wire(node.port).associate()
    wire.send(store_rq(b"1.2.3") + pdata(bytes(10_000), control=0))
    if way == "abort":
        wire.send(pdu(7, bytes(4)))
    elif way == "half pdu":
        wire.send(pdata(bytes(10_000), control=2)[:5_000])
    if way == "reset":
        wire.reset()
    wire.socket.close()
    wait_for(lambda: _acceptor_threads() == 0)
    assert node.ingest.received == []
    assert _echo_s(node) < PROMPT_S


def test_f8_a_burst_of_connects_does_not_stall(open_port: OpenPortWith) -> None:
    node = open_port()
    started = time.monotonic()
    wires = [Wire(node.port) for _ in range(100)]
    # a backlog that is too short makes the kernel drop SYNs: 15 s and more
    assert time.monotonic() - started < 8
    for wire in wires:
        wire.socket.close()
    assert _echo_s(node) < 2 * PROMPT_S


def test_an_established_but_silent_peer_is_ended(open_port: OpenPortWith) -> None:
    node = open_port(limits=QUICK)
    with Wire(node.port).associate() as wire:
        assert wire.closed_within(4)
    wait_for(lambda: _acceptor_threads() == 0)


@pytest.mark.parametrize(
    "junk",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"", b"\0" * 64],
)
def test_what_is_not_dicom_is_dropped(open_port: OpenPortWith, junk: bytes) -> None:
    node = open_port(limits=QUICK)
    for _ in range(5):
        with Wire(node.port) as wire:
            wire.send(junk)
    wait_for(lambda: _acceptor_threads() == 0)
    assert _echo_s(node) < PROMPT_S


def test_logs_hold_nothing_that_a_peer_sent(
    open_port: OpenPortWith, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    node = open_port([peer("CANARY_AE")])
    with Wire(node.port) as wire:
        wire.send(associate_rq("CANARY_AE"))
        wire.read_pdu()
        wire.send(store_rq(b"1.2.3") + pdata(b"\x10\x00\x10\x00CANARY^NAME", control=2))
        wire.read_pdu()
    text = caplog.text + "".join(capfd.readouterr())
    assert "CANARY" not in text
