"""Annotations in the node: stored, judged, listed, never lost, never a revision."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node.durable import ensure_dir
from dicom_node.flow.annotate import judge_annotations
from dicom_node.flow.outbox import results_folder
from dicom_node.flow.rebuild import rebuild
from dicom_node.store.rows import Destination, ResultRow
from dicom_node.store.store import Store
from tests.annotations.make import (
    SLICER,
    Drawn,
    Scene,
    Style,
    ball,
    copied,
    drawn,
    key_object,
    verified,
)
from tests.flow.conftest import ADC, STUDY, Node, mr_image, series

QUALITY = ("113001", "DCM", "Rejected for Quality Reasons")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def analysed(node: Node, scene: Scene) -> None:
    """Send the study, and finish it as the worker does, with the result of the scene."""
    node.send_all([*scene.slices, *series(ADC)])
    node.clock.advance(11)
    node.evaluate()
    claim = node.store.claim_ready("worker-0")
    assert claim is not None
    node.store.finish_analysed(claim, written(node, scene), [Destination("pacs", ("sr",))])
    for one in node.store.claim_deliveries("pacs", "d"):
        node.store.delivery_sent(one)


def written(node: Node, scene: Scene, number: int = 1) -> list[ResultRow]:
    folder = results_folder(STUDY, number)
    ensure_dir(node.data_dir / folder)
    rows = []
    for one in scene.sent:
        path = f"{folder}/{one.kind}-{one.sha256[:16]}.dcm"
        (node.data_dir / path).write_bytes(one.data)
        rows.append(
            ResultRow(
                str(one.kind), one.sop_class_uid, one.sop_instance_uid, one.series_uid, path,
                one.sha256, len(one.data), str(one.variant),
            )
        )  # fmt: skip
    return rows


def judged(node: Node) -> list[tuple[str, str, str | None]]:
    """Kind, state and reason of each annotation, after one look."""
    judge_annotations(node.store, node.data_dir)
    return [(str(a.kind), str(a.state), a.reason) for a in node.store.annotations_of(STUDY)]


def lesion(scene: Scene, rank: int = 1, style: Style = SLICER) -> Dataset:
    return drawn(scene, [Drawn(scene.lesion(rank), f"Lesion {rank}")], style)


def test_an_edited_segmentation_joins_the_annotated_set_and_moves_nothing(
    node: Node, scene: Scene
) -> None:
    analysed(node, scene)
    before = node.store.studies_list()
    waiting = node.store.studies_to_evaluate(node.clock.now_s() + 9000, 0)
    assert node.send(lesion(scene)).status == 0
    assert judged(node) == [("seg", "used", None)]
    (row,) = node.store.annotations_of(STUDY)
    assert (row.person, row.revision, row.made_at) == ("Reader^One", 1, "20260203101112")
    told = json.loads(row.detail_json)
    agreed = [(one["finding"], one["verdict"], one["dice"], one["hit"]) for one in told["findings"]]
    assert agreed == [(1, "accepted", 1.0, True), (2, "rejected", None, None)]
    assert told["regions"][0]["volume_ml"] == pytest.approx(scene.lesion(1).sum() * 0.003, abs=1e-3)
    after = node.store.studies_list()
    assert [(r["revision"], r["state"]) for r in after] == [
        (r["revision"], r["state"]) for r in before
    ]
    assert node.store.studies_to_evaluate(node.clock.now_s() + 9000, 0) == waiting
    assert judged(node) == [("seg", "used", None)], "judged once"
    assert node.send(lesion(scene)).status == 0


def test_own_objects_that_come_back_are_no_annotations(node: Node, scene: Scene) -> None:
    analysed(node, scene)
    for kind in ("seg-lesions", "seg-gland", "sr"):
        assert node.send(scene.object(kind)).status == 0
    assert judged(node) == []
    assert len(node.store.instances_of(STUDY)) == 40
    node.send(copied(scene.object("seg-lesions")))
    assert judged(node) == [("seg", "used", None)], "an edited copy keeps our manufacturer"


def test_a_second_copy_of_an_annotation_changes_nothing(node: Node, scene: Scene) -> None:
    analysed(node, scene)
    one = lesion(scene)
    for _ in range(3):
        assert node.send(one).status == 0
    assert judged(node) == [("seg", "used", None)]


def test_what_comes_before_the_study_waits_for_it(node: Node, scene: Scene) -> None:
    assert node.send(lesion(scene)).status == 0
    assert judged(node) == [("seg", "waiting", "no_images")]
    assert node.store.studies_list() == [], "an annotation opens no revision"
    node.clock.advance(3000)
    node.evaluate()
    assert node.store.studies_list() == []
    node.send_all(scene.slices)
    node.clock.advance(700)
    assert judged(node) == [("seg", "waiting", "analysis_open")]
    analysed(node, scene)
    assert node.state() == (1, "delivered", None)
    node.clock.advance(700)
    assert judged(node) == [("seg", "used", None)]


def test_waiting_is_bounded_and_survives_a_clock_set_back(node: Node, scene: Scene) -> None:
    node.send(lesion(scene))
    for _ in range(12):
        node.clock.advance(601)
        assert judge_annotations(node.store, node.data_dir) == 1
    assert judge_annotations(node.store, node.data_dir) == 0
    node.clock.step_wall(-86_400)
    assert judge_annotations(node.store, node.data_dir) == 1


def test_a_study_that_cannot_be_analysed_can_be_annotated(node: Node, scene: Scene) -> None:
    node.send_all(scene.slices)
    node.clock.advance(1801)
    node.evaluate()
    claim = node.store.claim_ready("worker-0")
    assert claim is not None
    from dicom_node.domain.reasons import Reason
    from dicom_node.domain.states import RevisionState

    node.store.finish_silent(claim, RevisionState.NOT_ANALYSABLE, Reason.NO_DIFFUSION, "none")
    node.send(lesion(scene))
    assert judged(node) == [("seg", "used", None)]
    (row,) = node.store.annotations_of(STUDY)
    told = json.loads(row.detail_json)
    assert [one["verdict"] for one in told["findings"]] == ["new"]
    assert row.revision is None
    analysed(node, scene)  # the diffusion images came after all
    assert judged(node) == [("seg", "used", None)]
    (row,) = node.store.annotations_of(STUDY)
    told = json.loads(row.detail_json)
    assert [one["verdict"] for one in told["findings"]] == ["accepted", "rejected"]
    assert row.revision == 2


def test_what_is_not_used_is_kept_and_says_why(node: Node, scene: Scene) -> None:
    analysed(node, scene)
    other_patient = lesion(scene)
    other_patient.PatientID = "P2"
    broken = lesion(scene)
    broken.PixelData = b"\0\0"
    elsewhere = lesion(scene)
    elsewhere.FrameOfReferenceUID = "1.2.3"
    machine = drawn(scene, [Drawn(scene.gland, "x", algorithm=("AUTOMATIC", "Other AI"))])
    for dataset in (other_patient, broken, elsewhere, machine):
        assert node.send(dataset).status == 0
    assert judged(node) == [
        ("seg", "unusable", "other_patient"), ("seg", "unusable", "unreadable"),
        ("seg", "unusable", "other_frame_of_reference"), ("seg", "no_annotation", "machine_made"),
    ]  # fmt: skip
    assert all(row.message for row in node.store.annotations_of(STUDY))
    assert len(node.store.instances_of(STUDY)) == 44
    assert node.state() == (1, "delivered", None)


def test_G4_an_annotation_of_another_patient_does_not_hold_the_study(
    node: Node, scene: Scene
) -> None:
    node.send_all(scene.slices)
    foreign = lesion(scene)
    foreign.PatientID = "P2"
    node.send(foreign)
    node.send_all(series(ADC))
    node.clock.advance(11)
    node.evaluate()
    assert node.state() == (1, "ready", None)


def test_a_file_that_changed_on_disk_is_not_used(node: Node, scene: Scene) -> None:
    analysed(node, scene)
    node.send(lesion(scene))
    (row,) = node.store.annotations_of(STUDY)
    path = node.data_dir / row.instance.path
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert judged(node) == [("seg", "unusable", "damaged")]


def test_what_kills_the_judge_is_set_aside(
    node: Node, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysed(node, scene)
    node.send(lesion(scene))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dicom_node.flow.annotate._judge", die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            judge_annotations(node.store, node.data_dir)
    assert judged(node) == [("seg", "unusable", "unreadable")]


def states(node: Node) -> list[str]:
    judge_annotations(node.store, node.data_dir)
    return [str(row.state) for row in node.store.annotations_of(STUDY)]


def at(dataset: Dataset, time: str, person: str = "Reader^One") -> Dataset:
    return copied(dataset, ContentTime=time, ContentCreatorName=person)


def test_a_later_annotation_of_one_person_supersedes_the_parts_it_covers(
    node: Node, scene: Scene
) -> None:
    analysed(node, scene)
    both = drawn(
        scene, [Drawn(scene.lesion(1), "Lesion 1"), Drawn(scene.gland, "Prostate")], SLICER
    )
    gland = drawn(scene, [Drawn(scene.gland, "Prostate")], SLICER)
    node.send(at(both, "100000"))
    node.send(at(lesion(scene), "110000"))
    assert states(node) == ["used", "used"], "the gland of the first one still counts"
    node.send(at(gland, "120000"))
    assert states(node) == ["used", "used", "used"], "no single one covers the first"
    node.send(at(both, "130000"))
    assert states(node) == ["superseded", "superseded", "superseded", "used"]
    node.send(at(lesion(scene), "090000", "Reader^Two"))
    assert states(node)[-2:] == ["used", "used"], "another person"
    node.send(at(lesion(scene), "080000"))
    assert states(node)[-1] == "superseded", "arrived late, made before"
    rows = node.store.annotations_of(STUDY)
    assert rows[0].superseded_by == rows[3].id


def test_an_annotation_counts_against_the_revision_it_names(node: Node, scene: Scene) -> None:
    analysed(node, scene)
    later = Scene(lesions=(((-14.0, 8.0, -10.5), 4.0),))
    for phase in range(7):
        for image in series("dce"):
            image.SOPInstanceUID += f".{phase}"
            image.AcquisitionNumber = phase + 1
            image.AcquisitionTime = f"10{12 + 15 * phase // 60:02d}{15 * phase % 60:02d}"
            node.send(image)
    node.clock.advance(1801)
    node.evaluate()
    claim = node.store.claim_ready("worker-0")
    assert claim is not None and claim.number == 2
    node.store.finish_analysed(claim, written(node, later, 2), [])
    first = scene.node.tracking_uids[1]
    tracked = Drawn(scene.lesion(1), "Lesion 1", tracking_uid=first)
    node.send(drawn(scene, [tracked]))
    node.send(drawn(scene, [Drawn(later.lesion(1), "area", style_lesion())]))
    assert states(node) == ["superseded", "used"]
    assert [row.revision for row in node.store.annotations_of(STUDY)] == [1, 2]


def style_lesion() -> tuple[str, str, str]:
    return ("52988006", "SCT", "Lesion")


def test_reports_and_key_objects_give_verdicts(node: Node, scene: Scene) -> None:
    analysed(node, scene)
    node.send(verified(scene.object("sr")))
    node.send(key_object(scene, QUALITY, ("seg-lesions",)))
    assert judged(node) == [("sr", "used", None), ("key-object", "used", None)]


def test_G1_a_rebuilt_database_judges_to_the_same(node: Node, scene: Scene, tmp_path: Path) -> None:
    from dicom_node.flow.outbox import write_manifests

    analysed(node, scene)
    node.send(lesion(scene))
    node.send(verified(scene.object("sr")))
    judged(node)
    before = node.store.annotations_of(STUDY)
    write_manifests(node.store, node.data_dir)
    fresh = Store(f"sqlite:///{tmp_path}/new.sqlite3", clock=node.clock, create=True, host="here")
    try:
        rebuild(fresh, node.data_dir)
        fresh_states = [row.state for row in fresh.annotations_of(STUDY)]
        assert set(fresh_states) == {"pending"}
        judge_annotations(fresh, node.data_dir)
        after = fresh.annotations_of(STUDY)
    finally:
        fresh.close()

    def told(rows: list) -> set[tuple[object, ...]]:  # type: ignore[type-arg]
        return {
            (row.instance.sop_instance_uid, row.state, row.person, row.revision, row.detail_json)
            for row in rows
        }

    assert told(after) == told(before)


def test_the_bytes_of_an_annotation_are_kept_as_received(node: Node, scene: Scene) -> None:
    from dicom_node.flow.spool import read_dataset
    from tests.flow.conftest import encoded

    analysed(node, scene)
    dataset = lesion(scene)
    node.send(dataset)
    (row,) = node.store.annotations_of(STUDY)
    assert read_dataset(node.data_dir, row.instance) == encoded(dataset)
    assert hashlib.sha256(encoded(dataset)).hexdigest() == row.instance.dataset_digest


def test_one_finding_missed_is_counted(node: Node, scene: Scene) -> None:
    analysed(node, scene)
    mask = ball(scene.geometry, (-14.0, 8.0, -10.5), 4.0)
    node.send(drawn(scene, [Drawn(mask, "tumour")]))
    judged(node)
    told = json.loads(node.store.annotations_of(STUDY)[0].detail_json)
    assert [one["verdict"] for one in told["findings"]] == ["not_drawn", "not_drawn", "missed"]


def test_mixed_instances_of_one_batch_open_the_revision_for_the_images(node: Node) -> None:
    seg = mr_image(
        index=30, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG",
        SOPInstanceUID=generate_uid(),
    )  # fmt: skip
    node.receive(seg)
    node.receive(mr_image())
    node.ingest.file_pending()
    assert node.state() == (1, "receiving", None)


def test_other_content_under_one_uid_is_set_aside_and_holds_nothing(
    node: Node, scene: Scene
) -> None:
    analysed(node, scene)
    first, second = lesion(scene), lesion(scene, rank=2)
    second.SOPInstanceUID = first.SOPInstanceUID
    node.send(first)
    assert judged(node) == [("seg", "used", None)]
    node.send(second)
    node.evaluate()
    assert judged(node) == [("seg", "unusable", "same_uid_other_bytes")]
    assert node.state() == (1, "delivered", None)
    assert [one.verdict for one in node.store.conflicts_of(STUDY)] == ["other"]


def test_annotations_of_one_batch_are_numbered_as_they_came(node: Node, scene: Scene) -> None:
    uids = ["1.2.9", "1.2.1", "1.2.5"]
    for uid in uids:
        one = lesion(scene)
        one.SOPInstanceUID = uid
        node.receive(one)
    node.ingest.file_pending()
    assert [row.instance.sop_instance_uid for row in node.store.annotations_of(STUDY)] == uids
