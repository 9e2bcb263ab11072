"""What goes into the store and comes out of it: frozen values, no SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicom_node.domain.annotation import (
    AnnotationKind,
    AnnotationReason,
    AnnotationState,
    Part,
)
from dicom_node.domain.identity import Identity
from dicom_node.domain.policy import PlanKind
from dicom_node.domain.profile import ResultKind
from dicom_node.domain.reasons import Reason
from dicom_node.domain.states import DeliveryState, ReleaseState, RevisionState
from dicom_node.errors import StoreError
from dicom_node.store.observation_rows import Observation


class StaleClaim(StoreError):
    """The work was taken away (the claim was given to another, or the study is held)."""

    def __init__(self) -> None:
        super().__init__("this work was taken back", "throw its outcome away")


class IngestOutcome(StrEnum):
    """What became of a received instance."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    RESTORED = "restored"
    """Its file was removed by retention; it is kept again."""


@dataclass(frozen=True)
class InstanceRow:
    """One received instance. ``path`` is relative to the data folder; times are epoch seconds.

    ``role``: ``image``, or ``other`` for SEG, SR, SC, PDF and the like.
    """

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    role: str
    identity: Identity
    header_json: str
    dataset_digest: str
    path: str
    size: int
    received_at_s: float
    calling_ae: str = ""
    called_ae: str = ""
    address: str = ""
    id: int = 0
    removed_at_s: float | None = None
    """Since then its file is not kept."""


@dataclass(frozen=True)
class ConflictRow:
    """A second copy of an instance with other bytes, kept aside."""

    id: int
    study_uid: str
    sop_instance_uid: str
    verdict: str
    judgings: int
    kept_path: str
    path: str
    received_at_s: float
    identity: Identity
    header_json: str


@dataclass(frozen=True)
class AnnotationDue:
    """A stored object that can be an annotation, to be judged."""

    id: int
    kind: AnnotationKind
    instance: InstanceRow


@dataclass(frozen=True)
class AnnotationOutcome:
    """What became of judging one. ``revision``: of the result it was compared with.

    ``parts``, ``person``, ``made_at`` and ``detail_json`` are empty where it is not used.
    """

    state: AnnotationState
    reason: AnnotationReason | None = None
    message: str = ""
    person: str = ""
    made_at: str = ""
    parts: frozenset[Part] = frozenset()
    revision: int | None = None
    detail_json: str = "{}"


@dataclass(frozen=True)
class AnnotationRow:
    """One annotation as it stands, with the instance that holds it."""

    id: int
    kind: AnnotationKind
    state: AnnotationState
    reason: str | None
    message: str | None
    person: str
    made_at: str
    parts: frozenset[Part]
    revision: int | None
    superseded_by: int | None
    detail_json: str
    judged_at_s: float | None
    instance: InstanceRow


@dataclass(frozen=True)
class SentRevision:
    """A revision that has results, newest objects last. ``through``: None where it is not known."""

    number: int
    state: RevisionState
    through: int | None
    results: tuple[ResultRow, ...]


@dataclass(frozen=True)
class StudyToEvaluate:
    """A study that changed. ``change_no`` guards the answer against what comes meanwhile."""

    study_uid: str
    change_no: int
    last_image_at_s: float
    latest_number: int
    latest_state: RevisionState
    latest_reason: str | None
    latest_input_key: str | None
    result_was_sent: bool


@dataclass(frozen=True)
class Plan:
    """What the worker is to do. ``state`` and ``reason`` are set for a report.

    ``through``: the highest instance id that took part; later images belong to a later revision.
    """

    kind: PlanKind
    input_key: str
    selection_json: str
    through: int
    state: RevisionState | None = None
    reason: Reason | None = None
    message: str = ""


@dataclass(frozen=True)
class EarlierRow:
    """An object of an earlier revision of the study that some destination holds."""

    kind: str
    variant: str
    revision: int
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str


