"""The delivery loop on a real outbox: order, back-off, destinations apart, restarts (D1-D11)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.config import DeliverySection, NodeConfig, NodeSection, PeerConfig
from dicom_node.domain.identity import Identity
from dicom_node.domain.policy import LEASE_S, PlanKind
from dicom_node.flow.deliver import HOUSEKEEPING_S, DeliveryLoop
from dicom_node.net.outcomes import InstanceStatus, Outcome, classify
from dicom_node.net.sender import Outgoing
from dicom_node.net.standin import PacsStandIn
from dicom_node.store.rows import Destination, InstanceRow, Plan, ResultRow
from tests.databases import open_store
from tests.net.conftest import MR, wait_for, write_instance

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
CLASSES = {"seg-lesions": SEG, "sr": SR}
HOUR_S = 3600.0


@dataclass
class Pacs:
    """A scripted destination side: answers by peer, remembers what was offered."""

    answers: dict[str, int | None] = field(default_factory=dict)
    offered: list[tuple[str, str]] = field(default_factory=list)
    hold: dict[str, threading.Event] = field(default_factory=dict)
    calls: int = 0

    def send(
        self, peer: PeerConfig, objects: Sequence[Outgoing]
    ) -> Generator[InstanceStatus, None, None]:
        self.calls += 1
        for item in objects:
            if peer.name in self.hold:
                self.hold[peer.name].wait(60)
            self.offered.append((peer.name, item.sop_class_uid))
            code = self.answers.get(item.sop_class_uid, self.answers.get(peer.name, 0))
            if code is None:
                yield InstanceStatus(
                    item.sop_instance_uid, Outcome.TRANSIENT, None, "no connection"
                )
            else:
                outcome, text = classify(code)
                yield InstanceStatus(item.sop_instance_uid, outcome, code, text)


def receiver(name: str, port: int = 104) -> PeerConfig:
    return PeerConfig(
        name=name, ae_title=name.upper(), host="127.0.0.1", port=port, receives_results=True
    )


@dataclass
class Outbox:
    """A store with finished studies, and the loop that empties it."""

    data_dir: Path
    clock: ManualClock
    peers: tuple[PeerConfig, ...]
    pacs: Pacs = field(default_factory=Pacs)

    def __post_init__(self) -> None:
        node = NodeSection(ae_title="PROSTATE_AI", data_dir=self.data_dir)
        self.config = NodeConfig(
            node=node, delivery=DeliverySection(give_up_h=72), peers=self.peers
        )
        self.store = open_store(self.config.database_url, self.clock, "here")
        self.loop = DeliveryLoop(self.store, self.config, self.clock, self.pacs.send)

    def finish_study(self, uid: str = "1.2.3.4") -> list[ResultRow]:
        """A study whose SEG and SR are in the outbox."""
        image = InstanceRow(
            uid, uid + ".1", MR, uid + ".1.1", "1.2.840.10008.1.2.1", "image",
            Identity("P1", "", ""), "{}", "0" * 64, f"spool/{uid}", 1, self.clock.now_s(),
        )  # fmt: skip
        self.store.add_instance(image)
        (study,) = self.store.studies_to_evaluate(self.clock.now_s(), 0)
        assert self.store.set_plan(study, Plan(PlanKind.ANALYSE, "key" + uid, "{}", 1))
        claim = self.store.claim_ready("worker-0")
        assert claim is not None
        rows = [self._write(kind, uid) for kind in ("sr", "seg-lesions")]
        destinations = [Destination(p.name, p.result_kinds) for p in self.peers]
        self.store.finish_analysed(claim, rows, destinations)
        return rows

    def _write(self, kind: str, uid: str) -> ResultRow:
        folder = self.data_dir / "results"
        folder.mkdir(exist_ok=True)
        path = write_instance(folder, sop_class=CLASSES[kind], study=uid)
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return ResultRow(
            kind, CLASSES[kind], path.stem, uid + ".1", f"results/{path.name}", digest, len(data)
        )

    def deliveries(self, uid: str = "1.2.3.4") -> dict[tuple[str, str], str]:
        """State by (kind, peer)."""
        (shown,) = self.store.studies_show(uid)
        return {
            (result["kind"], sent["peer"]): sent["state"]
            for result in shown["results"]
            for sent in result["deliveries"]
        }

    def state(self, uid: str = "1.2.3.4") -> str:
        (shown,) = self.store.studies_show(uid)
        return str(shown["state"])


OutboxWith = Callable[..., Outbox]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[OutboxWith]:
    made: list[Outbox] = []

    def make(*names: str) -> Outbox:
        made.append(Outbox(tmp_path, ManualClock(), tuple(map(receiver, names or ("pacs",)))))
        return made[-1]

    yield make
    for item in made:
        item.store.close()


def test_images_go_before_the_report_and_the_study_is_delivered(outbox: OutboxWith) -> None:
    box = outbox()
    box.finish_study()
    box.loop.deliver_once()
    assert box.pacs.offered == [("pacs", SEG), ("pacs", SR)]
    assert box.state() == "delivered"
    assert set(box.deliveries().values()) == {"sent"}
    box.loop.deliver_once()
    assert box.pacs.calls == 1


def test_d1_a_destination_down_for_hours_gets_everything_after(outbox: OutboxWith) -> None:
    box = outbox()
    box.pacs.answers["pacs"] = None
    for number in range(3):
        box.finish_study(f"1.2.{number + 3}")
    for _ in range(8 * 12):
        box.loop.deliver_once()
        box.clock.advance(300)
    assert 8 * 4 <= box.pacs.calls < 120, "every quarter of an hour, not a storm"
    assert {box.state(f"1.2.{n + 3}") for n in range(3)} == {"analysed"}
    box.pacs.answers.clear()
    box.clock.advance(900)
    box.loop.deliver_once()
    assert {box.state(f"1.2.{n + 3}") for n in range(3)} == {"delivered"}


def test_d1_after_give_up_h_the_study_has_failed(outbox: OutboxWith) -> None:
    box = outbox()
    box.pacs.answers["pacs"] = None
    box.finish_study()
    for _ in range(9):
        box.loop.deliver_once()
        box.clock.advance(9.5 * HOUR_S)
    assert box.state() == "failed"
    assert set(box.deliveries().values()) == {"failed"}


def test_d2_a_flapping_destination_makes_no_storm(outbox: OutboxWith) -> None:
    box = outbox()
    for number in range(5):
        box.finish_study(f"1.2.{number + 3}")
    for second in range(0, 1800, 15):
        box.pacs.answers["pacs"] = None if second % 60 < 30 or second < 600 else 0
        box.loop.deliver_once()
        box.clock.advance(15)
    assert box.pacs.calls < 30


def test_d4_what_the_destination_never_takes_does_not_hold_the_report(outbox: OutboxWith) -> None:
    box = outbox()
    box.pacs.answers[SEG] = 0x0122
    box.finish_study()
    box.loop.deliver_once()
    assert box.deliveries() == {("seg-lesions", "pacs"): "failed", ("sr", "pacs"): "sent"}
    assert box.state() == "failed"


def test_d11_the_report_waits_for_what_it_refers_to(outbox: OutboxWith) -> None:
    box = outbox()
    box.pacs.answers[SEG] = 0xA700
    box.finish_study()
    for _ in range(5):
        box.loop.deliver_once()
        box.clock.advance(900)
    assert ("pacs", SR) not in box.pacs.offered
    box.pacs.answers.clear()
    box.loop.deliver_once()
    assert box.pacs.offered[-2:] == [("pacs", SEG), ("pacs", SR)]
    assert box.state() == "delivered"


def test_d8_an_unknown_status_is_tried_three_times(outbox: OutboxWith) -> None:
    box = outbox()
    box.pacs.answers[SEG] = 0x7777
    box.finish_study()
    for _ in range(4):
        box.loop.deliver_once()
        box.clock.advance(900)
    assert box.pacs.offered.count(("pacs", SEG)) == 3
    assert box.deliveries()["seg-lesions", "pacs"] == "failed"
    assert box.deliveries()["sr", "pacs"] == "sent"


def test_d9_a_slow_destination_does_not_hold_up_another(outbox: OutboxWith) -> None:
    box = outbox("slow", "fast")
    box.pacs.hold["slow"] = threading.Event()
    box.finish_study()
    threads = box.loop.start_due()
    wait_for(lambda: box.deliveries()["sr", "fast"] == "sent")
    wait_for(lambda: box.deliveries()["sr", "slow"] == "sending")
    assert box.loop.start_due() == [], "one thread for each destination"
    box.pacs.hold["slow"].set()
    for thread in threads:
        thread.join(60)
    assert set(box.deliveries().values()) == {"sent"}


def test_a_clock_set_forward_does_not_take_away_what_is_being_sent(outbox: OutboxWith) -> None:
    box = outbox()
    box.pacs.hold["pacs"] = threading.Event()
    box.finish_study()
    (thread,) = box.loop.start_due()
    wait_for(lambda: box.deliveries()["sr", "pacs"] == "sending")
    box.clock.step_wall(2 * HOUR_S)
    box.clock.advance(HOUSEKEEPING_S)
    box.loop.start_due()
    assert set(box.deliveries().values()) == {"sending"}
    box.pacs.hold["pacs"].set()
    thread.join(60)
    assert box.pacs.offered == [("pacs", SEG), ("pacs", SR)], "each object once"
    assert box.state() == "delivered"


def test_a_claim_nobody_works_on_comes_back_although_the_clock_was_set(outbox: OutboxWith) -> None:
    box = outbox()
    box.finish_study()
    box.store.claim_deliveries("pacs", "gone")
    box.clock.step_wall(2 * HOUR_S)
    box.loop.deliver_once()
    assert box.pacs.calls == 0
    box.clock.advance(LEASE_S + HOUSEKEEPING_S)
    box.loop.deliver_once()
    assert box.state() == "delivered"


def test_a_removed_destination_ends_its_deliveries(outbox: OutboxWith) -> None:
    box = outbox("pacs", "gone")
    box.finish_study()
    config = box.config.model_copy(update={"peers": box.peers[:1]})
    DeliveryLoop(box.store, config, box.clock, box.pacs.send).deliver_once()
    assert box.deliveries()["sr", "pacs"] == "sent"
    assert box.deliveries()["sr", "gone"] == "failed"


def test_what_was_being_sent_at_a_kill_is_sent_again(outbox: OutboxWith) -> None:
    box = outbox()
    box.finish_study()
    assert box.store.claim_deliveries("pacs", "a process that died")
    stop = threading.Event()
    running = threading.Thread(target=box.loop.run, args=[stop])
    running.start()
    wait_for(lambda: box.state() == "delivered")
    stop.set()
    running.join(60)
    assert not running.is_alive()


def test_a_stop_between_objects_gives_the_rest_back(outbox: OutboxWith) -> None:
    box = outbox()
    box.pacs.hold["pacs"] = threading.Event()
    box.finish_study()
    stop = threading.Event()
    running = threading.Thread(target=box.loop.run, args=[stop])
    running.start()
    wait_for(lambda: box.deliveries()["seg-lesions", "pacs"] == "sending")
    stop.set()
    wait_for(box.loop._stopping.is_set)
    box.pacs.hold["pacs"].set()
    running.join(60)
    assert box.deliveries() == {("seg-lesions", "pacs"): "sent", ("sr", "pacs"): "pending"}


def test_a_changed_result_file_is_never_sent(outbox: OutboxWith, tmp_path: Path) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        box = Outbox(tmp_path, ManualClock(), (receiver("pacs", pacs.port),))
        loop = DeliveryLoop(box.store, box.config, box.clock)
        report, segmentation = box.finish_study()
        file = tmp_path / segmentation.path
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        loop.deliver_once()
        assert [f.sop_instance_uid for f in pacs.filed()] == [report.sop_instance_uid]
        assert box.deliveries()["seg-lesions", "pacs"] == "failed"
        box.store.close()


def test_d3_over_real_sockets_the_same_bytes_arrive_again(tmp_path: Path) -> None:
    """Down, then up; then killed after the PACS stored and before the node wrote it down."""
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        box = Outbox(tmp_path, ManualClock(), (receiver("pacs", pacs.port),))
        loop = DeliveryLoop(box.store, box.config, box.clock)
        rows = box.finish_study()
        pacs.stop()
        loop.deliver_once()
        assert set(box.deliveries().values()) == {"pending"}
        pacs.start()
        box.clock.advance(900)

        class Killed(BaseException):
            pass

        def die(*_: object) -> None:
            raise Killed

        written, box.store.delivery_sent = box.store.delivery_sent, die  # type: ignore[method-assign]
        claims = box.store.claim_deliveries("pacs", loop._owner)
        with pytest.raises(Killed):
            loop._attempt(box.peers[0], claims)
        box.store.delivery_sent = written  # type: ignore[method-assign]
        assert len(pacs.filed()) == 1
        box.store.recover_deliveries()
        loop.deliver_once()
        assert box.state() == "delivered"
        filed = pacs.filed()
        assert [f.sop_instance_uid for f in filed] == [r.sop_instance_uid for r in rows[::-1]]
        assert [(f.copies, f.differing) for f in filed] == [(2, 0), (1, 0)]
        box.store.close()
