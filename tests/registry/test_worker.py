"""A worker whose release may not run: no other one runs, and the study says so in the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.domain.policy import PlanKind
from dicom_node.domain.reasons import Reason
from dicom_node.registry.keys import distrust_key, make_key, private_folder
from dicom_node.registry.shelf import sign_folder
from dicom_node.registry.switch import DEFAULT_SCOPE, add_release, commit_switch, prepare_switch
from dicom_node.worker import Worker
from tests.flow.conftest import ADC, STUDY, T2W, Node, series
from tests.releases import light


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "data", ManualClock())
    yield made
    made.store.close()


def test_G2_a_study_whose_release_is_no_longer_trusted_ends_in_a_report(
    node: Node, tmp_path: Path
) -> None:
    light(tmp_path / "site", "site")
    make_key(node.config, "physics")
    sign_folder(tmp_path / "site", private_folder(node.config) / "physics.key")
    add_release(node.config, node.store, tmp_path / "site")
    prepared = prepare_switch(node.config, node.store, DEFAULT_SCOPE, "site")
    commit_switch(node.config, node.store, prepared, [])
    distrust_key(node.config, "physics")

    node.send_all([*series(T2W), *series(ADC)])
    node.clock.advance(node.config.study.quiet_s + 1)
    node.evaluate()
    assert node.state() == (1, "ready", None)
    worker = Worker(node.config, node.store, node.clock)
    for _ in range(3):
        node.clock.advance(3600)
        assert worker._work_once(threading.Event())
    claim = node.store.claim_ready("worker-0", node.clock.now_s() + 3600)
    assert claim is not None
    assert (claim.kind, claim.reason) == (PlanKind.REPORT, Reason.ATTEMPTS_EXHAUSTED)
    told = [line["detail"] for line in node.store.timeline(STUDY)]
    assert sum("not trusted" in detail for detail in told) == 3
    assert worker._child._process is None, "no model was started"
