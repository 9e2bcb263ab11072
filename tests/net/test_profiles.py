"""One result set, destinations that take different things: over real associations (G3)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig, NodeSection, PeerConfig
from dicom_node.domain.identity import Identity
from dicom_node.domain.policy import PlanKind
from dicom_node.domain.profile import (
    COMPREHENSIVE_3D_SR,
    COMPREHENSIVE_SR,
    DEFAULT_KINDS,
    SEGMENTATION,
    SOP_CLASSES,
    ResultKind,
)
from dicom_node.flow.deliver import REFUSAL_HOLDS_S, DeliveryLoop
from dicom_node.flow.peers import address_of, destinations, encoding_wanted
from dicom_node.net.negotiation import probe
from dicom_node.net.standin import PacsStandIn
from dicom_node.results.build import ResultObject, build_results
from dicom_node.results.gate_report import content_items
from dicom_node.store.rows import InstanceRow, Plan, ResultRow
from tests.databases import open_store
from tests.net.conftest import MR
from tests.results import result_cases as cases

SC = "1.2.840.10008.5.1.4.1.1.7"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
PR = "1.2.840.10008.5.1.4.1.1.11.1"


@pytest.fixture(scope="module")
def result_set() -> tuple[list[Dataset], list[ResultObject]]:
    """Sources, and everything that the default set may call for."""
    kinds, variants = encoding_wanted([])
    assert (kinds, variants) == (frozenset(DEFAULT_KINDS), False)
    request = replace(
        cases.stack_request(), variants=True,
        kinds=frozenset({*DEFAULT_KINDS, "pdf", "presentation-state"}),
    )  # fmt: skip
    return list(request.sources), build_results(request)


@dataclass
class Site:
    """A node's outbox with one finished study, and destinations as stand-ins."""

    folder: Path
    pacs: Sequence[PacsStandIn]
    objects: tuple[ResultKind, ...] = ()

    def __post_init__(self) -> None:
        peers = tuple(
            PeerConfig(
                name=one.ae_title.lower(), ae_title=one.ae_title, host="127.0.0.1", port=one.port,
                receives_results=True, objects=self.objects,
            )
            for one in self.pacs
        )  # fmt: skip
        self.clock = ManualClock()
        self.config = NodeConfig(node=NodeSection(data_dir=self.folder), peers=peers)
        self.store = open_store(self.config.database_url, self.clock, "here")
        self.loop = DeliveryLoop(self.store, self.config, self.clock)

    def finish(self, made: Sequence[ResultObject], uid: str = "2.25.7771") -> None:
        image = InstanceRow(
            uid, uid + ".1", MR, uid + ".1.1", "1.2.840.10008.1.2.1", "image",
            Identity("P1", "", ""), "{}", "0" * 64, f"spool/{uid}", 1, self.clock.now_s(),
        )  # fmt: skip
        self.store.add_instance(image)
        (study,) = self.store.studies_to_evaluate(self.clock.now_s(), 0)
        assert self.store.set_plan(study, Plan(PlanKind.ANALYSE, "key" + uid, "{}", 1))
        claim = self.store.claim_ready("worker-0")
        assert claim is not None
        self.store.finish_analysed(
            claim, [self._row(one) for one in made], destinations(self.store, self.config)
        )

    def _row(self, made: ResultObject) -> ResultRow:
        path = self.folder / f"{made.sop_instance_uid}.dcm"
        path.write_bytes(made.data)
        return ResultRow(
            str(made.kind), made.sop_class_uid, made.sop_instance_uid, made.series_uid, path.name,
            made.sha256, len(made.data), str(made.variant),
        )  # fmt: skip

    def deliver(self) -> None:
        """Rounds until nothing is due: a refusal takes another association."""
        for _ in range(4):
            self.clock.advance(10)
            self.loop.deliver_once()

    @property
    def shown(self) -> dict:
        return self.store.studies_show("2.25.7771")[0]


