"""Why a study has no result: one table, machine-readable code to plain words.

``send_report``: the PACS gets a report "not analysed" that says so. Where it is False the study is
no business of the node, or sending anything would be unsafe; then the administrator is told.
``quality`` is the coded value of the SR quality finding (DCM 111052), from CID 6314-6318.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Machine-readable reason of a final state that is not a result."""

    NO_T2W = "no_t2w"
    NO_DIFFUSION = "no_diffusion"
    T2W_INCOMPLETE = "t2w_incomplete"
    DIFFUSION_INCOMPLETE = "diffusion_incomplete"
    B_VALUES_UNKNOWN = "b_values_unknown"
    GEOMETRY_UNREADABLE = "geometry_unreadable"
    FRAME_OF_REFERENCE_DIFFERS = "frame_of_reference_differs"
    NO_PIXEL_DATA = "no_pixel_data"
    CORRUPT_PIXEL_DATA = "corrupt_pixel_data"
    NOT_MR = "not_mr"
    NOT_PROSTATE = "not_prostate"
    IDENTITY_CONFLICT = "identity_conflict"
    SAME_UID_OTHER_BYTES = "same_uid_other_bytes"
    HASH_MISMATCH = "hash_mismatch"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    TIMEOUT = "timeout"
    OUTPUT_GATE = "output_gate"
    NO_DESTINATION = "no_destination"
    DELIVERY_FAILED = "delivery_failed"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True)
class Code:
    """A coded entry: value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class ReasonText:
    """Plain words for people, and what follows from the reason."""

    message: str
    advice: str
    send_report: bool
    quality: Code | None = None


_INCOMPLETE_STUDY = Code("130574", "DCM", "Incomplete study")
_COVERAGE = Code("130576", "DCM", "Anatomy coverage incomplete")
_NO_B_VALUE = Code("130583", "DCM", "Expected b-value is missing")
_NO_ADC = Code("130585", "DCM", "Expected ADC map is missing")

NO_GLAND = "No prostate was recognised on the T2-weighted images."
"""Detail of ``not_prostate`` where the images, not the header, say so."""

REASONS: dict[Reason, ReasonText] = {
    Reason.NO_T2W: ReasonText(
        "The study has no axial T2-weighted series that covers the prostate.",
        "Send the axial T2W series; the study is then analysed on its own.",
        True,
        _INCOMPLETE_STUDY,
    ),
    Reason.NO_DIFFUSION: ReasonText(
        "The study has no diffusion imaging (no ADC map and no DWI with two or more b-values).",
        "Send the ADC map or the DWI series; T2W alone cannot be analysed.",
        True,
        _NO_ADC,
    ),
    Reason.T2W_INCOMPLETE: ReasonText(
        "The axial T2-weighted series has missing slices or an uneven slice spacing.",
        "Send the series again from the scanner or the PACS.",
        True,
        _COVERAGE,
    ),
    Reason.DIFFUSION_INCOMPLETE: ReasonText(
        "The diffusion series has missing slices or an uneven slice spacing.",
        "Send the series again from the scanner or the PACS.",
        True,
        _COVERAGE,
    ),
    Reason.B_VALUES_UNKNOWN: ReasonText(
        "The diffusion series gives no readable b-values and there is no ADC map.",
        "Send the ADC map, or the DWI as it left the scanner (private elements kept).",
        True,
        _NO_B_VALUE,
    ),
    Reason.GEOMETRY_UNREADABLE: ReasonText(
        "Position or orientation of the images is missing or contradicts itself.",
        "Send the images as they left the scanner; converted images often lose their geometry.",
        True,
        _INCOMPLETE_STUDY,
    ),
    Reason.FRAME_OF_REFERENCE_DIFFERS: ReasonText(
        "T2W and diffusion do not share a frame of reference and do not overlap in space.",
        "The patient was repositioned between the series; read this study without the node.",
        True,
        _COVERAGE,
    ),
    Reason.NO_PIXEL_DATA: ReasonText(
        "A needed series holds images without pixel data.",
        "Send the images again with their pixel data.",
        True,
        _INCOMPLETE_STUDY,
    ),
    Reason.CORRUPT_PIXEL_DATA: ReasonText(
        "The pixel data of a needed series cannot be decoded.",
        "Send the images again; if it happens again, send them uncompressed.",
        True,
        _INCOMPLETE_STUDY,
    ),
    Reason.NOT_MR: ReasonText(
        "The study holds no MR images.",
        "Nothing was sent. Check the routing rule of the PACS.",
        False,
    ),
    Reason.NOT_PROSTATE: ReasonText(
        "The study is not a prostate examination: body part, patient sex or the images say so.",
        "Nothing was sent. Check the routing rule of the PACS.",
        False,
    ),
    Reason.IDENTITY_CONFLICT: ReasonText(
        "Images of one study disagree about the patient (Patient ID, issuer or birth date).",
        "Nothing was sent. Correct the study in the PACS and send it again.",
        False,
    ),
    Reason.SAME_UID_OTHER_BYTES: ReasonText(
        "An image came twice under one SOP Instance UID with different content.",
        "Nothing was sent. Find out which copy is right, then send the study again.",
        False,
    ),
    Reason.HASH_MISMATCH: ReasonText(
        "A stored image no longer equals what was received.",
        "Nothing was sent. Check the disk, then send the study again.",
        False,
    ),
    Reason.ATTEMPTS_EXHAUSTED: ReasonText(
        "The analysis failed repeatedly for a technical reason.",
        "Look at the log of the worker, then `dicom-node studies retry`.",
        True,
    ),
    Reason.TIMEOUT: ReasonText(
        "The analysis did not finish in the time allowed.",
        "Look at the log of the worker, then `dicom-node studies retry`.",
        True,
    ),
    Reason.OUTPUT_GATE: ReasonText(
        "A result object did not pass the checks before sending.",
        "Nothing was sent. Report this with the log of the worker.",
        False,
    ),
    Reason.NO_DESTINATION: ReasonText(
        "The study was analysed but no peer receives results.",
        "Add one (`dicom-node peers add ... --receives-results`), then `dicom-node studies retry`.",
        False,
    ),
    Reason.DELIVERY_FAILED: ReasonText(
        "At least one result object could not be delivered.",
        "See the deliveries of the study, mend the destination, then `dicom-node studies retry`.",
        False,
    ),
    Reason.INTERNAL_ERROR: ReasonText(
        "The analysis failed for a technical reason.",
        "Look at the log of the worker, then `dicom-node studies retry`.",
        True,
    ),
}
