"""Mutated PDUs into the reader of storage associations: never a crash, a hang, or growth.

Each case is a connection on loopback on which everything was sent before it is read; what the
stream hands over and answers must be what the bytes mean (`reading.py`). `FUZZ_PDUS` or
`FUZZ_COUNT` say how many, `FUZZ_SEED` which.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node.net.limits import ServerLimits
from dicom_node.net.stream import StorageStream, StoreRequest
from tests.fuzz.campaign import Campaign, bounded_growth, count_of
from tests.fuzz.conversations import CONTEXTS, conversation, hostile_bytes
from tests.fuzz.reading import RELEASED, Meaning, meaning

pytestmark = pytest.mark.fuzz
QUICK, WHOLE = 300, 2000
LIMITS = ServerLimits(pdu_s=20, idle_s=20, associate_s=20)
HUNG_S = 10.0
"""Everything is there before it is read: to wait for anything would take twice as long."""
LONGEST_ANSWERS = (0, 7, 8, 16_384)
ABORT, RELEASE_RP = 7, 6


class Pair:
    """Two ends of a TCP connection on loopback; each from an address of its own."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self._next = 0

    def open(self) -> tuple[socket.socket, socket.socket]:
        """The peer's end and ours. An address and port that were just used cannot be at once."""
        self._next += 1
        source = f"127.{1 + self._next // 250 % 200}.{1 + self._next % 250}.1"
        peer = socket.create_connection(self._address, timeout=30, source_address=(source, 0))
        ours, _ = self._listener.accept()
        return peer, ours

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@dataclass
class Heard:
    """What the peer got back."""

    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    end: str = ""


def association(ours: socket.socket, longest: int) -> Any:
    """What the stream uses of the library's association, at the moment it takes over."""
    contexts = [
        SimpleNamespace(context_id=number, abstract_syntax=names[0], transfer_syntax=[names[1]])
        for number, names in CONTEXTS.items()
    ]
    dul = SimpleNamespace(
        state_machine=SimpleNamespace(current_state="Sta6"), kill_dul=lambda: None,
        join=lambda: None, socket=SimpleNamespace(socket=ours, close=ours.close),
    )  # fmt: skip
    return SimpleNamespace(
        accepted_contexts=contexts, requestor=SimpleNamespace(maximum_length=longest), dul=dul,
        kill=lambda: None, get_handlers=lambda _event: [], is_established=True,
    )  # fmt: skip


def talk(pair: Pair, data: bytes, longest: int) -> tuple[list[StoreRequest], bytes]:
    """Send, serve to the end, read what came back."""
    stored: list[StoreRequest] = []

    def store(request: StoreRequest) -> tuple[int, str]:
        stored.append(request)
        return 0xA700 if len(stored) % 2 else 0, "nearly full"

    peer, ours = pair.open()
    with peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        StorageStream(association(ours, longest), LIMITS, store).run()
        assert ours.fileno() == -1, "the connection stays open"
        return stored, _all_of(peer)


def _all_of(peer: socket.socket) -> bytes:
    parts = []
    while True:
        try:
            part = peer.recv(1 << 16)
        except ConnectionResetError:
            part = b""  # what it left unread is thrown away with the connection
        if not part:
            return b"".join(parts)
        parts.append(part)


def heard(data: bytes, longest: int) -> Heard:
    """Read what came back; it must be whole and in order."""
    found, command, at = Heard(), b"", 0
    while at < len(data):
        assert not found.end, "something follows the end"
        kind, _, length = struct.unpack_from(">BBL", data, at)
        body = data[at + 6 : at + 6 + length]
        assert len(body) == length, "a PDU is cut"
        at += 6 + length
        if kind == RELEASE_RP:
            found.end = RELEASED
        elif kind == ABORT:
            found.end = f"aborted {body[3]}"
        else:
            assert kind == 4, f"PDU {kind}"
            assert not longest or length <= max(longest, 8), "longer than the peer allows"
            size, context, control = struct.unpack_from(">LBB", body)
            assert (size, control & 1) == (length - 4, 1)
            command += body[6:]
            if control & 2:
                _answer(found, context, command)
                command = b""
    assert not command
    return found


def _answer(found: Heard, context: int, command: bytes) -> None:
    elements, at = {}, 0
    while at < len(command):
        group, number, length = struct.unpack_from("<HHL", command, at)
        assert group == 0
        elements[number] = command[at + 8 : at + 8 + length]
        at += 8 + length
    assert struct.unpack("<L", elements[0])[0] == len(command) - 12
    (kind,) = struct.unpack("<H", elements[0x0100])
    found.answers.append((context, kind, elements[0x0120]))
    found.statuses.append(struct.unpack("<H", elements[0x0900])[0])


def check(pair: Pair, data: bytes, longest: int) -> Meaning:
    """Serve one conversation and compare with what it means."""
    expected = meaning(data, CONTEXTS, LIMITS)
    stored, back = talk(pair, data, longest)
    got = heard(back, longest)
    told = [(one.sop_class_uid, one.sop_instance_uid, one.data) for one in stored]
    assert told == expected.stores
    assert got.answers == expected.answers
    if expected.end == RELEASED or expected.end.startswith("aborted "):
        assert got.end == ("" if expected.end.endswith("peer") else expected.end)
    else:
        assert got.end == ""
    return expected


def run(pair: Pair, count: int) -> None:
    campaign = Campaign("mutated PDUs into an association", count, block=1000)
    ends: dict[str, int] = {}

    def case(_number: int, chance: random.Random) -> None:
        expected = check(pair, hostile_bytes(chance), chance.choice(LONGEST_ANSWERS))
        ends[expected.end] = ends.get(expected.end, 0) + 1

    for number in range(200):  # what a first use loads is no growth
        case(number, random.Random(number))
    with bounded_growth(campaign, 8):
        campaign.run(case, HUNG_S)
    print(f"\nended: {dict(sorted(ends.items()))}")
    campaign.finish()
    assert count < 300 or set(ends) >= {RELEASED, "gone", "aborted 2", "aborted 6"}


def test_G5_mutated_pdus_quick(pair: Pair) -> None:
    run(pair, QUICK)


@pytest.mark.slow
def test_G5_mutated_pdus(pair: Pair) -> None:
    run(pair, count_of("FUZZ_PDUS", WHOLE))


def test_honest_conversations_are_served_to_the_end(pair: Pair) -> None:
    """The oracle knows more than refusals: without mutation most conversations go through."""
    released = 0
    for number in range(100):
        chance = random.Random(number)
        data = b"".join(pdu.encode() for pdu in conversation(chance))
        released += check(pair, data, 16_384).end == RELEASED
    assert released > 40
