"""The examination of a peer against archives with real sockets, and what its answers decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.clock import SystemClock
from dicom_node.config import NodeConfig, PeerConfig
from dicom_node.domain.confirmation import PUSH_MODEL, STUDY_ROOT_FIND
from dicom_node.domain.probing import RESULT_FORMS, Finding, Profile, Step, StepOutcome
from dicom_node.flow import probe as probing
from dicom_node.flow.connection_study import PATIENT_ID, unpacked
from dicom_node.flow.peers import address_of, destination_of
from dicom_node.flow.probe import Order, examine
from dicom_node.net.standin import PacsStandIn
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.net.archive import FIND, PUSH, Archive
from tests.net.conftest import MR

OK, FAILED, SKIPPED = StepOutcome.OK, StepOutcome.FAILED, StepOutcome.SKIPPED
SC = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    (tmp_path / "data").mkdir()
    return NodeConfig.model_validate({"node": {"data_dir": tmp_path / "data"}})


@pytest.fixture
def store(config: NodeConfig) -> Iterator[Store]:
    made = open_store(config.database_url, SystemClock())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_QUERY_EACH_S", 0.05)


def peer_at(port: int, **fields: object) -> PeerConfig:
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port,
              "receives_results": True, **fields}  # fmt: skip
    return PeerConfig.model_validate(values)


def look(store: Store, config: NodeConfig, order: Order) -> dict[Step, Finding]:
    profile = examine(store, config, SystemClock(), order)
    assert store.probe_of(order.peer.name, address_of(order.peer)) == profile
    assert Profile.from_dict(profile.as_dict()) == profile
    return {one.step: one for one in profile.steps}


def outcomes(found: dict[Step, Finding]) -> dict[str, StepOutcome]:
    return {step.value: one.outcome for step, one in found.items()}


def test_an_archive_that_can_everything(store: Store, config: NodeConfig) -> None:
    archive = Archive(offers=(PUSH, FIND)).start()
    peer, told = peer_at(archive.port), []
    try:
        found = look(store, config, Order(peer, send=True, tell=told.append))
    finally:
        archive.stop()
    assert list(found.values()) == told
    assert outcomes(found) == {
        "name": OK, "port": OK, "tls": SKIPPED, "association": OK, "echo": FAILED, "objects": OK,
        "services": OK, "send": OK, "kept": OK, "receiving": SKIPPED,
    }  # fmt: skip
    assert "Verification" in found[Step.ECHO].advice, "this archive takes no C-ECHO"
    assert found[Step.KEPT].found == f"storage commitment for all {len(archive.came)} objects"
    assert "key-images: is left out" in found[Step.OBJECTS].found
    with unpacked() as study:
        images = [one for one in study.objects if one.form is None]
    assert len(archive.came) == len(images) + 3, "images, two segmentations, one report"
    assert set(archive.came.values()) == {1}
    profile = store.probe_of("pacs", address_of(peer))
    assert profile is not None and profile.sent is not None
    assert (profile.sent.patient_id, profile.sent.objects) == (PATIENT_ID, len(archive.came))
    taken = {one.sop_class_uid: one for one in profile.classes}
    assert taken[SC].answer == "not taken" and taken[SC].transfer_syntaxes == ()
    assert len(taken[RESULT_FORMS[0].sop_class_uid].transfer_syntaxes) == 2
    # the sender plans by it
    assert SC in destination_of(store, peer).refused
    assert {row.event for row in store.audit_list()} == {"instances_sent"}


def test_a_commitment_that_is_refused_gives_way_to_a_query(
    store: Store, config: NodeConfig
) -> None:
    archive = Archive(offers=(PUSH, FIND), action_status=0x0122).start()
    peer = peer_at(archive.port)
    try:
        kept = look(store, config, Order(peer, send=True))[Step.KEPT]
    finally:
        archive.stop()
    assert kept.outcome is OK
    assert "0x0122" in kept.found and "a query shows all" in kept.found
    known = {row["sop_class_uid"]: row["accepted"] for row in store.acceptances(
        "pacs", address_of(peer))}  # fmt: skip
    assert (known[PUSH_MODEL], known[STUDY_ROOT_FIND]) == (False, True)


@pytest.mark.parametrize("how", ["commitment", "query", "promise"])
def test_what_is_not_kept_is_said(
    store: Store, config: NodeConfig, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unpacked() as study:
        lost = next(one.item.sop_instance_uid for one in study.objects)
    offers = (FIND,) if how == "query" else (PUSH,)
    archive = Archive(offers=offers, lost={lost: [0x0112]}, hidden={lost}).start()
    if how != "commitment":
        monkeypatch.setattr(probing, "KEPT_WAIT_S", 0.3)
    if how == "promise":
        archive.answer = "never"
    try:
        kept = look(store, config, Order(peer_at(archive.port), send=True))[Step.KEPT]
    finally:
        archive.stop()
    words = {"commitment": "does not keep 1 of", "query": "does not show 1 of",
             "promise": "promised a report"}  # fmt: skip
    assert kept.outcome is FAILED and words[how] in kept.found, kept
    assert ("PROSTATE_AI" in kept.advice) == (how == "promise")


def test_an_archive_that_says_nothing_of_what_it_keeps(
    store: Store, config: NodeConfig, tmp_path: Path
) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        found = look(store, config, Order(peer_at(pacs.port), send=True))
        assert outcomes(found) == {
            "name": OK, "port": OK, "tls": SKIPPED, "association": OK, "echo": OK, "objects": OK,
            "services": SKIPPED, "send": OK, "kept": SKIPPED, "receiving": SKIPPED,
        }  # fmt: skip
        with unpacked() as study:
            filed = pacs.filed(study.study_uid)
        assert {dcmread(one.path).PatientID for one in filed} == {PATIENT_ID}
        again = look(store, config, Order(peer_at(pacs.port), send=True))
        assert again[Step.SEND].outcome is OK
        assert all(one.differing == 0 for one in pacs.filed(study.study_uid)), "byte for byte"


def test_results_alone_are_a_success_and_nothing_at_all_is_not(
    store: Store, config: NodeConfig, tmp_path: Path
) -> None:
    classes = {one.sop_class_uid for one in RESULT_FORMS}
    with PacsStandIn("PACS", tmp_path / "one", sop_classes=classes) as pacs:
        sent = look(store, config, Order(peer_at(pacs.port), send=True))[Step.SEND]
        assert sent.outcome is OK and "without the images" in sent.found
    with PacsStandIn("PACS", tmp_path / "two", sop_classes=[MR]) as pacs:
        found = look(store, config, Order(peer_at(pacs.port)))
        assert found[Step.OBJECTS].outcome is FAILED
        assert "Comprehensive 3D SR" in found[Step.OBJECTS].found
        quiet = look(store, config, Order(peer_at(pacs.port, receives_results=False)))
        assert quiet[Step.OBJECTS].outcome is SKIPPED, "nothing goes there"


def test_what_blocks_skips_the_rest_but_not_the_other_direction(
    store: Store, config: NodeConfig, tmp_path: Path
) -> None:
    with PacsStandIn("OTHER", tmp_path / "pacs") as pacs:
        found = look(store, config, Order(peer_at(pacs.port), send=True))
    assert found[Step.ASSOCIATION].outcome is FAILED
    assert "correct its AE title here" in found[Step.ASSOCIATION].advice
    rest = [Step.ECHO, Step.OBJECTS, Step.SERVICES, Step.SEND, Step.KEPT]
    assert {found[step].found for step in rest} == {"needs the steps before"}
    store.record_refusal("PACS2", "PROSTATE_AI", "127.0.0.1", "calling_ae_unknown")
    heard = look(store, config, Order(peer_at(pacs.port)))
    assert heard[Step.PORT].outcome is FAILED, "the stand-in is gone"
    assert heard[Step.RECEIVING].outcome is FAILED
    assert heard[Step.RECEIVING].found.startswith(
        "PACS2 from 127.0.0.1 was refused moments ago: No peer has this AE title"
    )
    assert "set its AE title here" in heard[Step.RECEIVING].advice
    no_port = look(store, config, Order(peer_at(1).model_copy(update={"port": None})))
    assert "no port is given" in no_port[Step.PORT].found


def test_refusals_of_others_and_of_single_classes_are_no_news(
    store: Store, config: NodeConfig
) -> None:
    peers = [{"name": "mr", "ae_title": "MR1", "host": "127.0.0.1"}]
    config = NodeConfig.model_validate({"node": config.node, "peers": peers})
    store.record_refusal("MR1", "OTHER", "127.0.0.1", "called_ae_unknown")
    store.record_refusal("PACS", "PROSTATE_AI", "10.0.0.9", "sop_class_not_supported: 1.2.3")
    store.record_refusal("PACS", "PROSTATE_AI", "10.0.0.9", "address_not_allowed")
    found = look(store, config, Order(peer_at(9)))[Step.RECEIVING]
    assert found.found.startswith("PACS from 10.0.0.9 was refused")
    assert "Refused senders" in found.advice
    store.refusal_forget(next(r["id"] for r in store.refusals() if r["address"] == "10.0.0.9"
                              and r["reason"] == "address_not_allowed"))  # fmt: skip
    found = look(store, config, Order(peer_at(9)))[Step.RECEIVING]
    assert found.outcome is SKIPPED and "nothing came" in found.found


def test_the_packaged_study_is_of_nobody_and_holds_every_form() -> None:
    with unpacked() as study:
        forms = {one.form for one in study.objects if one.form is not None}
        headers = [dcmread(one.item.path, stop_before_pixels=True) for one in study.objects]
    assert {(f.kind, f.variant, f.sop_class_uid) for f in forms} == {
        (f.kind, f.variant, f.sop_class_uid) for f in RESULT_FORMS
    }
    assert {str(one.PatientName) for one in headers} == {"CONNECTION TEST^NOT A PATIENT"}
    assert {one.PatientID for one in headers} == {PATIENT_ID}
    assert {one.StudyDescription for one in headers} == {"CONNECTION TEST, NOT A PATIENT"}
    assert {str(one.StudyInstanceUID) for one in headers} == {study.study_uid}
    images = {str(one.SOPInstanceUID) for one in headers if one.Modality == "MR"}
    with unpacked() as study:
        for one in study.objects:
            if one.form is not None and one.form.kind == "seg-lesions":
                seg = dcmread(one.item.path)
                referred = {
                    str(item.ReferencedSOPInstanceUID)
                    for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
                }
                assert referred <= images
