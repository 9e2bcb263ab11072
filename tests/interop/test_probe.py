"""The examination of a peer against DCMTK and a real Orthanc: what is sent is found back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.domain.probing import Step, StepOutcome
from dicom_node.flow.connection_study import unpacked
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.probe import Order, examine
from dicom_node.net.reach import Listener, listener
from dicom_node.net.receiver import Receiver
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.interop.conftest import NODE_AE
from tests.interop.peers import OrthancPeer, StoreScp

pytestmark = pytest.mark.interop
OK, SKIPPED = StepOutcome.OK, StepOutcome.SKIPPED


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    (tmp_path / "data").mkdir()
    node = {"ae_title": NODE_AE, "port": 0, "data_dir": tmp_path / "data"}
    return NodeConfig.model_validate({"node": node})


@pytest.fixture
def store(config: NodeConfig) -> Iterator[Store]:
    made = open_store(config.database_url, SystemClock())
    yield made
    made.close()


def peer_of(program: StoreScp | OrthancPeer, **fields: object) -> PeerConfig:
    values = {"name": "pacs", "ae_title": program.ae_title, "host": "127.0.0.1",
              "port": program.port, "receives_results": True, **fields}  # fmt: skip
    return PeerConfig.model_validate(values)


def test_storescp_takes_all_and_says_nothing_of_it(
    storescp: StoreScp, store: Store, config: NodeConfig
) -> None:
    profile = examine(store, config, SystemClock(), Order(peer_of(storescp), send=True))
    outcomes = {one.step: one.outcome for one in profile.steps}
    assert profile.ok, profile.steps
    assert (outcomes[Step.SEND], outcomes[Step.KEPT]) == (OK, SKIPPED)
    assert profile.sent is not None and profile.sent.objects == len(storescp.stored())
    assert listener("127.0.0.1", storescp.port) in (Listener.DICOM, Listener.CLOSES)


def test_orthanc_commits_and_shows_what_it_got(
    orthanc: OrthancPeer, store: Store, config: NodeConfig
) -> None:
    clock = SystemClock()
    ingest = Ingest(store, config.node.data_dir, clock)
    ingest.start()
    peers = [{"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.port,
              "receives_results": True}]  # fmt: skip
    served = NodeConfig.model_validate({"node": config.node, "peers": peers})
    receiver = Receiver(served, store, ingest, clock)
    orthanc.set_modality("node", NODE_AE, receiver.start())
    try:
        profile = examine(store, served, clock, Order(served.peers[0], send=True))
    finally:
        receiver.stop(drain_s=2)
        ingest.stop()
    assert profile.sent is not None
    steps = {one.step: one for one in profile.steps}
    # its report came to the port of the node, on an association of its own
    assert steps[Step.KEPT].found == f"storage commitment for all {profile.sent.objects} objects"
    with unpacked() as study:
        (held,) = orthanc.studies()
        assert len(orthanc.instances(study.study_uid)) == profile.sent.objects
    assert held and profile.ok, profile.steps


def test_orthanc_that_does_not_commit_is_queried(
    orthanc: OrthancPeer, store: Store, config: NodeConfig
) -> None:
    orthanc.set_modality("node", NODE_AE, 9, AllowFind=True, AllowStorageCommitment=False)
    profile = examine(store, config, SystemClock(), Order(peer_of(orthanc), send=True))
    kept = next(one for one in profile.steps if one.step is Step.KEPT)
    assert kept.outcome is OK and "a query shows all" in kept.found, kept
    wrong = examine(store, config, SystemClock(), Order(peer_of(orthanc, ae_title="ORTHANK")))
    assert "correct its AE title here" in next(
        one.advice for one in wrong.steps if one.step is Step.ASSOCIATION
    )
