"""Peers that are silent, slow, too long or gone: the port stays open for the others.

The numbers F1-F9 name the attacks that the plain server of the library does not survive.
"""

from __future__ import annotations

import struct
import threading
import time

import pytest

from dicom_node.net.limits import ServerLimits
from dicom_node.net.refusals import PAUSE_S, RefusalLog, Refused
from dicom_node.net.sender import echo
from tests.net.conftest import OpenPort, OpenPortWith, peer, wait_for
from tests.net.wire import (
    AT_LAST_S,
    IMPLICIT_LE,
    MR,
    SOON_S,
    Wire,
    associate_rq,
    item,
    pdata,
    pdu,
    status_of,
    store_rq,
)

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
        assert silent.closed_within(SOON_S)
    wait_for(lambda: _acceptor_threads() == 0)


def test_f2_half_pdus_hold_nobody_up(open_port: OpenPortWith) -> None:
    node = open_port(limits=QUICK)
    silent = [Wire(node.port) for _ in range(20)]
    for wire in silent:
        wire.send(associate_rq()[:7])
    assert _echo_s(node) < PROMPT_S
    assert all(wire.closed_within(SOON_S) for wire in silent)
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
        assert time.monotonic() - started < SOON_S


def test_a_malformed_request_ends_at_once_and_leaves_no_thread(open_port: OpenPortWith) -> None:
    """The library's threads raise on these; the peer keeps its end open all the while."""
    node = open_port()
    assert _echo_s(node) < PROMPT_S
    wait_for(lambda: not node.handle._connections.living())
    before = threading.active_count()
    no_transfer, no_abstract = item(0x30, MR), item(0x40, IMPLICIT_LE)
    for number, syntaxes in ((2, no_transfer + no_abstract), (1, no_transfer), (1, no_abstract)):
        whole = associate_rq()
        own = item(0x20, b"\x01\0\0\0" + item(0x30, MR) + item(0x40, IMPLICIT_LE))
        body = whole[6:].replace(own, item(0x20, bytes([number, 0, 0, 0]) + syntaxes))
        with Wire(node.port) as wire:
            wire.send(pdu(1, body))
            assert wire.read_pdu()[0] == 7
            assert wire.closed_within(SOON_S)
            wait_for(lambda: threading.active_count() <= before)
        wait_for(lambda: not node.handle._connections.living())
    assert _echo_s(node) < PROMPT_S


@pytest.mark.parametrize("declared", [300 * 1024, 2**31, 2**32 - 1])
def test_f3_an_over_long_request_is_refused_at_its_header(
    open_port: OpenPortWith, declared: int
) -> None:
    node = open_port()
    with Wire(node.port) as wire:
        wire.send(struct.pack(">BBL", 1, 0, declared))
        assert wire.read_pdu() == (7, bytes([0, 0, 2, 6]))  # A-ABORT, invalid parameter
        assert wire.closed_within(SOON_S)
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
        wait_for(lambda: _acceptor_threads() == 0)  # it keeps no place until the idle timer ends
    assert node.ingest.received == []


def test_an_endless_command_set_ends_the_association(open_port: OpenPortWith) -> None:
    node = open_port()
    with Wire(node.port).associate() as wire:
        for _ in range(6):
            wire.send(pdata(bytes(16_000), control=1))
        assert wire.read_pdu()[0] == 7
        wait_for(lambda: _acceptor_threads() == 0)


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
    assert idle[0].closed_within(SOON_S)
    for wire in idle:
        wire.socket.close()


STRANGER = "127.0.0.2"  # all of 127.0.0.0/8 is this machine; no peer sends from here


def test_r8_strangers_have_a_small_room_and_peers_the_rest(open_port: OpenPortWith) -> None:
    node = open_port(limits=ServerLimits(connections=8, strangers=3))
    flood = [Wire(node.port, STRANGER) for _ in range(40)]
    assert _echo_s(node) < PROMPT_S
    wait_for(lambda: _acceptor_threads() <= 3)
    for wire in flood:
        wire.socket.close()


def test_a_stranger_still_learns_that_it_is_one(open_port: OpenPortWith) -> None:
    """The administrator finds its AE title and address in the list of refusals."""
    node = open_port()
    with Wire(node.port, STRANGER) as wire:
        wire.send(associate_rq("NEW_MR"))
        assert wire.read_pdu()[0] == 3
    wait_for(node.refusals)
    assert node.refusals() == [("NEW_MR", "PROSTATE_AI", STRANGER, "calling_ae_unknown")]


def test_a_peer_added_while_running_leaves_the_room_of_strangers(open_port: OpenPortWith) -> None:
    node = open_port([peer(host=STRANGER)], limits=ServerLimits(strangers=1))
    access = node.handle._access
    assert access.is_source(STRANGER)
    assert not access.is_source("127.0.0.1")
    node.store.peer_add(peer("MR1"))
    wait_for(lambda: access.is_source("127.0.0.1"))


