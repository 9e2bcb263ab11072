"""Key Object Selection documents (PS3.3 A.35.4): the slices of interest, and what was replaced."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import highdicom as hd
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import (
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from ai_core.types import CaseResult
from dicom_node.domain.profile import ResultKind
from dicom_node.results import codes
from dicom_node.results.contour import slice_of_largest_area
from dicom_node.results.equipment import MANUFACTURER, MODEL_NAME, device_observer_uid
from dicom_node.results.header import SourceImages, request_verbatim
from dicom_node.results.request import Analysed, ResultRequest
from dicom_node.results.series import describe, instance_role, series_role
from dicom_node.results.uids import Draft, placeholder, without_times

_IMAGES = frozenset({SegmentationStorage, SecondaryCaptureImageStorage, ParametricMapStorage})
_REJECTED_WORDS = "Replaced by a later revision of the AI result of this study."


def draft_key_object(outcome: Analysed, request: ResultRequest, sources: SourceImages) -> Draft:
    """Return a selection "Of Interest": the T2W slice of each finding, or of the gland.

    It names source images only; so it needs no other form where a destination refuses results.
    """
    slices = key_slices(outcome.result)
    chosen = [sources.templates[0 if sources.multi_frame else z] for z in slices]
    frames = [sources.references[z].frame_number for z in slices]
    words = "T2W slices of the AI findings. Research use only, machine-made, unverified."
    draft = _draft(
        ResultKind.KEY_OBJECT, (codes.OF_INTEREST, None, words), chosen, (request, sources)
    )
    named = [item for item in draft.dataset.ContentSequence if item.ValueType == "IMAGE"]
    for item, frame in zip(named, frames, strict=True):
        if frame is not None:
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = frame
    return draft


def key_slices(result: CaseResult) -> list[int]:
    """Slice of largest area of each finding, each once; of the gland where nothing was found."""
    masks = [result.lesions == finding.rank for finding in result.findings]
    slices = [slice_of_largest_area(mask) for mask in masks or [result.gland_mask > 0]]
    return list(dict.fromkeys(slices))


def draft_rejection(request: ResultRequest, sources: SourceImages) -> Draft | None:
    """Return a note that rejects what was sent of earlier revisions; None where nothing was.

    IHE IOCM: archives that honour it hide what is named. The modifier is needed with this title
    (TID 2010); none of CID 7011 says "superseded".
    """
    if not request.earlier:
        return None
    base = sources.templates[0]
    rejected = []
    for earlier in request.earlier:
        named = deepcopy(base)
        if earlier.sop_class_uid not in _IMAGES:  # told as COMPOSITE, not as IMAGE
            del named.Rows, named.Columns
        named.SOPClassUID = earlier.sop_class_uid
        named.SOPInstanceUID = earlier.sop_instance_uid
        named.SeriesInstanceUID = earlier.series_uid
        rejected.append(named)
    title = (codes.REJECTED_FOR_QUALITY, codes.OTHER_FAILURE, _REJECTED_WORDS)
    return _draft(ResultKind.REJECTION_NOTE, title, rejected, (request, sources))


def _draft(
    kind: ResultKind,
    title: tuple[Code, Code | None, str],
    objects: Sequence[Dataset],
    made_from: tuple[ResultRequest, SourceImages],
) -> Draft:
    request, sources = made_from
    document_title, modifier, words = title
    content = hd.ko.KeyObjectSelection(
        document_title=document_title,
        referenced_objects=objects,
        observer_device_context=sr.ObserverContext(
            sr.CodedConcept.from_code(codes.DEVICE),
            sr.DeviceObserverIdentifyingAttributes(
                uid=device_observer_uid(request.installation_id), name=MODEL_NAME,
                manufacturer_name=MANUFACTURER, model_name=MODEL_NAME,
                serial_number=request.installation_id,
            ),
        ),
        description=words,
    )  # fmt: skip
    if modifier is not None:
        item = sr.CodeContentItem(
            name=codes.DOCUMENT_TITLE_MODIFIER, value=modifier,
            relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )  # fmt: skip
        content[0].ContentSequence.insert(0, item)
    dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=list({str(named.SOPInstanceUID): named for named in objects}.values()),
        content=content,
        series_instance_uid=placeholder(series_role(kind)),
        series_number=1,
        sop_instance_uid=placeholder(instance_role(kind)),
        instance_number=1,
        manufacturer=MANUFACTURER,
    )
    without_times(dataset)
    describe(dataset, kind, request)
    return Draft(kind, dataset, request_verbatim(sources), (instance_role(kind), series_role(kind)))
