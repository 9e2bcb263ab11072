"""Lives of a node that end at a crash point: a program that forks one for each order on stdin.

An order is a line of JSON: what to do (``receive``, ``work``, ``recover``), the data folder, the
crash point and which hit of it ends the process, a seed, the port of the PACS. The answer tells
the exit status and what the life said: the instances it acknowledged, or what it found.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicom_node import crash_points, model_child
from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig
from dicom_node.flow.deliver import DeliveryLoop
from dicom_node.flow.recover import recover
from dicom_node.flow.study import run_study  # noqa: F401  imported before the fork
from dicom_node.store.store import Store
from dicom_node.worker import Worker
from tests.flow.conftest import Node, mr_image

OWN_AE, PACS = "PROSTATE_AI", "PACS"
STUDY_UID, IMAGES = "1.2.826.0.1.3680043.8.498.77", 12
_ROUNDS = 30

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
    node = {"data_dir": order["folder"], "ae_title": OWN_AE}
    return NodeConfig.model_validate({"node": node, "peers": [peer]})


def work(order: dict[str, Any], say: Say) -> None:
    """Do what is due: the report of a study, and its delivery."""
    config, clock = config_of(order), SystemClock()
    store = Store(config.database_url, clock=clock)
    worker, delivery = Worker(config, store, clock), DeliveryLoop(store, config, clock)
    worker._child = OneProcess()  # type: ignore[assignment]
    store.recover_worker("worker-0")
    while worker._work_once(threading.Event()):
        pass
    for _ in range(_ROUNDS):
        if not store.peers_with_deliveries():
            break
        delivery.deliver_once()
    say(store.studies_list())
    store.close()


def again(order: dict[str, Any], say: Say) -> None:
    """Start after a crash: recover to the end, then do what is due."""
    store = Store(config_of(order).database_url, clock=SystemClock())
    report = recover(store, Path(order["folder"]))
    store.close()
    say(dataclasses.asdict(report))
    if order["scenario"] == "work":
        work(order, say)


def live(order: dict[str, Any], output: int) -> None:
    """Be one life; never returns."""

    def say(what: object) -> None:
        os.write(output, json.dumps(what).encode() + b"\n")

    status = 1
    try:
        if order.get("point"):
            crash_points._faults = crash_points._Faults(f"{order['point']}:{order['hit']}")
        steps = {"receive": receive, "work": work}
        (again if order.get("recover") else steps[order["scenario"]])(order, say)
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
