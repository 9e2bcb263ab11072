"""Reads what a report (TID 1500) and a key object say about findings.

Groups are told apart by their Tracking Unique Identifier, as viewers do; several groups of one UID
count as one. What a person changed shows against the report that the node sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_node.annotations.access import code_of, first_of, items_of, nested, number_of, text_of
from dicom_node.domain.annotation import Verdict
from dicom_node.results import equipment

MEASUREMENT_GROUP = "125007"
TRACKING_UID = "112040"
KEY_OBJECT_REJECTS = ("113001", "DCM")
"""Rejected for Quality Reasons; the other rejections are about patient, order or retention."""

_SIGNIFICANT = ("AI-SIGNIFICANT", equipment.CODING_SCHEME)
_SCORE = ("AI-SCORE", equipment.CODING_SCHEME)
_INDICES = (("AI-SUSPICION", equipment.CODING_SCHEME), ("CSPCA-LIK", equipment.CODING_SCHEME))
_YES, _NO = ("373066001", "SCT"), ("373067005", "SCT")

REJECTING = frozenset(
    {
        ("272519000", "SCT"),  # Absent
        ("2667000", "SCT"),  # Absent (as some writers code it)
        ("122776", "DCM"),  # Disagreement with prior findings
        ("RID50296", "RADLEX"), ("RID50297", "RADLEX"),  # PI-RADS 1 and 2, lesion
        ("RID50289", "RADLEX"), ("RID50290", "RADLEX"),  # PI-RADS 1 and 2, overall
    }
)  # fmt: skip
"""Values of an evaluation that say: no, this is not one."""
_WORDS = re.compile(
    r"\b(reject(ed)?|false[ -]positive|no lesion|not a lesion|artefact|artifact)\b", re.I
)
LOW_SCORE = 2.0
"""A suspicion score that a person set this low rejects, as PI-RADS 1 and 2 do."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Group:
    """What is said of one tracked region: evaluations, numbers and remarks, by concept."""

    evaluations: Mapping[Key, Key] = field(default_factory=dict)
    numbers: Mapping[Key, float] = field(default_factory=dict)
    sites: frozenset[Key] = frozenset()
    remarks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Report:
    """Groups of a report by tracking UID."""

    groups: Mapping[str, Group]


@dataclass(frozen=True)
class Said:
    """What a report or key object says of one finding. ``changes``: in plain words.

    ``significant``: None where nothing is said.
    """

    verdict: Verdict
    significant: bool | None = None
    changes: tuple[str, ...] = ()


def read_report(dataset: Dataset) -> Report:
    """Read the measurement groups of a report, wherever in its tree they stand."""
    groups: dict[str, Group] = {}
    for item in nested(dataset):
        if _key(item, "ConceptNameCodeSequence")[0] != MEASUREMENT_GROUP:
            continue
        content = items_of(item, "ContentSequence")
        uids = [
            text_of(one, "UID")
            for one in content
            if _key(one, "ConceptNameCodeSequence")[0] == TRACKING_UID
        ]
        if uids and uids[0]:
            groups[uids[0]] = _joined(groups.get(uids[0], Group()), content)
    return Report(groups)


def _joined(known: Group, content: list[Dataset]) -> Group:
    """Add what the items of a group say to what other groups of the region said."""
    evaluations, numbers = dict(known.evaluations), dict(known.numbers)
    sites, remarks = set(known.sites), set(known.remarks)
    for item in content:
        concept = _key(item, "ConceptNameCodeSequence")
        kind = text_of(item, "ValueType")
        if kind == "CODE" and concept == ("363698007", "SCT"):  # Finding Site
            sites.add(_key(item, "ConceptCodeSequence"))
        elif kind == "CODE":
            evaluations[concept] = _key(item, "ConceptCodeSequence")
        elif kind == "NUM":
            value = number_of(first_of(item, "MeasuredValueSequence"), "NumericValue")
            if value is not None:
                numbers[concept] = value
        elif kind == "TEXT":
            remarks.add(text_of(item, "TextValue")[:1024])
    return Group(evaluations, numbers, frozenset(sites), frozenset(remarks))


def _key(item: Dataset, keyword: str) -> Key:
    code: Code | None = code_of(item, keyword)
    return (code.value, code.scheme_designator) if code is not None else ("", "")


def verdicts(
    report: Report, sent: Report, tracking_uids: Mapping[int, str], *, removal_counts: bool
) -> dict[int, Said]:
    """Return what a report says of each finding, by rank.

    Args:
        report: as the person stored it.
        sent: as the node sent it.
        tracking_uids: of the findings, by rank.
        removal_counts: the report is an edited copy: a finding that it does not contain any
            more was rejected.
    """
    found = {}
    for rank, uid in tracking_uids.items():
        if uid in report.groups:
            found[rank] = _said(report.groups[uid], sent.groups.get(uid, Group()))
        elif removal_counts:
            found[rank] = Said(Verdict.REJECTED, False, ("removed from the report",))
    return found


def _said(group: Group, sent: Group) -> Said:
    changes = [
        *_number_changes(group, sent),
        *(
            "evaluation changed" for concept, value in group.evaluations.items()
            if sent.evaluations.get(concept) != value
        ),
    ]  # fmt: skip
    if group.sites and sent.sites and group.sites != sent.sites:
        changes.append("site changed")
    significant = {_YES: True, _NO: False}.get(group.evaluations.get(_SIGNIFICANT, ("", "")))
    was = {_YES: True, _NO: False}.get(sent.evaluations.get(_SIGNIFICANT, ("", "")))
    if _rejects(group, sent) or (significant is False and was is True):
        return Said(Verdict.REJECTED, False, tuple(dict.fromkeys(changes)))
    return Said(Verdict.ACCEPTED, significant, tuple(dict.fromkeys(changes)))


def _number_changes(group: Group, sent: Group) -> list[str]:
    return [
        f"{concept[0]}: {sent.numbers[concept]:g} to {value:g}"
        for concept, value in group.numbers.items()
        if concept in sent.numbers and value != sent.numbers[concept]
    ]


def _rejects(group: Group, sent: Group) -> bool:
    """Whether something that the node did not say itself rejects the finding."""
    new_values = {
        value for concept, value in group.evaluations.items()
        if sent.evaluations.get(concept) != value
    }  # fmt: skip
    if new_values & REJECTING or any(_WORDS.search(one) for one in group.remarks - sent.remarks):
        return True
    score = group.numbers.get(_SCORE)
    if score is not None and score != sent.numbers.get(_SCORE) and score <= LOW_SCORE:
        return True
    return any(group.numbers.get(index) == 0 and sent.numbers.get(index) != 0 for index in _INDICES)


def rejected_by_key_object(dataset: Dataset) -> frozenset[str]:
    """SOP Instance UIDs that a key object rejects for their quality; empty for other titles."""
    if _key(dataset, "ConceptNameCodeSequence") != KEY_OBJECT_REJECTS:
        return frozenset()
    return frozenset(
        text_of(one, "ReferencedSOPInstanceUID")
        for item in items_of(dataset, "ContentSequence")
        for one in items_of(item, "ReferencedSOPSequence")
    )
