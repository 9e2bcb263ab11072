"""From images to a plan: completion by content, late images, corrections, what is not ours."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.store.rows import Claim, ResultRow
from tests.flow.conftest import ADC, DCE, STUDY, T2W, Node, mr_image, series

SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
TEXT_CLASS = "1.2.840.10008.5.1.4.1.1.88.11"


def complete() -> list[Dataset]:
    return series(T2W) + series(ADC)


def run(node: Node, number: int = 1) -> Claim:
    claim = node.store.claim_ready("worker-0")
    assert claim is not None
    assert claim.number == number
    return claim


def deliver(node: Node, claim: Claim, uid: str = "9.1") -> None:
    from dicom_node.store.rows import Destination

    made = ResultRow("sr", SR_CLASS, uid, "9", "results/x/sr.dcm", "f" * 64, 10)
    node.store.finish_analysed(claim, [made], [Destination("pacs", ("sr",))])
    for one in node.store.claim_deliveries("pacs", "d"):
        node.store.delivery_sent(one)


def wait(node: Node, seconds: float) -> None:
    node.clock.advance(seconds)
    node.evaluate()


def test_a_complete_study_starts_after_the_quiet_time(node: Node) -> None:
    node.send_all(complete())
    wait(node, 5)
    assert node.state() == (1, "receiving", None)
    node.send(mr_image("sag"))
    wait(node, 6)
    assert node.state() == (1, "receiving", None)
    wait(node, 5)
    assert node.state() == (1, "ready", None)


def test_a_scanner_that_still_acquires_is_waited_for(node: Node) -> None:
    node.send_all(series(T2W))
    wait(node, 1500)
    assert node.state() == (1, "receiving", None)
    assert "diffusion" in node.store.studies_show(STUDY)[0]["message"]
    node.send_all(series(ADC)[:10])
    wait(node, 1500)
    node.send_all(series(ADC)[10:])
    wait(node, 10)
    assert node.state() == (1, "ready", None)


def test_G2_a_study_without_diffusion_ends_in_a_report(node: Node) -> None:
    node.send_all(series(T2W))
    wait(node, 1800)
    claim = run(node)
    assert (claim.kind, claim.state, claim.reason) == ("report", "not_analysable", "no_diffusion")
    assert "T2W alone cannot be analysed" in claim.message


def test_what_completes_a_study_after_not_analysed_is_analysed(node: Node) -> None:
    from dicom_node.domain.reasons import Reason
    from dicom_node.domain.states import RevisionState

    node.send_all(series(T2W))
    wait(node, 1800)
    node.store.finish_reported(
        run(node), RevisionState.NOT_ANALYSABLE, Reason.NO_DIFFUSION, "m", [], []
    )
    assert node.state() == (1, "not_analysable", "no_diffusion")
    node.send_all(series(ADC))
    wait(node, 10)
    assert node.state() == (2, "ready", None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"BodyPartExamined": "BRAIN", "StudyDescription": "MRI brain"}, "not_prostate"),
     ({"PatientSex": "F"}, "not_prostate")],
)  # fmt: skip
def test_a_foreign_study_ends_in_silence(node: Node, changes: dict[str, str], reason: str) -> None:
    node.send_all(series(T2W, **changes) + series(ADC, **changes))
    wait(node, 1800)
    assert node.state() == (1, "not_analysable", reason)
    assert node.store.claim_ready("worker-0") is None


def test_a_study_without_images_ends_as_not_mr(node: Node) -> None:
    node.send(mr_image(SOPClassUID=TEXT_CLASS, Modality="SR"))
    wait(node, 1800)
    assert node.state() == (1, "not_analysable", "not_mr")


def test_what_can_be_an_annotation_opens_no_study(node: Node) -> None:
    node.send(mr_image(SOPClassUID=SR_CLASS, Modality="SR"))
    wait(node, 1800)
    assert node.store.studies_list() == []
    (row,) = node.store.annotations_of(STUDY)
    assert (row.state, row.reason) == ("waiting", "no_images")


def test_a_late_image_that_changes_nothing_opens_no_revision(node: Node) -> None:
    node.send_all(complete())
    wait(node, 10)
    deliver(node, run(node))
    node.send(mr_image("sag"))
    wait(node, 4000)
    assert node.state() == (1, "delivered", None)


def test_a_late_series_makes_one_superseding_result(node: Node) -> None:
    node.send_all(complete())
    wait(node, 10)
    deliver(node, run(node))
    phases: list[Dataset] = []
    for phase in range(7):
        second = 15 * phase
        for image in series(DCE):
            image.SOPInstanceUID += f".{phase}"
            image.ScanningSequence = "GR"
            image.MRAcquisitionType = "3D"
            image.RepetitionTime, image.EchoTime, image.FlipAngle = "4", "1.5", "12"
            image.AcquisitionNumber = image.TemporalPositionIdentifier = phase + 1
            image.AcquisitionTime = f"10{20 + second // 60}{second % 60:02d}"
            image.ContentTime = image.AcquisitionTime
            image.ContrastBolusAgent = "Gd"
            phases.append(image)
    for phase in range(7):
        node.send_all(phases[20 * phase : 20 * phase + 20])
        wait(node, 300)
        assert node.state()[1] in ("receiving", "delivered")
    wait(node, 1800)
    assert node.state() == (2, "ready", None)
    claim = run(node, 2)
    assert [sent.kind for sent in claim.earlier].count("sr") == 1
    deliver(node, claim, "9.2")
    states = {row["revision"]: row["state"] for row in node.store.studies_show(STUDY)}
    assert states == {1: "superseded", 2: "delivered"}


def test_G4_an_image_of_another_patient_holds_the_study(node: Node) -> None:
    node.send_all(complete())
    node.send(mr_image("sag", PatientID="P2"))
    assert node.state() == (1, "held", "identity_conflict")
    wait(node, 4000)
    assert node.state() == (1, "held", "identity_conflict")
    node.store.retry(STUDY)
    node.evaluate()
    assert node.state() == (1, "held", "identity_conflict")  # nothing was corrected


def test_a_differing_name_alone_does_not_hold(node: Node) -> None:
    node.send_all(complete())
    node.send(mr_image("sag", PatientName="Other^Spelling"))
    wait(node, 10)
    assert node.state() == (1, "ready", None)


def test_changed_demographics_on_all_images_make_a_new_revision(node: Node) -> None:
    node.send_all(complete())
    wait(node, 10)
    deliver(node, run(node))
    corrected = [image for image in complete()]
    for image in corrected:
        image.PatientID, image.PatientName = "P1-NEW", "Right^Name"
    node.send_all(corrected[:25])
    wait(node, 100)
    assert node.state() == (1, "delivered", None)
    node.send_all(corrected[25:])
    wait(node, 1)
    wait(node, 1800)
    assert node.state() == (2, "ready", None)
    row = node.store.find_instance(STUDY, corrected[0].SOPInstanceUID)
    assert row is not None
    assert "P1-NEW" in row.header_json
    assert row.identity.patient_id == "P1-NEW"


def test_a_corrected_copy_of_all_images_releases_a_held_study(node: Node) -> None:
    node.send_all(complete())
    node.send(mr_image("sag", PatientID="P2"))
    assert node.state()[1] == "held"
    node.clock.advance(60)
    for image in complete():
        image.PatientID = "P2"
        assert node.send(image).status == 0
    node.send(mr_image("sag", PatientID="P2"))
    wait(node, 1)
    wait(node, 11)
    # the sagittal image came before the corrections and already shows the right patient
    assert node.state() == (1, "ready", None)


def test_one_study_that_cannot_be_evaluated_stops_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicom_node.flow import promote

    real = promote.select

    def select(headers: list[object]) -> object:
        if headers[0].study_uid == "1.2.9":  # type: ignore[attr-defined]
            raise ZeroDivisionError
        return real(headers)  # type: ignore[arg-type]

    monkeypatch.setattr(promote, "select", select)
    node.send(mr_image(study="1.2.9"))
    node.clock.advance(1)
    node.send_all(complete())
    wait(node, 10)
    assert node.state() == (1, "ready", None)
    assert node.state("1.2.9") == (1, "held", "internal_error")
