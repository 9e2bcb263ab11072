"""The series of result objects: fixed numbers and descriptions, by kind.

Every object stands alone in its series (key images share one): some viewers show only the last
instance of a SEG or SR series.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.domain.profile import ResultKind
from dicom_node.results import text
from dicom_node.results.equipment import MANUFACTURER, MODEL_NAME
from dicom_node.results.request import NotAnalysed, ResultRequest
from dicom_node.results.uids import placeholder


@dataclass(frozen=True)
class Series:
    """Series Number and Series Description of one kind of object."""

    number: int
    description: str


SERIES = {
    ResultKind.SEG_LESIONS: Series(9101, "AI lesions"),
    ResultKind.SEG_GLAND: Series(9102, "AI prostate gland"),
    ResultKind.SEG_ZONES: Series(9103, "AI prostate zones"),
    ResultKind.PARAMETRIC_MAP: Series(9105, "AI suspicion map"),
    ResultKind.SR: Series(9106, "AI prostate report"),
    ResultKind.KEY_IMAGES: Series(9107, "AI key images"),
    ResultKind.PRESENTATION_STATE: Series(9108, "AI presentation state"),
    ResultKind.KEY_OBJECT: Series(9109, "AI key objects"),
    ResultKind.PDF: Series(9110, "AI report (PDF)"),
    ResultKind.REJECTION_NOTE: Series(9111, "AI results replaced"),
}
"""Fixed, so that an archive can route and hide by them."""


def instance_role(kind: str, number: int = 1) -> str:
    """Role of an instance of this kind, for its placeholder UID."""
    return f"{kind}/instance/{number}"


def series_role(kind: str) -> str:
    """Role of the series of this kind."""
    return f"{kind}/series"


def series_description(kind: ResultKind, request: ResultRequest) -> str:
    """Return what a viewer lists: content, "not analysed", revision, caveat (LO, 64 characters)."""
    words = SERIES[kind].description
    if isinstance(request.outcome, NotAnalysed):
        words += " - NOT ANALYSED"
    return text.series_description(words, request)


def describe(
    dataset: Dataset, kind: ResultKind, request: ResultRequest, instance_number: int = 1
) -> None:
    """Set UIDs (placeholders), series and equipment of an object."""
    dataset.SOPInstanceUID = placeholder(instance_role(kind, instance_number))
    dataset.SeriesInstanceUID = placeholder(series_role(kind))
    dataset.SeriesNumber = SERIES[kind].number
    dataset.InstanceNumber = instance_number
    dataset.SeriesDescription = series_description(kind, request)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = request.installation_id
    dataset.SoftwareVersions = request.software_version
