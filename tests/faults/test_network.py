"""A network that fails, before the port and before the destination.

Each case is a connection through a proxy that harms it in a way and at a place that the seed
decides. `FAULT_NETWORK` says how many cases each test runs.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
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
SENDER_LIMITS = SenderLimits(connect_s=2, associate_s=2, answer_s=2, stall_s=2)
CASE_S, ECHO_S = 60.0, 1.0
INSTANCES = 3
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(7200)]


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
    plans: list[Plan] = []
    assert echo(port.address, calling_ae="PACS").ok
    threads = threading.active_count()
    outcomes: Counter[str] = Counter()

    with Proxy(port.address.port, lambda: plans[-1]) as proxy:
        threads += 1

        def case(number: int, chance: random.Random) -> None:
            plans.append(plan(chance))
            study = f"1.2.3.{number}"
            paths = {
                path.stem: path
                for path in (
                    write_instance(tmp_path, study=study, kilobytes=chance.choice((2, 8, 64)))
                    for _ in range(INSTANCES)
                )
            }
            through = Address("PROSTATE_AI", "127.0.0.1", proxy.port)
            statuses = send(
                through, [outgoing(path) for path in paths.values()], calling_ae="PACS",
                limits=SENDER_LIMITS,
            )  # fmt: skip
            outcomes.update(status.outcome.value for status in statuses)
            sent = {s.sop_instance_uid for s in statuses if s.outcome is Outcome.SENT}
            port.ingest.file_pending()
            rows = {row.sop_instance_uid: row.path for row in port.store.instances_of(study)}
            if plans[-1].harm != "corrupt":  # what was changed on the way is stored as it came
                assert sent <= rows.keys(), f"lost after {plans[-1]}"
                for uid, kept in rows.items():
                    assert dataset_bytes(port.folder / kept) == dataset_bytes(paths[uid])
            for path in paths.values():
                path.unlink()

        campaign.run(case, CASE_S)
        print(f"\n{dict(proxy.done)}, instances {dict(outcomes)}")
        assert COUNT < 100 or set(proxy.done) == set(HARMS)
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
    plans: list[Plan] = []

    def next_plan() -> Plan:
        return plans.pop(0) if plans else Plan()

    with PacsStandIn("PACS", tmp_path / "pacs") as pacs, Proxy(pacs.port, next_plan) as proxy:
        (tmp_path / "node").mkdir()
        to = PeerConfig(
            name="pacs", ae_title="PACS", host="127.0.0.1", port=proxy.port, receives_results=True
        )
        box = Outbox(tmp_path / "node", ManualClock(), (to,))
        box.loop = DeliveryLoop(box.store, box.config, box.clock, c_store)

        def case(number: int, chance: random.Random) -> None:
            plans[:] = [plan(chance, harms, 30_000) for _ in range(chance.choice((1, 1, 2, 3)))]
            uid = f"1.2.3.{number}"
            made = box.finish_study(uid)
            for _ in range(8):
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

        campaign.run(case, CASE_S)
        print(f"\n{dict(proxy.done)}")
        again = sum(item.copies - 1 for item in pacs.filed())
        campaign.remark = f"sent again with the same bytes: {again}"
        box.store.close()
    campaign.finish()


def c_store(to: PeerConfig, objects: Sequence[Outgoing]) -> Generator[InstanceStatus, None, None]:
    return send_each(to, objects, calling_ae="PROSTATE_AI", limits=SENDER_LIMITS)
