"""The report for people, as an Encapsulated PDF (PS3.3 A.45.1): the pages, and the words.

Who the patient is stands in the header of the object, byte for byte as in the images; on the pages
it could only be drawn with fonts that not every character set has.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage
from reportlab import rl_config
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase.pdfmetrics import registerFont, stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from dicom_node.domain.profile import ResultKind
from dicom_node.results import text
from dicom_node.results.equipment import MODEL_NAME
from dicom_node.results.header import SourceImages
from dicom_node.results.page import Page
from dicom_node.results.remarks import analysed_remarks, common_remarks, not_analysed_words
from dicom_node.results.request import Analysed, ResultRequest
from dicom_node.results.series import describe, instance_role, series_role
from dicom_node.results.uids import Draft

KIND = ResultKind.PDF
_PLAIN, _BOLD = "Vera", "VeraBd"  # come with reportlab; embedded, so that lines end where they do
rl_config.useA85 = 0  # streams as bytes: the document is a binary element anyway
_TITLE = "AI prostate MRI report"
_MARGIN_PT, _LINE_PT, _FONT_PT = 40.0, 11.5, 8.0
_FOOT = "AI - research use only - not for primary diagnosis - machine-made, unverified"


def draft_pdf(pages: Sequence[Page], request: ResultRequest, sources: SourceImages) -> Draft:
    """Return the report as a document: summary, key images, and every remark."""
    dataset = Dataset()
    dataset.SOPClassUID = EncapsulatedPDFStorage
    describe(dataset, KIND, request)
    dataset.Modality = "DOC"
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = None
    dataset.BurnedInAnnotation = "NO"
    dataset.DocumentTitle = _title(request)
    dataset.ConceptNameCodeSequence = []
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.SourceInstanceSequence = [
        _reference(image) for image in (*sources.templates, *sources.others)
    ]  # PS3.3 C.24.2: required of a document that was derived from instances
    document = render_pdf(pages, request)
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.add_new("EncapsulatedDocument", "OB", document + b"\0" * (len(document) % 2))
    return Draft(KIND, dataset, sources.verbatim, (instance_role(KIND), series_role(KIND)))


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item


def _title(request: ResultRequest) -> str:
    return _TITLE if isinstance(request.outcome, Analysed) else f"{_TITLE} - NOT ANALYSED"


def render_pdf(pages: Sequence[Page], request: ResultRequest) -> bytes:
    """Return the PDF file. The same pages and request give the same bytes."""
    for name in (_PLAIN, _BOLD):
        registerFont(TTFont(name, f"{name}.ttf"))
    buffer = io.BytesIO()
    # invariant: no time, no random document id
    canvas = Canvas(buffer, pagesize=A4, invariant=1, initialFontName=_PLAIN)  # type: ignore[arg-type] # the stub calls a name a number
    canvas.setTitle(_title(request))
    canvas.setAuthor(MODEL_NAME)
    canvas.setSubject(_FOOT)
    width = A4[0] - 2 * _MARGIN_PT
    y = _head(canvas, request)
    in_order = sorted(pages, key=lambda page: page.z is not None)  # the summary comes first
    for page in in_order:
        rows, columns, _ = page.pixels.shape
        height = width * rows / columns
        if y - height < 2 * _MARGIN_PT:
            y = _next_page(canvas)
        image = ImageReader(Image.fromarray(page.pixels))
        canvas.drawImage(image, _MARGIN_PT, y - height, width, height)
        y -= height + _LINE_PT
    _write_words(canvas, _words(request), y)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _head(canvas: Canvas, request: ResultRequest) -> float:
    top = float(A4[1]) - _MARGIN_PT
    canvas.setFont(_BOLD, 15)
    canvas.drawString(_MARGIN_PT, top - 4, _title(request))
    canvas.setFont(_PLAIN, _FONT_PT)
    _foot(canvas)
    line = f"Revision {request.revision}. The patient is named in the header of this document."
    canvas.drawString(_MARGIN_PT, top - 20, line)
    return top - 34


def _foot(canvas: Canvas) -> None:
    canvas.setFont(_PLAIN, 7)
    canvas.drawString(_MARGIN_PT, _MARGIN_PT / 2, _FOOT)
    canvas.drawRightString(A4[0] - _MARGIN_PT, _MARGIN_PT / 2, f"page {canvas.getPageNumber()}")
    canvas.setFont(_PLAIN, _FONT_PT)


def _next_page(canvas: Canvas) -> float:
    canvas.showPage()
    _foot(canvas)
    return float(A4[1]) - _MARGIN_PT


def _words(request: ResultRequest) -> list[str]:
    outcome = request.outcome
    if not isinstance(outcome, Analysed):
        return [not_analysed_words(outcome), *common_remarks(request)]
    found = [
        f"Finding {finding.rank}: {text.site_words(finding)}; {text.finding_words(finding)}; "
        f"{text.index_words(finding, outcome.result.release)}"
        for finding in outcome.result.findings
    ]
    return found + analysed_remarks(outcome.result, request)


def _write_words(canvas: Canvas, words: Sequence[str], y: float) -> None:
    width = A4[0] - 2 * _MARGIN_PT
    for line in words:
        for part in _wrapped(text.ascii_text(line), width):
            if y < 1.5 * _MARGIN_PT:
                y = _next_page(canvas)
            canvas.drawString(_MARGIN_PT, y, part)
            y -= _LINE_PT
        y -= 3


def _wrapped(line: str, width_pt: float) -> list[str]:
    lines = [""]
    for word in line.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and stringWidth(longer, _PLAIN, _FONT_PT) > width_pt:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
