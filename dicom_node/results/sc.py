"""Key images as Secondary Capture objects (PS3.3 A.8): RGB, one instance per page, one series.

Several plain images may share a series: viewers step through them. (SEG and SR stand alone in
theirs, because some viewers show only the last instance of such a series.) A page holds up to
three panels side by side, so it is not one slice: it carries no position of its own that a viewer
could take for every panel, but it refers to the slice that it shows.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.results import text
from dicom_node.results.equipment import MANUFACTURER, MODEL_NAME
from dicom_node.results.header import SourceImages
from dicom_node.results.key_image import Page, orientation_letters, render_pages
from dicom_node.results.request import Analysed, ResultRequest
from dicom_node.results.uids import Draft, placeholder

KIND = "key-images"
_SERIES_NUMBER = 9107
_SERIES = f"{KIND}/series"


def draft_key_images(request: ResultRequest, sources: SourceImages) -> list[Draft]:
    """Secondary Capture objects of the pages of a request, with placeholder UIDs."""
    pages = render_pages(request.outcome, _slice_names(request))
    return [_draft(number, page, request, sources) for number, page in enumerate(pages, start=1)]


def _draft(number: int, page: Page, request: ResultRequest, sources: SourceImages) -> Draft:
    role = f"{KIND}/instance/{number}"
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = placeholder(role)
    dataset.SeriesInstanceUID = placeholder(_SERIES)
    dataset.SeriesNumber = _SERIES_NUMBER
    dataset.InstanceNumber = number
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.SeriesDescription = text.series_description(_words(request), request)
    dataset.BodyPartExamined = "PROSTATE"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.LossyImageCompression = "00"
    dataset.DerivationDescription = "Page rendered from the source images and the AI result"
    dataset.PatientOrientation = None
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = request.installation_id
    dataset.SoftwareVersions = request.software_version
    _refer_to_slice(dataset, page, request, sources)
    _set_pixels(dataset, page)
    return Draft(KIND, dataset, sources.verbatim, (role, _SERIES))


def _slice_names(request: ResultRequest) -> list[str]:
    """Return what a viewer calls the slices."""
    if request.frames is not None:
        return [f"frame {number}" for number in request.frames]
    numbers = [image.get("InstanceNumber") for image in request.sources]
    return [f"image {number}" if number is not None else "" for number in numbers]


def _words(request: ResultRequest) -> str:
    analysed = isinstance(request.outcome, Analysed)
    return "AI key images" if analysed else "AI key images - NOT ANALYSED"


def _refer_to_slice(
    dataset: Dataset, page: Page, request: ResultRequest, sources: SourceImages
) -> None:
    if page.z is None or not isinstance(request.outcome, Analysed):
        return
    reference = sources.references[page.z]
    purpose = Dataset()
    purpose.CodeValue = "121322"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Source of image processing operation"
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reference.frame_number is not None:
        item.ReferencedFrameNumber = reference.frame_number
    item.PurposeOfReferenceCodeSequence = [purpose]
    dataset.SourceImageSequence = [item]
    _, right, _, bottom = orientation_letters(request.outcome.images.t2w)
    dataset.PatientOrientation = [right, bottom]


def _set_pixels(dataset: Dataset, page: Page) -> None:
    rows, columns, samples = page.pixels.shape
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    dataset.add_new("PixelData", "OB", page.pixels.tobytes())
