"""Whether a study is the node's business, and whether its images agree on the patient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dicom_node.dicom.header import ENHANCED_MR, LEGACY_ENHANCED_MR, MR_IMAGE
from dicom_node.dicom.records import InstanceHeader
from dicom_node.domain.reasons import Reason

MR_CLASSES = frozenset((MR_IMAGE, ENHANCED_MR, LEGACY_ENHANCED_MR))

_OWN = ("PROSTAT", "PELVI", "ABDOM", "BECKEN", "BLADDER", "SEMINAL", "GENITO")
# Body Part Examined (PS3.16 annex L) and what scanners write in its place, by first letters
_FOREIGN = re.compile(
    "HEAD|BRAIN|SKULL|NECK|[CTLS]SPINE|SPINE|LUMBAR|THORA|CERVIC|SACRUM|ORBIT|EYE|EAR|IAC|NOSE"
    "|JAW|TMJ|PITUITARY|FACE|MAXILLA|TONGUE|LARYNX|THYROID|CAROTID|AORTA|HEART|CARDIAC|CHEST"
    "|LUNG|BREAST|STERNUM|CLAVICLE|SCAPULA|SHOULDER|ARM|HUMERUS|ELBOW|RADIUS|ULNA|WRIST|HAND"
    "|FINGER|HIP|LEG|THIGH|FEMUR|KNEE|CALF|TIBIA|ANKLE|FOOT|TOE|EXTREMITY|LIVER|KIDNEY|PANCREAS"
    "|SPLEEN|COLON|ESOPHAGUS|UTERUS|OVARY|VAGINA|FETUS"
)
_PROSTATE_TEXT = re.compile(r"prosta", re.IGNORECASE)


def business_problem(headers: Sequence[InstanceHeader]) -> Reason | None:
    """Return NOT_MR or NOT_PROSTATE where the study is no business of the node, else None."""
    images = [h for h in headers if h.sop_class_uid in MR_CLASSES and h.modality in ("MR", "")]
    if not images:
        return Reason.NOT_MR
    if any(h.patient_sex.upper() == "F" for h in images):
        return Reason.NOT_PROSTATE
    parts = Counter(_part(h.body_part) for h in images)
    if parts["foreign"] <= len(images) / 2 or parts["own"]:
        return None
    # the body part is often left at a default of the protocol; a name that says prostate wins
    texts = (
        h.study_description + " " + h.series_description + " " + h.protocol_name for h in images
    )
    return None if any(map(_PROSTATE_TEXT.search, texts)) else Reason.NOT_PROSTATE


def _part(body_part: str) -> str:
    word = body_part.upper().strip()
    if word.startswith(_OWN):
        return "own"
    return "foreign" if _FOREIGN.match(word) else "unknown"


def identity_differences(headers: Sequence[InstanceHeader]) -> tuple[list[str], list[str]]:
    """Return what disagrees about the patient (conflicts), and what is only worth a note.

    Patient ID must be equal everywhere; issuer and birth date where both are given. A name alone
    may be spelt in two ways.
    """
    conflicts = []
    if len({h.patient_id for h in headers}) > 1:
        conflicts.append("Patient ID")
    if len({h.issuer for h in headers} - {""}) > 1:
        conflicts.append("Issuer of Patient ID")
    if len({h.birth_date for h in headers} - {""}) > 1:
        conflicts.append("Patient's Birth Date")
    names = {h.patient_name.upper().rstrip("^ ") for h in headers} - {""}
    notes = ["Patient's Name differs between images"] if len(names) > 1 else []
    return conflicts, notes
