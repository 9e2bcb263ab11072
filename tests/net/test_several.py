"""Several receivers behind one port: the attacks of `test_hostile` and `test_tls` once more.

Who accepts runs in a thread here, and two receivers are on its lines, as in the processes of a
node (`tests/test_receivers.py`). The caps must hold over both together.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig, TlsSection
from dicom_node.net.acceptor import Acceptor
from dicom_node.net.connections import Connection
from dicom_node.net.lending import Line, Message, What, new_line
from dicom_node.net.lent import LentReceiver
from dicom_node.net.limits import ServerLimits
from dicom_node.net.listening import listeners
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import echo
from tests.databases import open_store
from tests.net.conftest import NODE_AE, MemoryIngest, OpenPort, OpenPortWith, peer, wait_for

# these use the fixture ``open_port`` of this module
from tests.net.test_hostile import (  # noqa: F401
    STRANGER,
    test_a_stranger_still_learns_that_it_is_one,
    test_at_the_cap_the_oldest_connection_without_association_gives_way,
    test_established_associations_keep_their_place,
    test_f2_half_pdus_hold_nobody_up,
    test_f4_idle_connections_do_not_count_as_associations,
    test_f7_an_association_cut_in_a_c_store_stores_nothing,
    test_r8_one_peer_cannot_take_every_association,
    test_r8_strangers_have_a_small_room_and_peers_the_rest,
)
from tests.net.test_tls import (  # noqa: F401
    authority,
    node_certificate,
    pacs_certificate,
    test_echo_and_store_over_tls,
    test_f1_silent_clients_hold_up_no_other_handshake,
    test_r8_handshakes_are_capped_and_the_oldest_gives_way,
    test_the_certificate_must_be_of_the_calling_ae_title,
    test_what_is_not_tls_is_dropped_and_recorded,
    tls_port,
)
from tests.net.wire import AT_LAST_S, SOON_S, Wire, pdata, status_of, store_rq


@dataclass
class Together:
    """What all receivers have, as a test of one receiver asks for it."""

    several: Several

    def living(self) -> list[Connection]:
        return self.several.acceptor.places.living()


@dataclass
class Several:
    """Who accepts, in a thread; ``receivers`` on its lines."""

    acceptor: Acceptor
    receivers: list[LentReceiver] = field(default_factory=list)
    ends: list[Line] = field(default_factory=list)
    plain_port: int = 0
    tls_port: int | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def _connections(self) -> Together:
        return Together(self)

    def start(self, config: NodeConfig) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        wait_for(lambda: all(one.ready for one in self.acceptor.handlers))
        self.open(config)

    def open(self, config: NodeConfig) -> None:
        wanted = listeners(config)
        for listener, port in zip(wanted, self.acceptor.open(wanted), strict=True):
            if listener.context is None:
                self.plain_port = port
            else:
                self.tls_port = port

    def _run(self) -> None:
        while not self._stop.is_set():
            self.acceptor.step(0.02)

    def held_by(self, number: int) -> int:
        """How many connections one of the receivers has."""
        return len(self.acceptor.places.of(self.acceptor.handlers[number]))

    def stop(self, drain_s: float = 0) -> None:
        for receiver in self.receivers:
            receiver.stop(drain_s)
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.acceptor.close_ports()
        self.acceptor.close_copies()
        for end in self.ends:
            end.close()


@pytest.fixture
def open_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPortWith]:
    """As the fixture of this name elsewhere, but behind the port are two receivers."""
    opened: list[OpenPort] = []

    def start(
        peers: Sequence[PeerConfig] = (),
        limits: ServerLimits | None = None,
        tls: TlsSection | None = None,
    ) -> OpenPort:
        folder = tmp_path_factory.mktemp("node")
        config = NodeConfig(
            node=NodeSection(ae_title=NODE_AE, port=0, data_dir=folder),
            peers=tuple(peers or [peer()]),
            tls=tls or TlsSection(),
        )
        clock = SystemClock()
        store, ingest = open_store(config.database_url, clock), MemoryIngest()
        several = Several(Acceptor(limits))
        for _ in range(2):
            mine, theirs = new_line()
            several.acceptor.add(mine)
            several.ends.append(theirs)
            receiver = LentReceiver(config, store, ingest, clock, limits, line=theirs)
            receiver.start()
            several.receivers.append(receiver)
        several.start(config)
        handle = cast(Receiver, several)  # has of a receiver what these tests ask for
        opened.append(OpenPort(several.plain_port, ingest, store, handle, config.database_url))
        return opened[-1]

    yield start
    for item in opened:
        item.handle.stop(drain_s=0)
        item.store.close()


def several_of(node: OpenPort) -> Several:
    return cast(Several, node.handle)


def begin(wire: Wire, kilobytes: int) -> None:
    """Send a message without its end."""
    wire.send(store_rq(b"1.2.3"))
    for _ in range(kilobytes // 16):
        wire.send(pdata(bytes(16 * 1024), control=0))


def test_associations_go_to_the_receiver_that_has_fewest(open_port: OpenPortWith) -> None:
    node = open_port()
    several = several_of(node)
    standing = [Wire(node.port).associate() for _ in range(4)]
    assert [several.held_by(number) for number in range(2)] == [2, 2]
    of_the_first = [one for one in standing if one is standing[0] or one is standing[2]]
    for wire in of_the_first:
        wire.socket.close()
    wait_for(lambda: sum(several.held_by(number) for number in range(2)) == 2)
    standing += [Wire(node.port).associate() for _ in range(2)]
    assert [several.held_by(number) for number in range(2)] == [2, 2]
    for wire in standing:
        wire.socket.close()
    wait_for(lambda: not several.acceptor.places.living())


def test_g5_what_all_hold_in_memory_has_a_limit_over_the_receivers(
    open_port: OpenPortWith,
) -> None:
    """The association that holds most is ended, in whichever receiver it is."""
    node = open_port(limits=ServerLimits(held_bytes=1_500_000))
    several = several_of(node)

    def told() -> int:
        return sum(one.held_bytes for one in several.acceptor.places.living())

    with Wire(node.port).associate() as large, Wire(node.port).associate() as small:
        assert [several.held_by(number) for number in range(2)] == [1, 1]
        begin(large, 1024)
        wait_for(lambda: told() >= 1024 * 1024)
        begin(small, 512)
        assert large.closed_within(AT_LAST_S)
        small.send(pdata(bytes(2), control=2))
        assert status_of(small.read_pdu()[1]) == 0
        wait_for(lambda: told() == 0)  # what is answered is held no longer


def test_an_association_that_ends_makes_room_at_once(open_port: OpenPortWith) -> None:
    node = open_port(limits=ServerLimits(associations=1))
    for _ in range(10):
        answer = echo(node.address, calling_ae="PACS")
        assert answer.ok, answer.message


def test_a_receiver_that_is_gone_takes_no_room_and_gets_nothing(open_port: OpenPortWith) -> None:
    node = open_port(limits=ServerLimits(associations=2))
    several = several_of(node)
    standing = [Wire(node.port).associate() for _ in range(2)]
    first, second = several.acceptor.handlers
    several.receivers[0].stop(drain_s=0)
    several.ends[0].close()
    wait_for(lambda: first.lost)
    assert several.acceptor.handlers == [second]
    assert standing[0].closed_within(SOON_S)
    with Wire(node.port).associate():
        assert several.held_by(0) == 2
    for wire in standing:
        wire.socket.close()
    several.receivers = several.receivers[1:]


def test_a_peer_added_while_running_leaves_the_room_of_strangers(open_port: OpenPortWith) -> None:
    node = open_port([peer(host=STRANGER)], limits=ServerLimits(strangers=1))
    places = several_of(node).acceptor.places
    assert (places.is_source(STRANGER), places.is_source("127.0.0.1")) == (True, False)
    node.store.peer_add(peer("MR1"))

    def known() -> bool:
        with Wire(node.port):  # the receivers look again when somebody comes
            return places.is_source("127.0.0.1")

    wait_for(known)


def test_connections_wait_while_nobody_receives(open_port: OpenPortWith) -> None:
    node = open_port()
    several = several_of(node)
    wait_for(lambda: several.acceptor._listening)
    for handler in several.acceptor.handlers:
        handler.ready = False
    wait_for(lambda: not several.acceptor._listening)
    with Wire(node.port) as early:
        assert not several.acceptor.places.living()
        several.acceptor.handlers[1].ready = True
        early.associate()
        assert (several.held_by(0), several.held_by(1)) == (0, 1)


def test_a_line_that_is_not_read_is_lent_nothing_and_loses_no_word() -> None:
    mine, theirs = new_line()
    mine.wait_for_nothing()
    sent = 0
    while not mine.has_unsent:
        mine.post(Message(What.SHUT, sent))
        sent += 1
    with socket.socket() as any_socket:
        assert not mine.lend(Message(What.TAKE, 1), any_socket)
    heard = 0
    while heard < sent:
        received = theirs.receive()
        assert received is not None
        assert received[0] == Message(What.SHUT, heard)
        heard += 1
        mine.flush()
    assert not mine.has_unsent
    mine.close()
    assert theirs.receive() is None
    theirs.close()