def test_r8_one_peer_cannot_take_every_association(open_port: OpenPortWith) -> None:
    node = open_port([peer(), peer("MR1")], ServerLimits(associations=4, associations_per_peer=3))
    standing = [Wire(node.port).associate("PACS") for _ in range(3)]
    assert not echo(node.address, calling_ae="PACS").ok
    assert echo(node.address, calling_ae="MR1").ok
    for wire in standing:
        wire.reset()


def test_r8_a_flood_of_refusals_is_recorded_at_the_pace_of_the_node(
    open_port: OpenPortWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record is a synced transaction: as many as refusals would hold up the images."""
    node = open_port()
    written: list[int] = []
    record = node.store.record_refusal

    def counted(calling: str, called: str, address: str, reason: str, count: int = 1) -> None:
        record(calling, called, address, reason, count)
        written.append(count)

    monkeypatch.setattr(node.store, "record_refusal", counted)
    begun = time.monotonic()
    for _ in range(60):
        with Wire(node.port) as wire:
            wire.send(associate_rq("STRANGER"))
            assert wire.read_pdu()[0] == 3
    wait_for(lambda: sum(written) == 60)
    assert len(written) < 2 + (time.monotonic() - begun) / PAUSE_S
    assert node.store.refusals()[0]["count"] == 60


def test_different_refusals_beyond_a_number_are_only_counted(
    open_port: OpenPortWith, caplog: pytest.LogCaptureFixture
) -> None:
    node = open_port()
    log = RefusalLog(node.store)
    for number in range(300):
        log.tell(Refused("10.0.0.1", "calling_ae_unknown", f"AE{number}"))
    log.start()
    log.close()
    assert 200 < len(node.store.refusals(limit=1000)) < 300
    assert "refusals were not recorded: too many" in caplog.text


def test_r7_a_message_that_drips_is_given_up(open_port: OpenPortWith) -> None:
    """Each PDU is in time, the whole is not."""
    limits = ServerLimits(message_s=0.5, least_bytes_per_s=1_000_000)
    node = open_port(limits=limits)
    with Wire(node.port).associate() as wire:
        wire.send(store_rq(b"1.2.3"))
        started = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            while time.monotonic() - started < AT_LAST_S:
                wire.send(pdata(bytes(10), control=0))
                time.sleep(0.05)
        wait_for(lambda: _acceptor_threads() == 0)
    assert node.ingest.received == []


def test_a_large_message_at_a_fair_pace_is_taken(open_port: OpenPortWith) -> None:
    limits = ServerLimits(message_s=0.5, least_bytes_per_s=10_000)
    node = open_port(limits=limits)
    with Wire(node.port).associate() as wire:
        wire.send(store_rq(b"1.2.3"))
        for last in (False, False, False, True):
            time.sleep(0.2)
            wire.send(pdata(bytes(16_000), control=2 if last else 0))
        assert status_of(wire.read_pdu()[1]) == 0


def test_g5_what_all_hold_in_memory_has_a_limit(open_port: OpenPortWith) -> None:
    """The association that holds most is ended, the others go on."""
    node = open_port(limits=ServerLimits(held_bytes=400_000))

    def held() -> list[int]:
        return [one.held_bytes for one in node.handle._connections.living()]

    def begin(wire: Wire, count: int) -> None:
        wire.send(store_rq(b"1.2.3"))
        for _ in range(count):
            wire.send(pdata(bytes(16_000), control=0))

    with Wire(node.port).associate() as large, Wire(node.port).associate() as small:
        begin(large, 19)
        wait_for(lambda: max(held()) >= 18 * 16_000)
        begin(small, 10)
        assert large.read_pdu()[0] == 7
        wait_for(lambda: _acceptor_threads() == 1)
        small.send(pdata(bytes(2), control=2))
        assert status_of(small.read_pdu()[1]) == 0


def test_g5_requests_are_not_read_ahead_of_their_answers(open_port: OpenPortWith) -> None:
    node = open_port(limits=ServerLimits(waiting_messages=2))
    node.ingest.hold = threading.Event()
    with Wire(node.port).associate() as wire:
        for _ in range(12):
            wire.send(store_rq(b"1.2.3") + pdata(bytes(100), control=2))
        time.sleep(0.5)
        (assoc,) = node.handle._connections.associations()
        assert assoc.dimse.msg_queue.qsize() <= 2
        node.ingest.hold.set()
        assert [status_of(wire.read_pdu()[1]) for _ in range(12)] == [0] * 12


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
        assert wire.closed_within(AT_LAST_S)
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
