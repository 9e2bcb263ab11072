"""What the API takes and gives. Times are ISO 8601, UTC."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from dicom_node.domain.confirmation import Check
from dicom_node.domain.probing import Step, StepOutcome
from dicom_node.domain.profile import ResultKind
from dicom_node.domain.states import ReleaseState, RevisionState

StudyUid = Annotated[
    str, Path(pattern=r"^[0-9.]{1,64}$", description="Study Instance UID", examples=["1.2.3"])
]
PeerName = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="name of the peer")]
Word = Annotated[str, Field(max_length=64, pattern=r"^[\x20-\x7e]*$")]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Problem(_Shape):
    """What is wrong, and what to do."""

    error: str
    advice: str


class Done(_Shape):
    """What was done, in plain words."""

    done: str


class Held(_Shape):
    """What the node holds."""

    studies: int
    instances: int
    copies_aside: int
    results: int
    bytes: int


class Passed(_Shape):
    """What went through in a time."""

    instances: int
    delivered: int
    not_analysable: int
    failed: int


class SignShape(_Shape):
    """A sign of health. ``state``: ok, note or wrong."""

    name: str
    state: str
    found: str
    advice: str


class SenderShape(_Shape):
    """What came last from an AE title."""

    ae_title: str
    study_uid: str | None
    received_at: str | None


class DestinationShape(_Shape):
    """What is on its way to a destination, or did not get there."""

    name: str
    ae_title: str
    pending: int
    sending: int
    failed: int


class ModelUse(_Shape):
    """Which release analyses what."""

    scope: str
    release: str


class ProcessShape(_Shape):
    """A process of the node, on whatever host. ``seen_s``: since its last heart-beat."""

    role: str
    host: str
    pid: int
    version: str
    started_at: str
    seen_s: float
    alive: bool


class StorageShape(_Shape):
    """Whether the disk and the database take what is received."""

    state: str
    problem: str | None
    message: str | None
    advice: str | None
    since: str | None
    free_bytes: int
    total_bytes: int


class StatusShape(_Shape):
    """The node at a glance."""

    ae_title: str
    version: str
    time: str
    storage: StorageShape
    held: Held
    revisions: dict[str, int]
    deliveries: dict[str, int]
    oldest_unfinished_s: dict[str, float | None]
    last_hour: Passed
    last_day: Passed
    health: list[SignShape]
    senders: list[SenderShape]
    destinations: list[DestinationShape]
    models: list[ModelUse]
    processes: list[ProcessShape]
    alarms: int


class StudyShape(_Shape):
    """A study revision in a list. ``arrived`` of ``deliveries`` are with their destination."""

    study_uid: str
    revision: int
    state: RevisionState
    reason: str | None
    message: str | None
    instances: int
    received_at: str
    changed_at: str
    deliveries: int
    arrived: int


class StudiesShape(_Shape):
    """A page of a list; ``after``: cursor of the next page, empty at the end."""

    studies: list[StudyShape]
    after: str


class EventShape(_Shape):
    """A line of a timeline."""

    at: str
    event: str
    detail: str
    revision: int | None


class DeliveryShape(_Shape):
    """A result object on its way to a destination."""

    revision: int
    kind: str
    sop_instance_uid: str
    peer: str
    state: str
    attempts: int
    status: int | None
    message: str | None
    next_at: str | None
    sent_at: str | None
    confirmation: str | None


class PeerShape(_Shape):
    """An AE title, with the meaning of its settings in the configuration file."""

    ae_title: str = Field(pattern=r"^[\x21-\x5b\x5d-\x7e]{1,16}$")
    host: str = Field(pattern=r"^[A-Za-z0-9.:-]{1,255}$")
    port: int | None = Field(None, ge=1, le=65535)
    may_send: bool = True
    receives_results: bool = False
    from_: list[Annotated[str, Field(max_length=64)]] = Field([], alias="from", max_length=100)
    objects: list[ResultKind] = []
    tls: bool = False
    certificate: list[Annotated[str, Field(max_length=255)]] = Field([], max_length=100)
    verify: Check = Check.AUTO


class NewPeerShape(PeerShape):
    """A new AE title."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")


class PeerOut(_Shape):
    """An AE title and where it is configured: file or database."""

    name: str
    ae_title: str
    host: str
    port: int | None
    may_send: bool
    receives_results: bool
    from_: list[str] = Field(alias="from")
    objects: list[str]
    tls: bool
    certificate: list[str]
    verify: str
    origin: str


class EchoShape(_Shape):
    """What came back of a C-ECHO."""

    ok: bool
    message: str


class AnswerShape(_Shape):
    """What a peer said of a SOP class, and in which encodings it takes it."""

    sop_class_uid: str
    name: str
    used_for: str
    answer: str
    transfer_syntaxes: list[str]


class StepShape(_Shape):
    """A step of an examination. ``outcome``: ok, failed or skipped."""

    step: Step
    words: str
    outcome: StepOutcome
    found: str
    advice: str
    seconds: float


class TestStudyShape(_Shape):
    """What now lies at the peer and can be deleted there."""

    study_uid: str
    patient_id: str
    objects: int


class ProbeShape(_Shape):
    """An examination of a peer. ``ok`` null: it runs, or there was none. ``at``: when it ended."""

    name: str
    address: str
    running: bool
    problem: str
    ok: bool | None
    at: str | None
    steps: list[StepShape]
    classes: list[AnswerShape]
    test_study: TestStudyShape | None


class RefusalShape(_Shape):
    """A refused sender."""

    id: int
    calling_ae: str
    called_ae: str
    address: str
    reason: str
    count: int
    first_at: str
    last_at: str


class ReleaseShape(_Shape):
    """A release of the model."""

    name: str
    version: str
    sha256: str
    state: ReleaseState
    packaged: bool
    parent: str | None
    added_at: str


class RuleShape(_Shape):
    """Which release analyses what; an empty criterion holds for everything."""

    sender: str
    station: str
    protocol: str
    release: str


class ScopeShape(_Shape):
    """The studies of a rule; all empty: every study that no other rule names."""

    sender: Word = ""
    station: Word = ""
    protocol: Word = ""


class SwitchShape(ScopeShape):
    """A release to check and rehearse for the studies of a rule."""

    release: Annotated[str, Field(min_length=1, max_length=160, pattern=r"^[\x21-\x7e]+$")]


class ShadowShape(_Shape):
    """A release to run in the shadow; null: none."""

    release: Annotated[str, Field(min_length=1, max_length=160, pattern=r"^[\x21-\x7e]+$")] | None


class RehearsalShape(_Shape):
    """A rehearsal. ``state``: running, passed or failed; ``key`` confirms it once."""

    key: str
    state: str
    release: str
    before: str | None
    proof: dict[str, str]
    problem: str


class AgreementShape(_Shape):
    """How far two releases agree; it says nothing of which one is right."""

    first: str
    second: str
    figures: dict[str, Any]


class AnnotationShape(_Shape):
    """What a person stored about findings; the keys of ``detail`` are those of the command."""

    id: int
    study_uid: str
    kind: str
    state: str
    reason: str | None
    received_at: str
    detail: dict[str, Any]


class AuditShape(_Shape):
    """A record of the audit trail."""

    number: int
    at: str
    event: str
    subject: str
    hash: str
    message: str
