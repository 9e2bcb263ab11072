"""Mutated association requests at the port, and mutated PDUs behind those that are accepted.

Real sockets, several at a time. Afterwards an honest peer is served, and nothing is left: no
thread, no connection, no memory. `FUZZ_REQUESTS` or `FUZZ_COUNT` say how many.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicom_node.net.limits import ServerLimits
from dicom_node.net.sender import echo
from tests.fuzz.campaign import Campaign, bounded_growth, count_of
from tests.fuzz.conversations import cut, flip, hostile_bytes, insert
from tests.fuzz.requests import MUTATIONS, request
from tests.net.conftest import OpenPort, OpenPortWith, peer, wait_for
from tests.net.wire import Wire

pytestmark = pytest.mark.fuzz
QUICK, WHOLE = 30, 200
AT_ONCE = 6
LIMITS = ServerLimits(associate_s=1, pdu_s=1, idle_s=1, message_s=2)
HUNG_S, ECHO_S = 60.0, 5.0
ANSWERS = {0: "closed", 2: "accepted", 3: "rejected", 7: "aborted"}


def hostile_request(chance: random.Random) -> bytes:
    """One to three things wrong with a request, and now and then with its bytes."""
    made = request()
    for _ in range(chance.choices((0, 1, 2, 3), (2, 8, 4, 2))[0]):
        chance.choice(MUTATIONS)(chance, made)
    data = made.encode()[:200_000]
    if chance.random() < 0.2:
        data = chance.choice((flip, cut, insert))(chance, data)
    return data


def talk(port: int, chance: random.Random) -> str:
    """Send a request; behind an acceptance, PDUs. Returns how the port answered the request.

    Half of the peers then keep the connection as long as the port lets them.
    """
    with Wire(port) as wire:
        wire.socket.settimeout(HUNG_S)
        try:
            wire.send(hostile_request(chance))
            kind, _ = wire.read_pdu()
            if kind == 2:
                wire.send(hostile_bytes(chance))
        except OSError:
            kind = 0
        if chance.random() < 0.5:
            wire.reset()
        elif not wire.closed_within(HUNG_S):
            return "kept open"
    return ANSWERS.get(kind, f"PDU {kind}")


def run(open_port: OpenPortWith, count: int) -> None:
    campaign = Campaign("mutated requests at the port", count, block=AT_ONCE * 10)
    # a second peer that may be called by no AE title of this test: rooms for known peers are kept
    node = open_port(peers=[peer(), peer("OTHER", host="127.0.0.2")], limits=LIMITS)
    answers: Counter[str] = Counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda n: talk(node.port, random.Random(n)), range(12)))
        _is_as_before(node)
        before = threading.active_count()
        with bounded_growth(campaign, 16):
            for block in campaign.blocks():
                told = list(pool.map(lambda n: talk(node.port, campaign.chance(n)), block))
                answers.update(told)
                for number, answer in zip(block, told, strict=True):
                    if answer not in ANSWERS.values():
                        campaign.fail(number, answer)
                node.ingest.received.clear()
            _is_as_before(node)
    if threading.active_count() > before:
        campaign.fail(count, "threads are left")
    print(f"\nanswers: {dict(answers)}")
    campaign.finish()
    assert count < WHOLE or {"accepted", "rejected", "aborted"} <= set(answers)


def _is_as_before(node: OpenPort) -> None:
    wait_for(lambda: not node.handle._connections.living())
    begun_s = time.monotonic()
    assert echo(node.address, calling_ae="PACS").ok
    assert time.monotonic() - begun_s < ECHO_S


def test_G5_mutated_requests_quick(open_port: OpenPortWith) -> None:
    run(open_port, QUICK)


@pytest.mark.slow
def test_G5_mutated_requests(open_port: OpenPortWith) -> None:
    run(open_port, count_of("FUZZ_REQUESTS", WHOLE))
