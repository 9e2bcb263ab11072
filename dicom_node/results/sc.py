"""Key images as Secondary Capture objects (PS3.3 A.8): RGB, one instance per page, one series.

Several plain images may share a series: viewers step through them. (SEG and SR stand alone in
theirs, because some viewers show only the last instance of such a series.) A page holds up to
three panels side by side, so it is not one slice: it carries no position of its own that a viewer
could take for every panel, but it refers to the slice that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_node.domain.profile import ResultKind
from dicom_node.results.header import SourceImages
from dicom_node.results.page import Page
from dicom_node.results.panels import orientation_letters
from dicom_node.results.request import Analysed, ResultRequest
from dicom_node.results.seg import keep_lossy
from dicom_node.results.series import describe, instance_role, series_role
from dicom_node.results.uids import Draft

KIND = ResultKind.KEY_IMAGES


def draft_key_images(
    pages: Sequence[Page], request: ResultRequest, sources: SourceImages
) -> list[Draft]:
    """Secondary Capture objects of rendered pages, with placeholder UIDs."""
    return [_draft(number, page, request, sources) for number, page in enumerate(pages, start=1)]


def _draft(number: int, page: Page, request: ResultRequest, sources: SourceImages) -> Draft:
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    describe(dataset, KIND, request, number)
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.BodyPartExamined = "PROSTATE"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.LossyImageCompression = "00"
    dataset.DerivationDescription = "Page rendered from the source images and the AI result"
    dataset.PatientOrientation = None
    keep_lossy(dataset, sources)
    _refer_to_slice(dataset, page, request, sources)
    _set_pixels(dataset, page)
    return Draft(KIND, dataset, sources.verbatim, (instance_role(KIND, number), series_role(KIND)))


def _refer_to_slice(
    dataset: Dataset, page: Page, request: ResultRequest, sources: SourceImages
) -> None:
    if page.z is None or not isinstance(request.outcome, Analysed):
        return
    reference = sources.references[page.z]
    purpose = Dataset()
    purpose.CodeValue = "121322"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
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
