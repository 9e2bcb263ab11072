"""A network that fails, before the port and before the destination.

Each case is a connection through a proxy that harms it in a way and at a place that the seed
decides. `FAULT_NETWORK` says how many cases each test runs.
"""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dicom_node import durable
from dicom_node.clock import ManualClock, SystemClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig
from dicom_node.flow.deliver import DeliveryLoop
from dicom_node.flow.ingest import Ingest
from dicom_node.net.limits import SenderLimits, ServerLimits
from dicom_node.net.outcomes import InstanceStatus, Outcome
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import Address, Outgoing, echo, outgoing, send, send_each
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from dicom_node.store.store import Store
from tests.faults.proxy import HARMS, Plan, Proxy, plan
from tests.fuzz.campaign import Campaign
from tests.net.conftest import peer, wait_for, write_instance
from tests.net.test_deliver import Outbox

COUNT = int(os.environ.get("FAULT_NETWORK", "15"))
PORT_LIMITS = ServerLimits(pdu_s=2, idle_s=2, associate_s=2, message_s=4)
SENDER_LIMITS = SenderLimits(
    connect_s=2, associate_s=2, answer_s=2, stall_s=2, least_bytes_per_s=32_768
)
CASE_S, ECHO_S = 60.0, 1.0
AT_ONCE = 8
"""Cases at the same time, each with a proxy of its own: most of them wait for a time limit."""
INSTANCES = 3
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(7200)]


class Lane:
    """A way through a proxy that one case at a time uses: its connections get the plans in turn."""

    def __init__(self, stack: ExitStack, target: int) -> None:
        self.plans: list[Plan] = []
        self.box: Outbox | None = None
        self.proxy = stack.enter_context(Proxy(target, self._next))

    def _next(self) -> Plan:
        return self.plans.pop(0) if self.plans else Plan()


@contextmanager
def lane_of(free: queue.SimpleQueue[Lane]) -> Iterator[Lane]:
    lane = free.get()
    try:
        yield lane
    finally:
        free.put(lane)


def outbox(folder: Path, port: int) -> Outbox:
    """A node with results to deliver through a port of this machine."""
    folder.mkdir()
    to = PeerConfig(
        name="pacs", ae_title="PACS", host="127.0.0.1", port=port, receives_results=True
    )
    box = Outbox(folder, ManualClock(), (to,))
    box.loop = DeliveryLoop(box.store, box.config, box.clock, c_store)
    return box


class Port:
    """The port with the real receive path behind it."""

    def __init__(self, folder: Path) -> None:
        section = NodeSection(ae_title="PROSTATE_AI", port=0, data_dir=folder)
        config, clock = NodeConfig(node=section, peers=(peer(),)), SystemClock()
        self.folder = folder
        self.store = Store(config.database_url, clock=clock, create=True)
        self.ingest = Ingest(self.store, folder, clock)
        self.ingest.start()
        self.receiver = Receiver(config, self.store, self.ingest, clock, PORT_LIMITS)
        self.address = Address("PROSTATE_AI", "127.0.0.1", self.receiver.start())

    def close(self) -> None:
        self.receiver.stop(drain_s=0)
        self.ingest.stop()
        self.store.close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    (tmp_path / "data").mkdir()
    made = Port(tmp_path / "data")
    yield made
    made.close()


