"""What result objects take from the source images: identity byte for byte, geometry cleaned.

highdicom stops on headers that are common in hospitals (character sets with an empty first value,
absent type 2 elements, PatientSex outside its terms, jitter in the orientation). So it is given
clean templates that hold geometry and references only; identity is copied around it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import DS, format_number_as_ds

from dicom_node.domain.reasons import Reason
from dicom_node.errors import InputProblem
from dicom_node.results.encode import (
    Verbatim,
    copied_element,
    encode_elements,
    raw_element,
    sequence_element,
)
from dicom_node.results.request import ResultRequest

# PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.1.3, C.7.2.3: written in every result object
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
TYPE_3 = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC",
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
    "PatientBirthTime", "OtherPatientIDs", "OtherPatientIDsSequence", "OtherPatientNames",
    "EthnicGroup", "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyInstanceUID", "StudyDescription", "IssuerOfAccessionNumberSequence",
    "ConsultingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy",
    "RequestingService", "ProcedureCodeSequence",
    "PatientAge", "PatientSize", "PatientWeight",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)  # fmt: skip
IDENTITY = TYPE_2 + TYPE_3

_IMAGE_IDENTITY = ("PositionReferenceIndicator",)
_SCANNER = (
    "Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName",
    "DeviceSerialNumber", "SoftwareVersions",
)  # fmt: skip
_REQUEST_TYPE_2 = (
    "AccessionNumber", "ReferencedStudySequence", "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID",
    "RequestedProcedureDescription", "RequestedProcedureCodeSequence",
)  # fmt: skip
_REQUEST_TYPE_3 = ("IssuerOfAccessionNumberSequence", "ReasonForTheRequestedProcedure")

_MAX_ORIENTATION_JITTER = 1e-3


@dataclass(frozen=True)
class FrameReference:
    """One slice of the source stack: an instance, and the frame in it where it has several."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The source images as the builders need them.

    ``templates`` go to highdicom: clean copies of the T2W headers (one, if multi-frame);
    ``references`` name the slices in stack order; ``others`` are clean copies of the rest;
    ``verbatim`` is the identity to be copied into every object.
    """

    base: Dataset
    templates: tuple[Dataset, ...]
    references: tuple[FrameReference, ...]
    others: tuple[Dataset, ...]
    verbatim: Verbatim

    @property
    def multi_frame(self) -> bool:
        """Whether the T2W stack is one multi-frame instance."""
        return bool(self.references) and self.references[0].frame_number is not None


@contextmanager
def tolerant() -> Iterator[None]:
    """Read what others wrote without a warning for each of their slips; the values are checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_sources(request: ResultRequest) -> SourceImages:
    """Identity, references and clean templates of a request's source images.

    Raises:
        InputProblem: there is no frame of reference, or the slices do not share an orientation.
        ValueError: the request names no image at all.
    """
    images = [*request.sources, *request.other_sources]
    if not images:
        raise ValueError("a result needs at least one source image: give sources or other_sources")
    base = images[0]
    with tolerant():
        return SourceImages(
            base=base,
            templates=_templates(request.sources),
            references=_references(request),
            others=tuple(_template(image) for image in request.other_sources),
            verbatim=_identity(base),
        )


def _references(request: ResultRequest) -> tuple[FrameReference, ...]:
    if request.frames is None:
        return tuple(
            FrameReference(str(s.SOPClassUID), str(s.SOPInstanceUID), None) for s in request.sources
        )
    if len(request.sources) != 1:
        raise ValueError("frame numbers are for one multi-frame source; give exactly one")
    only = request.sources[0]
    return tuple(
        FrameReference(str(only.SOPClassUID), str(only.SOPInstanceUID), n) for n in request.frames
    )


def _identity(base: Dataset) -> dict[BaseTag, RawDataElement]:
    found = {BaseTag(Tag(k)): copied_element(base, k) for k in IDENTITY}
    copies = {tag: element for tag, element in found.items() if element is not None}
    for keyword in TYPE_2:
        tag = BaseTag(Tag(keyword))
        copies.setdefault(tag, raw_element(tag, dictionary_VR(keyword), b""))
    return copies | dict([_scanner(base)])


def image_verbatim(sources: SourceImages) -> Verbatim:
    """Identity, and what only objects with a frame of reference take over."""
    found = [copied_element(sources.base, keyword) for keyword in _IMAGE_IDENTITY]
    return {**sources.verbatim, **{e.tag: e for e in found if e is not None}}


def _scanner(base: Dataset) -> tuple[BaseTag, RawDataElement]:
    """Return the scanner as contributing equipment; ours is the object's own (PS3.3 C.12.1)."""
    copies = {e.tag: e for k in _SCANNER if (e := copied_element(base, k)) is not None}
    manufacturer = BaseTag(Tag("Manufacturer"))
    copies.setdefault(manufacturer, raw_element(manufacturer, "LO", b""))
    purpose = Dataset()
    purpose.CodeValue = "109101"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Acquisition Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    tag = BaseTag(Tag("ContributingEquipmentSequence"))
    return tag, sequence_element(tag, [encode_elements(item, copies)])


def request_verbatim(sources: SourceImages) -> Verbatim:
    """Identity, and the order that a report answers (PS3.3 C.17.2, Referenced Request Sequence).

    Taken from the source's Request Attributes Sequence; left out where the source names no order.
    """
    with tolerant():
        base = sources.base
        orders = list(base.get("RequestAttributesSequence") or [])
        accession = copied_element(base, "AccessionNumber")
        if not orders and not (accession and accession.value and accession.value.strip()):
            return sources.verbatim
        tag = BaseTag(Tag("ReferencedRequestSequence"))
        items = [_request_item(order, base) for order in orders or [Dataset()]]
    return {**sources.verbatim, tag: sequence_element(tag, items)}