@dataclass(frozen=True)
class Claim:
    """The right to work on one revision, fenced by ``claim_no``.

    ``kind`` report: only a report is written that says why (``state``, ``reason``, ``message``).
    ``content_time`` stays the same for every attempt at the revision. ``seen``: what was measured,
    to be written with the outcome.
    """

    revision_id: int
    study_uid: str
    number: int
    claim_no: int
    owner: str
    kind: PlanKind
    state: RevisionState | None
    reason: Reason | None
    message: str
    input_key: str
    selection_json: str
    through: int
    attempts: int
    node_deaths: int
    content_time: datetime
    earlier: tuple[EarlierRow, ...]
    seen: Observation | None = None


_RANKS: Mapping[str, int] = {
    ResultKind.SR: 1, ResultKind.PRESENTATION_STATE: 1, ResultKind.KEY_OBJECT: 1,
    ResultKind.PDF: 1, ResultKind.REJECTION_NOTE: 2,
}  # fmt: skip


@dataclass(frozen=True)
class ResultRow:
    """One encoded object on disk. ``variant``: which form of its kind (`domain.profile`)."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    path: str
    sha256: str
    size: int
    variant: str = ""

    @property
    def rank(self) -> int:
        """Sending order: a report never arrives before what it refers to."""
        return _RANKS.get(self.kind, 0)


@dataclass(frozen=True)
class Destination:
    """A peer that gets results, the kinds it wants, and the SOP classes it is known to refuse."""

    peer: str
    kinds: Sequence[str]
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DeliveryClaim:
    """The right to send one object to one peer, fenced by ``claim_no``."""

    id: int
    claim_no: int
    owner: str
    peer: str
    revision_id: int
    study_uid: str
    result: ResultRow
    attempts: int
    created_at_s: float


@dataclass(frozen=True)
class SentRow:
    """An object that a destination took, to be asked about. ``claim_no``: of its sending."""

    delivery_id: int
    claim_no: int
    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    checks: int
    sent_at_s: float


@dataclass(frozen=True)
class PledgeRow:
    """A peer's request for storage commitment; ``references``: (SOP class, SOP instance)."""

    id: int
    peer: str
    transaction_uid: str
    references: tuple[tuple[str, str], ...]
    attempts: int
    requested_at_s: float


@dataclass(frozen=True)
class HeldRow:
    """A stored copy of an instance. ``digest``: SHA-256 of its data set, or of the whole file."""

    sop_class_uid: str
    path: str
    digest: str
    whole_file: bool


@dataclass(frozen=True)
class AuditRow:
    """One record of the audit trail. ``message``: XML of PS3.15 A.5.1."""

    number: int
    at_s: float
    event: str
    subject: str
    message: str
    hash: str


@dataclass(frozen=True)
class AuditCheck:
    """What a check of the chain found: how far it is whole, and what is wrong behind that."""

    records: int
    head: str
    problem: str
    broken_at: int | None
    last_at_s: float | None


@dataclass(frozen=True)
class ReleaseRow:
    """A registered release of the model. ``sha256`` None: the one of the installed software."""

    id: int
    sha256: str | None
    name: str
    version: str
    parent: str | None
    state: ReleaseState
    added_at_s: float
    changed_at_s: float


@dataclass(frozen=True)
class ShadowRow:
    """What two releases said of one study revision (``pair_json``: `domain.agreement.Pair`)."""

    study_uid: str
    revision: int
    active_sha256: str
    shadow_sha256: str
    pair_json: str


@dataclass(frozen=True)
class ManifestDelivery:
    """State of one delivery in a manifest."""

    peer: str
    state: DeliveryState
    attempts: int


@dataclass(frozen=True)
class OmissionRow:
    """A kind that a destination did not get as it is; ``replaced_by`` empty: left out."""

    peer: str
    kind: str
    replaced_by: str
    reason: str


@dataclass(frozen=True)
class ManifestRow:
    """A revision with its results, as written next to the result files."""

    revision_id: int
    study_uid: str
    number: int
    state: RevisionState
    reason: str | None
    message: str | None
    input_key: str | None
    content_time_s: float | None
    folder: str
    results: tuple[tuple[ResultRow, tuple[ManifestDelivery, ...]], ...]
    left_out: tuple[OmissionRow, ...] = ()
    images_removed_at_s: float | None = None
    """When retention removed the images of the study."""
    results_removed_at_s: float | None = None
    """When it removed the results of this revision."""
