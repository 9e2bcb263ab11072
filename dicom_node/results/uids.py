"""Deterministic UIDs, in two passes.

An object is built with placeholder UIDs and without its own times. Its encoding then is its
content; the final UIDs are derived from that, the digest of the input bytes, the weights and the
analysis settings. So equal content has equal UIDs, other content in whatever part has others, and
neither AE titles nor the clock have a say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicom_node.results.encode import Verbatim, encode_elements, part10, replace_uids
from dicom_node.results.equipment import uid_of
from dicom_node.results.request import ResultObject


def placeholder(role: str) -> str:
    """Return the UID that stands for a role (``seg-gland/instance``) while content is open."""
    return uid_of("placeholder", role)


@dataclass(frozen=True)
class RunKey:
    """What went into a result besides its content: digests of input, weights and settings."""

    inputs_digest: str
    weights_digest: str
    config_digest: str

    def uid(self, content_digest: str, role: str) -> str:
        """Return the UID of a role in an object of this content."""
        return uid_of(
            "result", self.inputs_digest, self.weights_digest, self.config_digest,
            content_digest, role,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Draft:
    """An object before its UIDs are known. ``roles`` are those whose UIDs it owns."""

    kind: str
    dataset: Dataset
    verbatim: Verbatim
    roles: tuple[str, ...] = field(default=())
    variant: str = ""


def finish(
    drafts: Sequence[Draft], known: Mapping[str, str], run: RunKey, content_time: datetime
) -> tuple[list[ResultObject], dict[str, str]]:
    """Give drafts their UIDs and times, and encode them.

    Args:
        drafts: objects that share a series; their UIDs depend on the content of all of them.
        known: final UIDs by placeholder, of objects finished before and referred to here.
        run: what else the UIDs depend on.
        content_time: the time stored with the result.

    Returns:
        The encoded objects, and ``known`` extended by the UIDs that these objects own.
    """
    for draft in drafts:
        replace_uids(draft.dataset, known)
    digest = hashlib.sha256()
    for draft in drafts:
        digest.update(encode_elements(draft.dataset, draft.verbatim))
    own = {
        placeholder(role): run.uid(digest.hexdigest(), role)
        for draft in drafts
        for role in draft.roles
    }
    for draft in drafts:
        replace_uids(draft.dataset, own)
    return [_encoded(draft, content_time) for draft in drafts], {**known, **own}


def _encoded(draft: Draft, content_time: datetime) -> ResultObject:
    dataset = draft.dataset
    _set_times(dataset, local_time(content_time, draft.verbatim))
    sop_class, instance = str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)
    data = part10(sop_class, instance, encode_elements(dataset, draft.verbatim))
    return ResultObject(
        kind=draft.kind,
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        series_uid=str(dataset.SeriesInstanceUID),
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        variant=draft.variant,
    )


_LARGEST_OFFSET = timedelta(hours=14)
"""PS3.3 C.12.1.1.8: -1200 to +1400; what is beyond is no zone."""

OWN_TIMES = ("InstanceCreation", "Series", "Content")
_PRESENTATION = "PresentationCreation"


def without_times(dataset: Dataset) -> None:
    """Remove the times that highdicom read from the clock; ``finish`` writes the stored one."""
    prefixes = (*OWN_TIMES, _PRESENTATION)
    for name in (f"{prefix}{suffix}" for prefix in prefixes for suffix in ("Date", "Time")):
        if name in dataset:
            delattr(dataset, name)


def _set_times(dataset: Dataset, time: datetime) -> None:
    prefixes = OWN_TIMES
    if dataset.SOPClassUID == GrayscaleSoftcopyPresentationStateStorage:
        # PS3.3 C.11.10: a presentation state has a creation time and no content time
        prefixes = ("InstanceCreation", "Series", _PRESENTATION)
    for prefix in prefixes:
        setattr(dataset, f"{prefix}Date", time.strftime("%Y%m%d"))
        setattr(dataset, f"{prefix}Time", time.strftime("%H%M%S"))


def local_time(time: datetime, verbatim: Verbatim) -> datetime:
    """Return the time in the zone of the data set where that is declared, else as it was given.

    The offset applies to every date and time of a data set (PS3.3 C.12.1.1.8).
    """
    element = verbatim.get(BaseTag(Tag("TimezoneOffsetFromUTC")))
    text = (element.value or b"").decode("ascii", "replace").strip() if element else ""
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit() or time.tzinfo is None:
        return time
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    if offset > _LARGEST_OFFSET:
        return time
    return time.astimezone(timezone(-offset if text[0] == "-" else offset))