def _request_item(order: Dataset, base: Dataset) -> bytes:
    copies = {}
    for keyword in (*_REQUEST_TYPE_2, *_REQUEST_TYPE_3):
        of_study = (
            base if keyword in ("AccessionNumber", "IssuerOfAccessionNumberSequence") else None
        )
        element = copied_element(order, keyword)
        if (element is None or not element.value) and of_study is not None:
            element = copied_element(of_study, keyword)
        tag = BaseTag(Tag(keyword))
        if element is None and keyword in _REQUEST_TYPE_2:
            element = raw_element(tag, dictionary_VR(keyword), b"")
        if element is not None:
            copies[tag] = element
    study = BaseTag(Tag("StudyInstanceUID"))
    copies[study] = copied_element(base, "StudyInstanceUID") or raw_element(study, "UI", b"")
    return encode_elements(Dataset(), copies)


_NEUTRAL = {
    "PatientName": "Anonymous^", "PatientID": "", "PatientBirthDate": "", "PatientSex": "",
    "StudyDate": "", "StudyTime": "", "AccessionNumber": "", "ReferringPhysicianName": "",
    "StudyID": "",
}  # fmt: skip
_UIDS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID",
)  # fmt: skip
_NUMBERS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices",
)  # fmt: skip
_COUNTS = ("Rows", "Columns", "NumberOfFrames", "InstanceNumber")
_FUNCTIONAL_GROUPS = (
    "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
    "FrameContentSequence",
)  # fmt: skip


def _templates(sources: Sequence[Dataset]) -> tuple[Dataset, ...]:
    templates = tuple(_template(source) for source in sources)
    if not templates:
        return ()
    if not templates[0].get("FrameOfReferenceUID"):
        raise InputProblem(Reason.GEOMETRY_UNREADABLE, "The T2W has no frame of reference.")
    if "ImageOrientationPatient" in templates[0]:
        _snap_orientation(templates)
        _complete_thickness(templates)
    return templates


def _complete_thickness(templates: tuple[Dataset, ...]) -> None:
    """Take the distance of the slices for a thickness that is not given.

    A segmentation needs one (PS3.3 C.7.6.16.2.1), and readers stop where it is empty.
    """
    if len(templates) < 2 or all(template.get("SliceThickness") for template in templates):
        return
    first, second = (np.asarray(t.ImagePositionPatient, dtype=float) for t in templates[:2])
    distance = DS(format_number_as_ds(float(np.linalg.norm(second - first))))
    for template in templates:
        if not template.get("SliceThickness"):
            template.SliceThickness = distance


def _template(source: Dataset) -> Dataset:
    """Geometry and references of an image, nothing else, in values that every writer accepts."""
    template = Dataset()
    for keyword, value in _NEUTRAL.items():
        setattr(template, keyword, value)
    for keyword in _UIDS:
        if source.get(keyword):
            setattr(template, keyword, str(source.get(keyword)))
    template.Modality = str(source.get("Modality") or "MR")
    for keyword in _COUNTS:
        if source.get(keyword) is not None:
            setattr(template, keyword, int(source.get(keyword)))
    for keyword in _NUMBERS:
        value = source.get(keyword)
        if value is not None and value != "":
            setattr(template, keyword, _decimals(value))
    template.setdefault("SliceThickness", None)
    template.SamplesPerPixel = 1
    if source.get("ImageType"):
        template.ImageType = [str(part) for part in source.ImageType]
    _copy_functional_groups(source, template)
    return template


def _decimals(value: object) -> object:
    """Decimal strings as they were written; shortened only where they break the limit of 16."""
    if isinstance(value, str | int | float) or not hasattr(value, "__iter__"):
        return _decimal(value)
    return [_decimal(part) for part in value]


def _decimal(value: object) -> object:
    text = str(getattr(value, "original_string", value)).strip()
    return DS(text if len(text) <= 16 else format_number_as_ds(float(text)))


def _copy_functional_groups(source: Dataset, template: Dataset) -> None:
    """Copy the geometry of a multi-frame image (PS3.3 C.7.6.16)."""
    if "PerFrameFunctionalGroupsSequence" not in source:
        return
    template.SharedFunctionalGroupsSequence = DicomSequence(
        [_geometry_groups(item) for item in source.SharedFunctionalGroupsSequence]
    )
    template.PerFrameFunctionalGroupsSequence = DicomSequence(
        [_geometry_groups(item) for item in source.PerFrameFunctionalGroupsSequence]
    )
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        if keyword in source:
            setattr(template, keyword, deepcopy(source.get(keyword)))


def _geometry_groups(item: Dataset) -> Dataset:
    groups = Dataset()
    for keyword in _FUNCTIONAL_GROUPS:
        if keyword in item:
            setattr(groups, keyword, deepcopy(item.get(keyword)))
    return groups


def _snap_orientation(templates: tuple[Dataset, ...]) -> None:
    """Give all slices the orientation of the first where they differ by rounding only."""
    first = templates[0].ImageOrientationPatient
    reference = np.asarray(first, dtype=float)
    for template in templates[1:]:
        jitter = np.abs(np.asarray(template.ImageOrientationPatient, dtype=float) - reference)
        if jitter.max() >= _MAX_ORIENTATION_JITTER:
            raise InputProblem(
                Reason.GEOMETRY_UNREADABLE, "The T2W slices differ in their orientation."
            )
        template.ImageOrientationPatient = list(first)
