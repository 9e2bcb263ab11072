"""Lives of a node that end at a crash point: a program that forks one for each order on stdin.

An order is a line of JSON: what to do (one of ``SCENARIOS``), whether to recover before, the data
folder, the crash point and which hit of it ends the process, a seed, the ports of PACS and node.
The answer tells the exit status and what the life said: the instances it acknowledged, or what it
found.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from dicom_node import crash_points, model_child
from dicom_node.clock import ManualClock, SystemClock
from dicom_node.config import NodeConfig
from dicom_node.flow.confirm import Confirmer, DicomAsks
from dicom_node.flow.deliver import DeliveryLoop
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.pledge import PledgeLoop
from dicom_node.flow.recover import recover
from dicom_node.flow.study import run_study  # noqa: F401  imported before the fork
from dicom_node.net.receiver import Receiver
from dicom_node.store.schema import pledges
from dicom_node.store.store import Store
from dicom_node.worker import Worker
from tests.flow.conftest import Node, mr_image

OWN_AE, PACS = "PROSTATE_AI", "PACS"
STUDY_UID, IMAGES = "1.2.826.0.1.3680043.8.498.77", 12
_ROUNDS = 30
_PATIENCE_S = 60.0

Say = Callable[[object], None]


class OneProcess:
    """The model process of a worker, without the process: the same function is called."""

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to end."""

    def ask(self, job: dict[str, Any], _limit_s: float, _beat: object) -> dict[str, Any]:
        """Answer a job."""
        return json.loads(json.dumps(model_child.answer(job)))  # type: ignore[no-any-return]


def images(seed: int) -> list[Any]:
    """What a scanner sends, in its order: sizes differ, two come twice."""
    chance = random.Random(seed)
    sizes = (200, 5_000, 20_000, 300_000)
    made = [
        mr_image(index=n, study=STUDY_UID, PixelData=bytes([n, 1]) * chance.choice(sizes))
        for n in range(IMAGES)
    ]
    return [*made, *chance.sample(made, 2)]


def receive(order: dict[str, Any], say: Say) -> None:
    """Take images in; files and rows follow now and then."""
    chance = random.Random(order["seed"] + 1)
    node = Node(Path(order["folder"]), SystemClock())  # type: ignore[arg-type]
    for image in images(order["seed"]):
        if node.receive(image).status == 0:
            say(image.SOPInstanceUID)
        if chance.random() < 0.4:
            node.ingest.file_pending()
    node.ingest.file_pending()


def config_of(order: dict[str, Any]) -> NodeConfig:
    peer = {
        "name": "pacs", "ae_title": PACS, "host": "127.0.0.1", "port": order["port"],
        "receives_results": True,
    }  # fmt: skip
    node = {
        "data_dir": order["folder"], "ae_title": OWN_AE, "port": order.get("own_port", 0),
    }  # fmt: skip
    delivery = {"commitment_wait_h": 1}
    return NodeConfig.model_validate({"node": node, "peers": [peer], "delivery": delivery})


def report(order: dict[str, Any], _say: Say) -> None:
    """Write the report of a study."""
    config, clock = config_of(order), SystemClock()
    store = Store(config.database_url, clock=clock)
    worker = Worker(config, store, clock)
    worker._child = OneProcess()  # type: ignore[assignment]
    store.recover_worker("worker-0")
    while worker._work_once(threading.Event()):
        pass
    store.close()


def work(order: dict[str, Any], say: Say) -> None:
    """Do what is due: the report of a study, and its delivery."""
    report(order, say)
    config, clock = config_of(order), SystemClock()
    store = Store(config.database_url, clock=clock)
    delivery = DeliveryLoop(store, config, clock)
    for _ in range(_ROUNDS):
        if not store.peers_with_deliveries():
            break
        delivery.deliver_once()
    say(store.studies_list())
    store.close()


@contextmanager
def port_open(order: dict[str, Any]) -> Iterator[tuple[NodeConfig, Store, ManualClock]]:
    """The node with its port, on a clock that goes on as it is told."""
    config, clock = config_of(order), ManualClock(time.time())
    store = Store(config.database_url, clock=clock)
    ingest = Ingest(store, config.node.data_dir, clock)
    ingest.start()
    receiver = Receiver(config, store, ingest, clock)
    receiver.start()
    yield config, store, clock
    receiver.stop(drain_s=0)
    ingest.stop()
    store.close()


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _PATIENCE_S
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)


def confirm(order: dict[str, Any], say: Say) -> None:
    """Deliver, ask for commitment ``advance_s`` later, take the answer at the port.

    The port stays open until the file ``until`` is there.
    """

    def states() -> set[str]:
        (study,) = store.studies_list()
        return {d["state"] for result in study["results"] for d in result["deliveries"]}

    with port_open(order) as (config, store, clock):
        asks = DicomAsks(OWN_AE, linger_s=0.2)
        confirmer = Confirmer(store, config, clock, asks)
        loop = DeliveryLoop(store, config, clock, confirmer=confirmer)
        loop.deliver_once()
        clock.advance(order["advance_s"])
        loop.deliver_once()
        wait_for(lambda: states() == {"verified"} and Path(order["until"]).exists())
        say(store.studies_list())


def pledge(order: dict[str, Any], say: Say) -> None:
    """Answer the one request for commitment that comes, or came."""

    def requests() -> list[str]:
        with store._read() as db:
            return list(db.execute(select(pledges.c.state)).scalars())

    def answered() -> bool:
        loop.answer_once()
        clock.advance(5)
        return requests() == ["answered"]

    with port_open(order) as (config, store, clock):
        loop = PledgeLoop(store, config, clock)
        wait_for(answered)
        say(requests())


SCENARIOS = {
    "receive": receive, "report": report, "work": work, "confirm": confirm, "pledge": pledge,
}  # fmt: skip


def again(order: dict[str, Any], say: Say) -> None:
    """Start after a crash: recover to the end, then do what is due."""
    store = Store(config_of(order).database_url, clock=SystemClock())
    report = recover(store, Path(order["folder"]))
    store.close()
    say(dataclasses.asdict(report))
    if order["scenario"] != "receive":
        SCENARIOS[order["scenario"]](order, say)


def live(order: dict[str, Any], output: int) -> None:
    """Be one life; never returns."""

    def say(what: object) -> None:
        os.write(output, json.dumps(what).encode() + b"\n")

    status = 1
    try:
        if order.get("point"):
            crash_points._faults = crash_points._Faults(f"{order['point']}:{order['hit']}")
        (again if order.get("recover") else SCENARIOS[order["scenario"]])(order, say)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """Take orders until stdin closes."""
    while line := sys.stdin.readline():
        inward, outward = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(inward)
            live(json.loads(line), outward)
        os.close(outward)
        with os.fdopen(inward) as stream:
            said = [json.loads(text) for text in stream]
        _, status = os.waitpid(pid, 0)
        told = {"status": os.waitstatus_to_exitcode(status), "said": said}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
