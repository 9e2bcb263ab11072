"""What the store hands to the console: accounts, sessions, tokens, lists of studies.

Times are seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dicom_node.domain.account import Role
from dicom_node.domain.states import RevisionState


@dataclass(frozen=True)
class AccountRow:
    """An account of the console. ``password_hash`` None: the person has not chosen one yet."""

    name: str
    role: Role
    password_hash: str | None = field(repr=False)
    code_until_s: float | None
    created_at_s: float
    last_login_at_s: float | None


@dataclass(frozen=True)
class SessionRow:
    """Somebody who is logged in."""

    account: str
    role: Role
    address: str
    started_at_s: float


@dataclass(frozen=True)
class TokenRow:
    """A bearer token of the API. ``ends_at_s`` None: no end."""

    name: str
    role: Role
    made_by: str
    created_at_s: float
    ends_at_s: float | None
    used_at_s: float | None


@dataclass(frozen=True)
class StudyQuery:
    """Which study revisions a list shows.

    ``text``: a Study Instance UID or a Patient ID. ``after``: the cursor of the page before.
    """

    text: str = ""
    state: RevisionState | None = None
    after: str = ""
    limit: int = 50


@dataclass(frozen=True)
class StudyLine:
    """A study revision in a list. ``sent`` of ``objects`` deliveries have arrived."""

    study_uid: str
    revision: int
    state: RevisionState
    reason: str | None
    message: str | None
    instances: int
    received_at_s: float
    changed_at_s: float
    objects: int
    sent: int


@dataclass(frozen=True)
class StudyPage:
    """A page of a list. ``after``: cursor of the next page; empty: this is the last."""

    lines: tuple[StudyLine, ...]
    after: str


@dataclass(frozen=True)
class SenderSeen:
    """What came last from an AE title; nothing: None."""

    calling_ae: str
    study_uid: str | None
    address: str | None
    received_at_s: float | None


@dataclass(frozen=True)
class Throughput:
    """What went through in a time."""

    instances: int
    delivered: int
    not_analysable: int
    failed: int


@dataclass(frozen=True)
class RevisionFiles:
    """What is on disk of a revision; paths are relative to the data folder."""

    selection_json: str
    folder: str | None
    pictures: tuple[tuple[str, str], ...]
    """SOP Instance UID and path of each key image"""
