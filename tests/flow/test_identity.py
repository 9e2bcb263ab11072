"""Identity and revisions: the same again, other content, late images, many at once, two patients.

The numbers stand for faults: R13 the same instance again, R14 the same UID with other bytes, R15
late images, R16 studies interleaved, R17 names in any character set, R18 two patients in one study.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.dicom.header import InstanceHeader
from dicom_node.dicom.select import select
from dicom_node.flow.promote import _chosen
from dicom_node.flow.spool import read_dataset, spool_files, verify
from dicom_node.store.rows import Claim, Destination, ResultRow, StaleClaim
from tests.flow.conftest import ADC, MR, STUDY, T2W, Node, encoded, mr_image, series
from tests.results.character_sets import CHARACTER_SETS

PACS = [Destination("pacs", ("sr", "seg-lesions"))]


def complete(study: str = STUDY, **changes: object) -> list[Dataset]:
    return series(T2W, study=study, **changes) + series(ADC, study=study, **changes)


def wait(node: Node, seconds: float = 11) -> None:
    node.clock.advance(seconds)
    node.evaluate()


def claimed(node: Node) -> Claim:
    claim = node.store.claim_ready("worker-0")
    assert claim is not None
    return claim


def finish(node: Node, claim: Claim) -> None:
    made = ResultRow("sr", "1.2", f"9.{claim.number}", "9", "results/x/sr.dcm", "f" * 64, 10)
    node.store.finish_analysed(claim, [made], PACS)


def deliver(node: Node) -> list[str]:
    """Send what is due; UIDs of what was sent."""
    claims = node.store.claim_deliveries("pacs", "d")
    for one in claims:
        node.store.delivery_sent(one)
    return [one.result.sop_instance_uid for one in claims]


def planned_key(node: Node, claim: Claim) -> str:
    """The key of the inputs that a claim works on."""
    rows = node.store.headers_of(claim.study_uid, through=claim.through)
    selection = select([InstanceHeader.from_json(row.header_json) for row in rows])
    return _chosen(selection, rows).input_key


# R13


def test_R13_a_study_sent_five_times_at_once_is_one_study_and_one_result(node: Node) -> None:
    copies = [image for n in range(5) for image in random.Random(n).sample(complete(), 40)]
    for _ in range(2):  # before and after its result
        with ThreadPoolExecutor(5) as pool:
            assert {answer.status for answer in pool.map(node.receive, copies)} == {0}
        node.ingest.file_pending()
        wait(node)
        if node.state()[1] == "ready":
            finish(node, claimed(node))
            assert deliver(node) == ["9.1"]
    wait(node, 4000)
    assert node.state() == (1, "delivered", None)
    assert len(node.store.instances_of(STUDY)) == len(list(spool_files(node.data_dir))) == 40
    assert node.store.conflicts_of(STUDY) == []
    assert node.store.status()["held"]["copies_aside"] == 0


# R14

CONTRADICTIONS: dict[str, object] = {
    "ImagePositionPatient": [-50, -50, 999], "ImageOrientationPatient": [1, 0, 0, 0, 0, 1],
    "PixelSpacing": [2, 2], "EchoTime": "61", "FrameOfReferenceUID": "1.2.3", "Rows": 99,
    "BitsStored": 12, "RescaleSlope": "2", "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
    "SliceThickness": "4", "SeriesInstanceUID": "1.2.3.4", "MagneticFieldStrength": "3",
}  # fmt: skip
MORE_PIXELS = [pytest.param(f"pixel {n}", marks=pytest.mark.slow) for n in range(2, 12)]


@pytest.mark.parametrize("case", [*CONTRADICTIONS, "pixel 0", "pixel 1", *MORE_PIXELS])
def test_R14_other_content_under_one_uid_is_flagged_and_the_first_kept(
    node: Node, case: str
) -> None:
    dice = random.Random(case)
    images = complete()
    node.send_all(images)
    place = dice.randrange(len(images))
    first = encoded(images[place])
    if case in CONTRADICTIONS:
        setattr(images[place], case, CONTRADICTIONS[case])
    else:
        pixels = bytearray(images[place].PixelData)
        pixels[dice.randrange(len(pixels))] ^= 1 << dice.randrange(8)
        images[place].PixelData = bytes(pixels)
    assert node.send(images[place]).status == 0
    wait(node)
    assert node.state() == (1, "held", "same_uid_other_bytes")
    kept = node.store.find_instance(STUDY, images[place].SOPInstanceUID)
    assert kept is not None
    assert read_dataset(node.data_dir, kept) == first
    (aside,) = node.store.conflicts_of(STUDY)
    assert (node.data_dir / aside.path).read_bytes().endswith(encoded(images[place]))


def test_R14_another_name_on_one_image_is_kept_aside_and_told_from_other_content(
    node: Node,
) -> None:
    node.send_all(complete())
    node.clock.advance(1)
    node.send(mr_image(PatientName="Other^Name"))
    wait(node, 1)
    wait(node)
    assert [one.verdict for one in node.store.conflicts_of(STUDY)] == ["demographics"]
    assert "second_copy_demographics" in {one["event"] for one in node.store.timeline(STUDY)}
    assert node.state() == (1, "ready", None)


def test_R14_nothing_starts_or_is_sent_while_a_copy_waits_for_its_judgement(node: Node) -> None:
    other = mr_image(PixelData=b"\1\0" * 10_000)
    node.send_all(complete())
    wait(node)
    node.send(other)
    assert node.store.claim_ready("worker-0") is None
    wait(node)
    assert node.state() == (1, "held", "same_uid_other_bytes")


def test_R14_a_result_in_work_does_not_leave_before_the_copy_is_judged(node: Node) -> None:
    node.send_all(complete())
    wait(node)
    claim = claimed(node)
    node.send(mr_image(PixelData=b"\1\0" * 10_000))
    finish(node, claim)
    assert deliver(node) == []
    wait(node)
    assert node.state() == (1, "held", "same_uid_other_bytes")
    assert deliver(node) == []


def test_R14_a_copy_that_is_the_same_holds_up_nothing_for_long(node: Node) -> None:
    node.send_all(complete())
    wait(node)
    node.send(mr_image(), ImplicitVRLittleEndian)
    assert node.store.claim_ready("worker-0") is None
    wait(node, 1)
    finish(node, claimed(node))
    assert deliver(node) == ["9.1"]


# R15


def test_R15_late_slices_during_the_analysis_make_a_new_revision_and_the_old_never_leaves(
    node: Node,
) -> None:
    node.send_all(complete())
    wait(node)
    claim = claimed(node)
    before = claim.input_key
    node.send_all(series(T2W, slices=24)[20:])
    wait(node)
    assert planned_key(node, claim) == before, "what runs keeps its inputs"
    finish(node, claim)
    assert deliver(node) == []
    again = claimed(node)
    assert (again.number, planned_key(node, again)) == (2, again.input_key)
    assert again.input_key != before
    finish(node, again)
    assert deliver(node) == ["9.2"]
    states = {row["revision"]: row["state"] for row in node.store.studies_show(STUDY)}
    assert states == {1: "superseded", 2: "delivered"}


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 8))]
)
def test_R15_no_result_is_built_from_a_mix_whenever_images_come(node: Node, seed: int) -> None:
    dice = random.Random(seed)
    left = [*complete(), *series("sag"), *series(T2W, slices=26)[20:]]
    dice.shuffle(left)
    running: list[Claim] = []
    sent: dict[str, str] = {}
    for _ in range(200):
        if left:
            node.send_all([left.pop() for _ in range(min(len(left), dice.randrange(1, 30)))])
        wait(node, dice.choice([1, 11, 11, 40, 1900]))
        claim = node.store.claim_ready("worker-0")
        if claim is not None:
            running.append(claim)
        for one in [one for one in running if dice.random() < 0.5]:
            running.remove(one)
            assert planned_key(node, one) == one.input_key
            finish(node, one)
            sent |= dict.fromkeys(deliver(node), one.input_key)
        if not left and not running and node.state()[1] == "delivered":
            break
    last = node.store.studies_show(STUDY)[0]
    assert last["state"] == "delivered"
    everything = select(
        [InstanceHeader.from_json(row.header_json) for row in node.store.headers_of(STUDY)]
    )
    rows = node.store.headers_of(STUDY)
    assert sent[f"9.{last['revision']}"] == _chosen(everything, rows).input_key


# R16


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(20), marks=pytest.mark.slow)])
def test_R16_studies_that_come_interleaved_are_told_apart_by_uid_alone(
    node: Node, seeds: range
) -> None:
    keys = set()
    for seed in seeds:
        studies = [f"1.2.840.{seed + 1}.{number}" for number in range(10)]
        images = [
            image
            for number, study in enumerate(studies)
            for image in complete(study, PatientID=f"P{number}")
        ]
        random.Random(seed).shuffle(images)
        for place, image in enumerate(images):
            assert node.receive(image).status == 0
            if place % 100 == 99:
                node.ingest.file_pending()
        wait(node)
        claims = {claim.study_uid: claim for claim in (claimed(node) for _ in studies)}
        assert sorted(claims) == sorted(studies)
        for number, study in enumerate(studies):
            rows = node.store.headers_of(study)
            assert len(rows) == 40
            assert {row.identity.patient_id for row in rows} == {f"P{number}"}
            used = select([InstanceHeader.from_json(row.header_json) for row in rows])
            keys.add(tuple(uid.removeprefix(study) for uid in used.instances_used()))
            finish(node, claims[study])
    assert len(keys) == 1, "the order of arrival decides nothing"


# R17


@cache
def encoded_study() -> list[tuple[str, bytes]]:
    return [(image.SOPInstanceUID, encoded(image)) for image in complete()]


def with_value(data: bytes, head: bytes, value: bytes) -> bytes:
    """Put another value into an element; ``head``: its tag and VR."""
    at = data.index(head) + len(head)
    rest = at + 2 + int.from_bytes(data[at : at + 2], "little")
    return data[:at] + len(value).to_bytes(2, "little") + value + data[rest:]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, on what the corpus gets wrong
@pytest.mark.parametrize("name", sorted(CHARACTER_SETS))
def test_R17_names_are_stored_as_received_whatever_their_character_set(
    node: Node, name: str
) -> None:
    charset, patient = (value + b" " * (len(value) % 2) for value in CHARACTER_SETS[name])
    for uid, usual in encoded_study():
        declared = with_value(usual, b"\x08\x00\x05\x00CS", charset)
        data = with_value(declared, b"\x10\x00\x10\x00PN", patient or b"  ")
        answer = node.ingest.accept(
            dataset_bytes=data, transfer_syntax_uid=ExplicitVRLittleEndian, sop_class_uid=MR,
            sop_instance_uid=uid,
        )  # fmt: skip
        assert answer.status == 0
    node.ingest.file_pending()
    wait(node)
    assert node.state() == (1, "ready", None)
    last = node.store.instances_of(STUDY)[-1]
    assert read_dataset(node.data_dir, last) == data
    assert patient in data and charset in data


# R18

OTHER_PATIENT: dict[str, dict[str, object]] = {
    "patient id": {"PatientID": "P2"}, "no patient id": {"PatientID": ""},
    "birth date": {"PatientBirthDate": "19500102"},
    "issuer": {"IssuerOfPatientID": "OTHER HOSPITAL"},
}  # fmt: skip


def at_receiving(node: Node, images: list[Dataset]) -> Claim | None:
    return None


def at_ready(node: Node, images: list[Dataset]) -> Claim | None:
    wait(node)
    assert node.state()[1] == "ready"
    return None


def at_running(node: Node, images: list[Dataset]) -> Claim | None:
    wait(node)
    return claimed(node)


def at_analysed(node: Node, images: list[Dataset]) -> Claim | None:
    wait(node)
    finish(node, claimed(node))
    assert node.state()[1] == "analysed"
    return None


@pytest.mark.parametrize("stage", [at_receiving, at_ready, at_running, at_analysed])
@pytest.mark.parametrize("what", sorted(OTHER_PATIENT))
def test_R18_G4_one_image_of_another_patient_holds_the_study(
    node: Node, what: str, stage: Callable[[Node, list[Dataset]], Claim | None]
) -> None:
    changes = OTHER_PATIENT[what]
    node.send_all(complete(IssuerOfPatientID="THIS HOSPITAL"))
    claim = stage(node, [])
    late = mr_image("sag", IssuerOfPatientID="THIS HOSPITAL")
    for name, value in changes.items():
        setattr(late, name, value)
    node.send(late)
    assert node.state() == (1, "held", "identity_conflict")
    if claim is not None:
        with pytest.raises(StaleClaim):
            finish(node, claim)
    assert deliver(node) == []
    wait(node, 4000)
    assert node.state() == (1, "held", "identity_conflict")
    assert node.store.claim_ready("worker-0") is None


@pytest.mark.parametrize("place", range(0, 40, 3))
def test_R18_G4_wherever_the_other_patient_stands_in_the_order(node: Node, place: int) -> None:
    images = complete()
    images[place].PatientID = "P2"
    node.send_all(images)
    wait(node, 4000)
    assert node.state() == (1, "held", "identity_conflict")
    assert node.store.claim_ready("worker-0") is None


def test_R18_G4_a_whole_series_of_another_patient_holds_the_study(node: Node) -> None:
    node.send_all(series(T2W) + series(ADC, PatientID="P2"))
    wait(node, 4000)
    assert node.state() == (1, "held", "identity_conflict")


def test_R18_G4_an_image_of_another_patient_after_the_result_is_held_for_a_person(
    node: Node,
) -> None:
    node.send_all(complete())
    wait(node)
    finish(node, claimed(node))
    deliver(node)
    assert node.state() == (1, "delivered", None)
    node.send(mr_image("sag", PatientID="P2"))
    assert node.state() == (2, "held", "identity_conflict")
    for row in node.store.instances_of(STUDY):
        verify(node.data_dir, row)