def test_G1_G5_a_network_that_fails_before_the_port(port: Port, tmp_path: Path) -> None:
    campaign = Campaign("network fault before the port", COUNT, block=50)
    assert echo(port.address, calling_ae="PACS").ok
    threads = threading.active_count()
    outcomes: Counter[str] = Counter()
    done: Counter[str] = Counter()
    with ExitStack() as stack:
        free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for _ in range(AT_ONCE):
            free.put(Lane(stack, port.address.port))

        def case(number: int, chance: random.Random) -> None:
            harm = plan(chance)
            with lane_of(free) as lane:
                lane.plans[:] = [harm] * 9  # for all connections of the case
                one(lane.proxy.port, harm, f"1.2.3.{number}", chance)
            done.update({harm.harm: 1})

        def one(through_port: int, harm: Plan, study: str, chance: random.Random) -> None:
            paths = {
                path.stem: path
                for path in (
                    write_instance(tmp_path, study=study, kilobytes=chance.choice((2, 8, 64)))
                    for _ in range(INSTANCES)
                )
            }
            through = Address("PROSTATE_AI", "127.0.0.1", through_port)
            statuses = send(
                through, [outgoing(path) for path in paths.values()], calling_ae="PACS",
                limits=SENDER_LIMITS,
            )  # fmt: skip
            outcomes.update(status.outcome.value for status in statuses)
            sent = {s.sop_instance_uid for s in statuses if s.outcome is Outcome.SENT}
            port.ingest.file_pending()
            rows = {row.sop_instance_uid: row.path for row in port.store.instances_of(study)}
            if harm.harm != "corrupt":  # what was changed is stored as it came
                assert sent <= rows.keys(), f"lost after {harm}"
                for uid, kept in rows.items():
                    assert dataset_bytes(port.folder / kept) == dataset_bytes(paths[uid])
            for path in paths.values():
                path.unlink()

        campaign.run(case, CASE_S, AT_ONCE)
        print(f"\n{dict(done)}, instances {dict(outcomes)}")
        assert sum(done.values()) < 100 or set(done) == set(HARMS)
    # nothing is left of it, and an honest peer is served
    wait_for(lambda: not port.receiver._connections.living())
    wait_for(lambda: threading.active_count() <= threads)
    begun_s = time.monotonic()
    assert echo(port.address, calling_ae="PACS").ok
    assert time.monotonic() - begun_s < ECHO_S
    assert list(port.folder.rglob(f"*{durable.TEMP_SUFFIX}")) == []
    campaign.finish()


def test_G2_G3_a_network_that_fails_before_the_destination(tmp_path: Path) -> None:
    """The first connections of each study fail in some way; then all is there, once, unchanged.

    A changed byte is left out: what a destination acknowledges is not ours to see.
    """
    campaign = Campaign("network fault before the destination", COUNT, block=50)
    harms = tuple(harm for harm in HARMS if harm != "corrupt")
    with ExitStack() as stack:
        pacs = stack.enter_context(PacsStandIn("PACS", tmp_path / "pacs"))
        free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for number in range(AT_ONCE):
            lane = Lane(stack, pacs.port)
            lane.box = outbox(tmp_path / f"node-{number}", lane.proxy.port)
            stack.callback(lane.box.store.close)
            free.put(lane)

        def case(number: int, chance: random.Random) -> None:
            with lane_of(free) as lane:
                times = chance.choice((1, 1, 2, 3))
                lane.plans[:] = [plan(chance, harms, 30_000) for _ in range(times)]
                assert lane.box is not None
                one(lane.box, f"1.2.3.{number}")

        def one(box: Outbox, uid: str) -> None:
            made = box.finish_study(uid)
            for _ in range(40):  # a loaded machine makes faults of its own
                box.loop.deliver_once()
                if set(box.deliveries(uid).values()) == {"sent"}:
                    break
                box.clock.advance(1000)
            assert box.state(uid) == "delivered"
            filed = {item.sop_instance_uid: item for item in pacs.filed(uid)}
            assert filed.keys() == {row.sop_instance_uid for row in made}
            for row in made:
                item = filed[row.sop_instance_uid]
                assert item.differing == 0
                assert dataset_bytes(item.path) == dataset_bytes(box.data_dir / row.path)

        campaign.run(case, CASE_S, AT_ONCE)
        again = sum(item.copies - 1 for item in pacs.filed())
        campaign.remark = f"sent again with the same bytes: {again}"
    campaign.finish()


def c_store(to: PeerConfig, objects: Sequence[Outgoing]) -> Generator[InstanceStatus, None, None]:
    return send_each(to, objects, calling_ae="PROSTATE_AI", limits=SENDER_LIMITS)
