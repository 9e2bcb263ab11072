"""Who made an object and when, what it was made from, and whether a machine made it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.annotations.access import first_of, items_of, nested, text_of
from dicom_node.results.equipment import CREATOR_NAME
from dicom_node.results.recognise import is_own_object

_TIMES = ("InstanceCreation", "Content", "PresentationCreation")
_OBSERVER_NAME = "121008"  # DCM, Person Observer Name (PS3.16 TID 1003)
_NOBODY = frozenset({"", "unknown", "anonymous", "unspecified", "none", "n/a"})
_OWN_UID = "2.25."


@dataclass(frozen=True)
class Maker:
    """Who made an object. ``person`` is '' where nobody is named; ``made_at``: YYYYMMDDHHMMSS."""

    person: str
    made_at: str
    verified: bool
    own_product: bool


def read_maker(dataset: Dataset) -> Maker:
    """Read who made an object and when it was last changed."""
    return Maker(
        person=_person(dataset),
        made_at=_made_at(dataset),
        verified=text_of(dataset, "VerificationFlag") == "VERIFIED",
        own_product=is_own_object(
            text_of(dataset, "Manufacturer"), text_of(dataset, "ManufacturerModelName")
        ),
    )


def _person(dataset: Dataset) -> str:
    found = [text_of(one, "VerifyingObserverName") for one in items_of(
        dataset, "VerifyingObserverSequence")]  # fmt: skip
    found += [
        text_of(item, "PersonName")
        for item in items_of(dataset, "ContentSequence")
        if text_of(item, "ValueType") == "PNAME"
        and text_of(first_of(item, "ConceptNameCodeSequence"), "CodeValue") == _OBSERVER_NAME
    ]
    found.append(text_of(dataset, "ContentCreatorName"))
    named = [name for name in found if _is_person(name)]
    return named[0][:255] if named else ""


def _is_person(name: str) -> bool:
    parts = name.replace("^", " ").split()
    return name != CREATOR_NAME and not all(part.lower() in _NOBODY for part in parts)


def _made_at(dataset: Dataset) -> str:
    found = [
        text_of(dataset, f"{prefix}Date")[:8] + _time(text_of(dataset, f"{prefix}Time"))
        for prefix in _TIMES
    ]
    found += [
        text_of(one, "VerificationDateTime")[:14].ljust(14, "0")
        for one in items_of(dataset, "VerifyingObserverSequence")
    ]
    return max((one for one in found if len(one) == 14 and one.isdigit()), default="")


def _time(text: str) -> str:
    return text.split(".", maxsplit=1)[0][:6].ljust(6, "0")


def has_derived_uid(sop_instance_uid: str) -> bool:
    """Whether a UID has the form that this product derives: ``2.25.`` and a UUID of version 5."""
    if not sop_instance_uid.startswith(_OWN_UID):
        return False
    try:
        return uuid.UUID(int=int(sop_instance_uid[len(_OWN_UID) :])).version == 5
    except ValueError:
        return False


_PREDECESSORS = ("PredecessorDocumentsSequence", "PredecessorSequence")


def predecessors_of(dataset: Dataset) -> frozenset[str]:
    """SOP Instance UIDs of the objects that an object says it replaces."""
    return frozenset(
        uid
        for keyword in _PREDECESSORS
        for item in items_of(dataset, keyword)
        for uid in _instances(item)
    )


def references_of(dataset: Dataset) -> frozenset[str]:
    """SOP Instance UIDs that an object names anywhere but in the groups of its frames."""
    return frozenset(_instances(dataset))


def _instances(dataset: Dataset) -> Iterable[str]:
    for item in nested(dataset):
        if uid := text_of(item, "ReferencedSOPInstanceUID"):
            yield uid
