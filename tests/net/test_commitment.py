"""Three honest ends of a delivery (D10), and commitment asked of the node; pynetdicom peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.clock import ManualClock
from dicom_node.config import DeliverySection, NodeConfig, NodeSection, PeerConfig
from dicom_node.domain.confirmation import FIRST_CHECK_S, MAX_CHECKS, MAX_LOSSES
from dicom_node.domain.policy import BACKOFF_CAP_S
from dicom_node.flow.confirm import Confirmer, DicomAsks
from dicom_node.flow.deliver import DeliveryLoop
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.pledge import SETTLE_S, PledgeLoop
from dicom_node.net.receiver import Receiver
from dicom_node.net.sender import outgoing, send
from dicom_node.store.pledges import FIRST_ANSWER_S
from tests.net.archive import FIND, NODE_AE, PUSH, Archive
from tests.net.conftest import MR, wait_for, write_instance
from tests.net.test_deliver import SEG, SR, Outbox

HOUR_S = 3600.0
STUDY = "1.2.3.4"


def peer(archive: Archive, **values: Any) -> PeerConfig:
    given = {
        "name": "pacs", "ae_title": archive.ae_title, "host": "127.0.0.1", "port": archive.port,
        "receives_results": True,
    }  # fmt: skip
    return PeerConfig.model_validate({**given, **values})


@dataclass
class Node:
    """A node with its port, its outbox and its loops, on a clock turned by hand."""

    folder: Path
    archive: Archive
    peer: PeerConfig
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.box = Outbox(self.folder, self.clock, (self.peer,))
        self.start()

    def start(self) -> None:
        section = NodeSection(ae_title="PROSTATE_AI", port=0, data_dir=self.folder)
        self.config = NodeConfig(
            node=section, peers=(self.peer,), delivery=DeliverySection(commitment_wait_h=1)
        )
        self.store = self.box.store
        self.ingest = Ingest(self.store, self.folder, self.clock)
        self.ingest.start()
        self.receiver = Receiver(self.config, self.store, self.ingest, self.clock)
        self.archive.node_port = self.receiver.start()
        # long where the report comes on the same association: a loaded machine takes its time
        asks = DicomAsks(NODE_AE, linger_s=60 if self.archive.answer == "same" else 0.3)
        confirmer = Confirmer(self.store, self.config, self.clock, asks)
        self.loop = DeliveryLoop(self.store, self.config, self.clock, confirmer=confirmer)
        self.pledges = PledgeLoop(self.store, self.config, self.clock)

    def restart(self) -> None:
        self.close()
        self.box.__post_init__()
        self.start()

    def close(self) -> None:
        self.receiver.stop(drain_s=1)
        self.ingest.stop()
        self.store.close()

    def round(self, later_s: float = FIRST_CHECK_S) -> None:
        """Deliver, let time pass, ask."""
        self.loop.deliver_once()
        self.clock.advance(later_s)
        self.loop.deliver_once()

    def states(self) -> set[str]:
        return set(self.box.deliveries().values())

    def words(self) -> set[str]:
        return {row["confirmation"] for row in self.store.delivery_details(STUDY)}


NodeWith = Callable[..., Node]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeWith]:
    made: list[Node] = []

    def make(archive: Archive, **values: Any) -> Node:
        archive.start()
        made.append(Node(tmp_path, archive, peer(archive, **values)))
        return made[-1]

    yield make
    for one in made:
        one.archive.stop()
        one.close()


# as SCU


def test_a_report_on_the_same_association_verifies(node: NodeWith) -> None:
    here = node(Archive("same"))
    here.box.finish_study()
    here.loop.deliver_once()
    assert here.states() == {"sent"}
    here.clock.advance(FIRST_CHECK_S)
    here.loop.deliver_once()
    assert here.states() == {"verified"}
    assert here.words() == {"kept: confirmed by storage commitment"}
    assert len(here.archive.requests) == 1
    wait_for(lambda: here.archive.statuses == [0])
    assert here.box.state() == "delivered"


@pytest.mark.parametrize("roles", [True, False])
@pytest.mark.parametrize("may_send", [True, False])
def test_a_report_on_an_association_of_its_own_verifies(
    node: NodeWith, roles: bool, may_send: bool
) -> None:
    here = node(Archive("separate", roles=roles), may_send=may_send)
    here.box.finish_study()
    here.round()
    wait_for(lambda: here.states() == {"verified"})
    wait_for(lambda: here.archive.statuses == [0])


def test_a_destination_that_may_not_send_is_offered_no_storage(
    node: NodeWith, tmp_path: Path
) -> None:
    here = node(Archive(), may_send=False)
    address = here.peer.model_copy(
        update={"ae_title": "PROSTATE_AI", "port": here.archive.node_port}
    )
    (status,) = send(address, [outgoing(write_instance(tmp_path))], calling_ae="PACS")
    assert status.not_taken
    assert here.archive.ask([(MR, "1.2.3")], "1.9.1") == 0x0124


def test_D10_what_is_reported_lost_is_sent_again_byte_for_byte(node: NodeWith) -> None:
    here = node(Archive("same"))
    uid = next(r.sop_instance_uid for r in here.box.finish_study() if r.kind == "sr")
    here.archive.lost[uid] = [0x0112]
    here.round()
    assert here.box.state() == "analysed", "not delivered while something is missing there"
    assert here.box.deliveries() == {("seg-lesions", "pacs"): "verified", ("sr", "pacs"): "pending"}
    here.round()
    assert here.states() == {"verified"}
    assert here.archive.came[uid] == 2 and len(here.archive.content[uid]) == 1
    assert here.box.state() == "delivered"


def test_D10_sending_again_has_an_end(node: NodeWith) -> None:
    here = node(Archive("same"))
    uid = next(r.sop_instance_uid for r in here.box.finish_study() if r.kind == "sr")
    here.archive.lost[uid] = [0x0112] * 99
    for _ in range(MAX_LOSSES + 3):
        here.round()
    assert here.archive.came[uid] == 1 + MAX_LOSSES
    assert here.box.deliveries() == {("seg-lesions", "pacs"): "verified", ("sr", "pacs"): "failed"}
    (shown,) = here.store.studies_show(STUDY)
    assert (shown["state"], shown["reason"]) == ("failed", "delivery_failed")
    assert "not kept: storage commitment refused: no such object" in shown["message"]


def test_a_class_that_is_not_committed_to_stays_sent(node: NodeWith) -> None:
    here = node(Archive("same"))
    uid = next(r.sop_instance_uid for r in here.box.finish_study() if r.kind == "sr")
    here.archive.lost[uid] = [0x0122]
    for _ in range(3):
        here.round(HOUR_S)
    assert here.box.deliveries()["sr", "pacs"] == "sent"
    assert here.archive.came[uid] == 1 and len(here.archive.requests) == 1
    assert any("commits to no objects of this class" in words for words in here.words())


def test_an_answer_that_never_comes_leaves_sent_and_says_so(node: NodeWith) -> None:
    here = node(Archive("never"))
    here.box.finish_study()
    here.round()
    assert here.words() == {"storage commitment requested, not answered yet"}
    for _ in range(MAX_CHECKS + 2):
        here.round(HOUR_S + 1)
    assert len(here.archive.requests) == MAX_CHECKS, "bounded"
    assert here.states() == {"sent"} and here.box.state() == "delivered"
    assert here.words() == {
        "not confirmed: storage commitment was requested, no answer came (3 times)"
    }


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0110, "not confirmed: request for storage commitment refused with status 0x0110"),
        (0x0122, "not confirmed: the destination offers neither storage commitment nor a query"),
    ],
)
def test_a_refused_request_leaves_sent_and_says_so(node: NodeWith, status: int, words: str) -> None:
    here = node(Archive(action_status=status))
    here.box.finish_study()
    for _ in range(MAX_CHECKS + 2):
        here.round(HOUR_S)
    assert len(here.archive.requests) == (MAX_CHECKS if status == 0x0110 else 1), "bounded"
    assert here.states() == {"sent"} and here.words() == {words}


def test_a_transaction_survives_a_restart_and_may_be_answered_late(node: NodeWith) -> None:
    here = node(Archive("never"))
    here.box.finish_study()
    here.round()
    ((transaction, uids),) = here.archive.requests
    here.restart()
    here.clock.advance(5 * HOUR_S)
    assert here.archive.report(_asked(transaction, uids)) == 0
    assert here.states() == {"verified"}
    assert here.archive.report(_asked(transaction, uids)) == 0, "again: nothing changes"


def test_a_report_nobody_asked_for_changes_nothing(node: NodeWith) -> None:
    here = node(Archive("never"))
    here.box.finish_study()
    here.round()
    ((transaction, uids),) = here.archive.requests
    assert here.archive.report(_asked("1.2.3.99", uids)) == 0x0115
    assert here.store.commitment_answered(transaction, ["another"], set(uids), {}) is False
    assert here.archive.send(_asked(transaction, uids), 7) == 0x0113
    broken = Dataset()
    broken.TransactionUID = transaction
    broken.ReferencedSOPSequence = [Dataset()]
    assert here.archive.send(broken, 1) == 0x0115
    assert here.states() == {"sent"}


def test_a_report_on_an_earlier_sending_says_nothing_of_a_later_one(node: NodeWith) -> None:
    here = node(Archive("never"))
    here.box.finish_study()
    here.round()
    ((transaction, uids),) = here.archive.requests
    first = dict.fromkeys(uids, 0x0112)
    assert here.store.commitment_answered(transaction, ["pacs"], (), first)
    here.loop.deliver_once()
    assert here.states() == {"sent"} and set(here.archive.came.values()) == {2}
    assert here.store.commitment_answered(transaction, ["pacs"], (), first)
    assert here.states() == {"sent"}, "the later sending is not touched"


def test_an_archive_without_commitment_is_queried(node: NodeWith) -> None:
    here = node(Archive(offers=(FIND,)))
    uid = next(r.sop_instance_uid for r in here.box.finish_study() if r.kind == "sr")
    here.archive.hidden.add(uid)
    here.round()
    assert here.box.deliveries() == {("seg-lesions", "pacs"): "verified", ("sr", "pacs"): "sent"}
    assert "kept: the destination shows it" in here.words()
    here.round(60)
    assert here.archive.came[uid] == 1, "archives need time: asked again before it is sent again"
    here.round(600)
    here.loop.deliver_once()
    assert here.archive.came[uid] == 2
    here.archive.hidden.clear()
    here.round()
    assert here.states() == {"verified"} and here.box.state() == "delivered"


def test_an_archive_that_offers_neither_leaves_sent_and_says_so(node: NodeWith) -> None:
    here = node(Archive(offers=()))
    here.box.finish_study()
    for _ in range(3):
        here.round(HOUR_S)
    assert here.states() == {"sent"} and here.archive.requests == []
    (words,) = here.words()
    assert words == "not confirmed: the destination offers neither storage commitment nor a query"


@pytest.mark.parametrize(("verify", "asked"), [("off", 0), ("query", 2), ("commitment", 1)])
def test_the_way_of_asking_can_be_set_for_each_peer(
    node: NodeWith, verify: str, asked: int
) -> None:
    here = node(Archive("same", offers=(PUSH, FIND)), verify=verify)
    here.box.finish_study()
    here.round()
    assert len(here.archive.requests) == asked
    assert here.states() == ({"verified"} if asked else {"sent"})


def test_an_archive_that_is_down_is_asked_when_it_is_back(node: NodeWith) -> None:
    here = node(Archive("same"))
    here.box.finish_study()
    here.loop.deliver_once()
    here.archive.stop()
    here.clock.advance(FIRST_CHECK_S)
    here.loop.deliver_once()
    assert here.states() == {"sent"}
    assert any("cannot connect" in words for words in here.words())
    here.archive.start()
    here.clock.advance(BACKOFF_CAP_S)
    here.loop.deliver_once()
    assert here.states() == {"verified"}


# as SCP


def stored(here: Node, folder: Path, **values: Any) -> Path:
    """Send one image to the node; returns its stored file."""
    file = write_instance(folder, **values)
    address = here.peer.model_copy(
        update={"ae_title": "PROSTATE_AI", "port": here.archive.node_port}
    )
    (status,) = send(address, [outgoing(file)], calling_ae="PACS")
    assert status.code == 0, status.detail
    here.ingest.file_pending()
    (held,) = here.store.held(file.stem)
    return here.folder / held.path


def test_the_node_commits_to_what_it_holds_and_to_nothing_else(
    node: NodeWith, tmp_path: Path
) -> None:
    here = node(Archive())
    (made, _) = here.box.finish_study("1.2.77")
    good, damaged, gone, other = (stored(here, tmp_path) for _ in range(4))
    uids = [_uid(path) for path in (good, damaged, gone, other)]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    gone.unlink()
    references = [(MR, uids[0]), (MR, uids[1]), (MR, uids[2]), (SEG, uids[3]), (MR, "1.2.3.9"),
                  (SR, made.sop_instance_uid)]  # fmt: skip
    assert here.archive.ask(references, "1.9.1") == 0
    here.restart()
    here.clock.advance(FIRST_ANSWER_S)
    here.pledges.answer_once()
    assert here.archive.reports == [], "what is missing may be on its way"
    here.clock.advance(SETTLE_S)
    here.pledges.answer_once()
    (report,) = here.archive.reports
    assert report.TransactionUID == "1.9.1"
    kept = [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence]
    assert kept == [uids[0], made.sop_instance_uid]
    failed = {i.ReferencedSOPInstanceUID: i.FailureReason for i in report.FailedSOPSequence}
    assert failed == {uids[1]: 0x0110, uids[2]: 0x0110, uids[3]: 0x0119, "1.2.3.9": 0x0112}
    here.pledges.answer_once()
    assert len(here.archive.reports) == 1, "answered once"


def test_a_peer_that_is_down_is_answered_later(node: NodeWith, tmp_path: Path) -> None:
    here = node(Archive())
    uid = _uid(stored(here, tmp_path))
    assert here.archive.ask([(MR, uid)], "1.9.1") == 0
    here.archive.stop()
    here.clock.advance(FIRST_ANSWER_S)
    here.pledges.answer_once()
    here.archive.start()
    here.pledges.answer_once()
    assert here.archive.reports == []
    here.clock.advance(60)
    here.pledges.answer_once()
    assert len(here.archive.reports) == 1


def test_requests_the_node_cannot_answer_are_refused(node: NodeWith) -> None:
    here = node(Archive(), port=None, receives_results=False)
    assert here.archive.ask([(MR, "1.2.3")], "1.9.1") == 0x0110
    assert here.archive.ask([], "1.9.1") == 0x0110
    here.peer = peer(here.archive)
    here.restart()
    assert here.archive.ask([], "1.9.1") == 0x0115
    assert here.archive.ask([(MR, "1.2.3")], "1.9.1", action=2) == 0x0123
    assert here.store.claim_pledges(1) == []


def _uid(path: Path) -> str:
    return str(dcmread(path).SOPInstanceUID)


def _asked(transaction: str, uids: list[str]) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SR, uid
        asked.ReferencedSOPSequence.append(item)
    return asked