@pytest.fixture
def pacs_of(tmp_path: Path) -> Iterator:
    made: list[PacsStandIn] = []

    def start(name: str, *, without: set[str] = frozenset()) -> PacsStandIn:
        classes = set(SOP_CLASSES) - without
        made.append(PacsStandIn(name, tmp_path / name, sop_classes=classes))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def held_by(pacs: PacsStandIn) -> list[Dataset]:
    return [pydicom.dcmread(io.BytesIO(item.path.read_bytes())) for item in pacs.filed()]


def check_no_reference_dangles(pacs: PacsStandIn, sources: list[Dataset]) -> None:
    """Everything an object of the destination names is a source image or is there."""
    held = held_by(pacs)
    known = {str(one.SOPInstanceUID) for one in [*held, *sources]}
    for dataset in held:
        for item in content_items(dataset):
            for reference in item.get("ReferencedSOPSequence") or []:
                assert str(reference.ReferencedSOPInstanceUID) in known
        for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or []:
            for series in study.ReferencedSeriesSequence:
                for reference in series.ReferencedSOPSequence:
                    assert str(reference.ReferencedSOPInstanceUID) in known


CASES = {
    "everything": (set(), {SEGMENTATION, SC, COMPREHENSIVE_3D_SR}),
    "no 3D report": ({COMPREHENSIVE_3D_SR}, {SEGMENTATION, SC, COMPREHENSIVE_SR}),
    "no segmentation": ({SEGMENTATION}, {SC, PR, COMPREHENSIVE_3D_SR}),
    "no segmentation, no outlines": ({SEGMENTATION, PR}, {SC, COMPREHENSIVE_3D_SR}),
    "neither": ({SEGMENTATION, COMPREHENSIVE_3D_SR}, {SC, PR, COMPREHENSIVE_SR}),
    "images and documents": (
        {SEGMENTATION, PR, COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR}, {SC, PDF},
    ),
    "no secondary capture": ({SC}, {SEGMENTATION, PDF, COMPREHENSIVE_3D_SR}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_destination_gets_what_it_takes(name: str, result_set, pacs_of, tmp_path: Path) -> None:
    sources, made = result_set
    without, expected = CASES[name]
    pacs = pacs_of("PACS", without=without)
    site = Site(tmp_path, [pacs])
    site.finish(made)
    site.deliver()
    assert {item.sop_class_uid for item in pacs.filed()} == expected
    assert site.shown["state"] == "delivered"
    check_no_reference_dangles(pacs, sources)
    by_uid = {one.sop_instance_uid: one for one in made}
    for item in pacs.filed():  # data sets as stored, whatever the way there
        sent = by_uid[item.sop_instance_uid]
        assert pydicom.dcmread(item.path) == pydicom.dcmread(io.BytesIO(sent.data))
    named = {one["kind"] for one in site.shown["left_out"]}
    classes = {str(one.kind): one.sop_class_uid for one in made if not one.variant}
    assert named >= {kind for kind in DEFAULT_KINDS if classes[kind] in without}
    assert bool(named) == bool(without)
    assert pacs.associations <= (2 if without else 1)
    site.store.close()


def test_the_next_study_is_planned_with_what_was_learned(
    result_set, pacs_of, tmp_path: Path
) -> None:
    pacs = pacs_of("PACS", without={SEGMENTATION})
    site = Site(tmp_path, [pacs])
    site.finish(result_set[1])
    site.deliver()
    (destination,) = destinations(site.store, site.config)
    assert destination.refused == {SEGMENTATION}
    site.store.close()


def test_an_archive_that_learned_segmentation_gets_it_next_time(
    result_set, pacs_of, tmp_path: Path
) -> None:
    pacs = pacs_of("PACS", without={SEGMENTATION})
    site = Site(tmp_path, [pacs])
    site.finish(result_set[1])
    site.deliver()
    pacs.stop()
    upgraded = PacsStandIn("PACS", tmp_path / "upgraded", port=pacs.port)
    upgraded.start()
    try:
        site.finish(result_set[1][:1] + result_set[1][2:], "2.25.7772")
        site.deliver()
        assert destinations(site.store, site.config)[0].refused == set()
    finally:
        upgraded.stop()
        site.store.close()


def test_two_destinations_one_encoding(result_set, pacs_of, tmp_path: Path) -> None:
    full, old = pacs_of("FULL"), pacs_of("OLD", without={COMPREHENSIVE_3D_SR, SEGMENTATION})
    site = Site(tmp_path, [full, old])
    site.finish(result_set[1])
    site.deliver()
    assert site.shown["state"] == "delivered"
    reports = {
        one.ae_title: [i.sop_class_uid for i in one.filed() if ".88." in i.sop_class_uid]
        for one in (full, old)
    }
    assert reports == {"FULL": [COMPREHENSIVE_3D_SR], "OLD": [COMPREHENSIVE_SR]}
    shared = [
        {i.sop_instance_uid for i in one.filed() if i.sop_class_uid == SC} for one in (full, old)
    ]
    assert shared[0] == shared[1]
    assert {one["peer"] for one in site.shown["left_out"]} == {"old"}
    site.store.close()


def test_a_destination_that_takes_nothing_shows_as_failed(result_set, tmp_path: Path) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs", sop_classes=[MR]) as pacs:
        site = Site(tmp_path, [pacs])
        site.finish(result_set[1])
        site.deliver()
        assert (site.shown["state"], site.shown["reason"]) == ("failed", "delivery_failed")
        assert "does not take" in site.shown["message"]
        site.store.close()


def test_a_status_that_refuses_the_class_counts_like_the_association(
    result_set, pacs_of, tmp_path: Path
) -> None:
    pacs = pacs_of("PACS")
    pacs.answer_with([0x0122] * 9, SEGMENTATION)
    site = Site(tmp_path, [pacs])
    site.finish(result_set[1])
    site.deliver()
    assert site.shown["state"] == "delivered"
    assert {item.sop_class_uid for item in pacs.filed()} == {SC, PR, COMPREHENSIVE_3D_SR}
    check_no_reference_dangles(pacs, result_set[0])
    site.store.close()


def test_an_archive_that_accepts_all_and_stores_little_is_asked_once_for_each_class(
    result_set, pacs_of, tmp_path: Path
) -> None:
    """What it said to the association must not undo what it said to the object."""
    pacs = pacs_of("PACS")
    for sop_class in (SEGMENTATION, COMPREHENSIVE_3D_SR):
        pacs.answer_with([0x0122] * 9, sop_class)
    site = Site(tmp_path, [pacs])
    site.finish(result_set[1])
    site.deliver()
    assert site.shown["state"] == "delivered"
    assert {item.sop_class_uid for item in pacs.filed()} == {SC, PR, COMPREHENSIVE_SR}
    check_no_reference_dangles(pacs, result_set[0])
    assert pacs.associations == 3
    assert destinations(site.store, site.config)[0].refused == {SEGMENTATION, COMPREHENSIVE_3D_SR}
    pacs.answer_with([], SEGMENTATION)
    site.clock.advance(REFUSAL_HOLDS_S)
    site.finish(result_set[1], "2.25.7772")
    site.deliver()
    assert SEGMENTATION not in destinations(site.store, site.config)[0].refused
    site.store.close()


def test_probe_asks_without_sending(pacs_of, tmp_path: Path) -> None:
    pacs = pacs_of("PACS", without={SEGMENTATION})
    site = Site(tmp_path, [pacs])
    answer = probe(site.config.peers[0], tuple(SOP_CLASSES), calling_ae="PROSTATE_AI")
    assert answer.refused == {SEGMENTATION}
    assert answer.accepted == set(SOP_CLASSES) - {SEGMENTATION}
    assert pacs.filed() == []
    assert address_of(site.config.peers[0]) == f"PACS@127.0.0.1:{pacs.port}"
    site.store.close()
