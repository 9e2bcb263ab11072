"""Storage commitment with a real Orthanc: as its SCU, as its SCP, and by query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig
from dicom_node.domain.confirmation import FIRST_CHECK_S
from dicom_node.flow.confirm import Confirmer
from dicom_node.flow.deliver import DeliveryLoop
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.pledge import SETTLE_S, PledgeLoop
from dicom_node.net.receiver import Receiver
from dicom_node.store.pledges import FIRST_ANSWER_S
from tests.interop.conftest import NODE_AE
from tests.interop.peers import OrthancPeer
from tests.net.conftest import MR, wait_for, write_instance
from tests.net.test_deliver import Outbox

pytestmark = pytest.mark.interop
LIMIT_S = 60.0


class Node:
    """A node whose one peer is Orthanc, on a clock turned by hand."""

    def __init__(self, folder: Path, orthanc: OrthancPeer, verify: str) -> None:
        self.clock = ManualClock()
        peer = PeerConfig.model_validate(
            {"name": "orthanc", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.port,
             "receives_results": True, "verify": verify}
        )  # fmt: skip
        self.box = Outbox(folder, self.clock, (peer,))
        self.store = self.box.store
        section = NodeSection(ae_title=NODE_AE, port=0, data_dir=folder)
        config = NodeConfig(node=section, peers=(peer,))
        self.ingest = Ingest(self.store, folder, self.clock)
        self.ingest.start()
        self.receiver = Receiver(config, self.store, self.ingest, self.clock)
        self.port = self.receiver.start()
        confirmer = Confirmer(self.store, config, self.clock)
        self.loop = DeliveryLoop(self.store, config, self.clock, confirmer=confirmer)
        self.pledges = PledgeLoop(self.store, config, self.clock)

    def states(self) -> set[str]:
        return set(self.box.deliveries().values())

    def words(self) -> set[str]:
        return {row["confirmation"] for row in self.store.delivery_details("1.2.3.4")}


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path, orthanc: OrthancPeer) -> Iterator[Node]:
    (tmp_path / "node").mkdir()
    made = Node(tmp_path / "node", orthanc, getattr(request, "param", "auto"))
    orthanc.set_modality("node", NODE_AE, made.port)
    yield made
    made.receiver.stop(drain_s=2)
    made.ingest.stop()
    made.store.close()


def test_orthanc_commits_to_results_and_reports_what_it_lost(
    node: Node, orthanc: OrthancPeer
) -> None:
    node.box.finish_study()
    node.loop.deliver_once()
    assert node.states() == {"sent"}
    orthanc.delete_all()
    node.clock.advance(FIRST_CHECK_S)
    node.loop.deliver_once()
    wait_for(lambda: node.states() == {"pending"}, LIMIT_S)
    node.loop.deliver_once()
    node.clock.advance(FIRST_CHECK_S)
    node.loop.deliver_once()
    wait_for(lambda: node.states() == {"verified"}, LIMIT_S)
    assert node.words() == {"kept: confirmed by storage commitment"}
    assert len(orthanc.instances("1.2.3.4")) == 2
    assert node.box.state() == "delivered"


@pytest.mark.parametrize("node", ["query"], indirect=True)
def test_orthanc_is_queried_for_each_object(node: Node, orthanc: OrthancPeer) -> None:
    node.box.finish_study()
    node.loop.deliver_once()
    node.clock.advance(FIRST_CHECK_S)
    node.loop.deliver_once()
    assert node.states() == {"verified"}
    assert node.words() == {"kept: the destination shows it"}
    assert len(orthanc.instances("1.2.3.4")) == 2


def test_orthanc_gets_a_true_answer_to_its_request(
    node: Node, orthanc: OrthancPeer, tmp_path: Path
) -> None:
    files = [write_instance(tmp_path) for _ in range(2)]
    for file in files:
        orthanc.upload(file)
    orthanc.store(orthanc.studies()).raise_for_status()
    kept, damaged = (file.stem for file in files)
    node.ingest.file_pending()
    (held,) = node.store.held(damaged)
    stored = tmp_path / "node" / held.path
    stored.write_bytes(stored.read_bytes()[:-2])
    transaction = orthanc.request_commitment([(MR, kept), (MR, damaged), (MR, "1.2.3.9")])
    node.clock.advance(SETTLE_S)
    node.pledges.answer_once()
    told = orthanc.commitment(transaction)
    assert told["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in told["Success"]] == [kept]
    reasons = {one["SOPInstanceUID"]: one["FailureReason"] for one in told["Failures"]}
    assert reasons == {damaged: 0x0110, "1.2.3.9": 0x0112}
    transaction = orthanc.request_commitment([(MR, kept)])
    node.clock.advance(FIRST_ANSWER_S)
    node.pledges.answer_once()
    assert orthanc.commitment(transaction)["Status"] == "Success"
