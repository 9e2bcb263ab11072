"""Audit messages of DICOM PS3.15 A.5: what is told of an event, and the XML it is told in.

Pure: an event and who took part go in; a message in the format of PS3.15 A.5.1 comes out.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from xml.etree.ElementTree import Element, SubElement, tostring


class AuditEvent(StrEnum):
    """What is recorded."""

    APPLICATION_START = "application_start"
    APPLICATION_STOP = "application_stop"
    BEGIN_TRANSFERRING = "begin_transferring"
    INSTANCES_RECEIVED = "instances_received"
    INSTANCES_SENT = "instances_sent"
    EXPORT = "export"
    AUDIT_LOG_USED = "audit_log_used"
    ASSOCIATION_REJECTED = "association_rejected"
    NETWORK_CONFIGURATION = "network_configuration"
    SOFTWARE_CONFIGURATION = "software_configuration"
    MODEL_CHANGED = "model_changed"
    DRIFT = "drift"
    DATABASE_REBUILT = "database_rebuilt"
    RECORDS_LOST = "records_lost"
    LOGIN = "login"
    LOGOUT = "logout"
    ACCOUNT_CHANGED = "account_changed"
    STUDY_CHANGED = "study_changed"
    INSTANCES_ACCESSED = "instances_accessed"
    STUDY_DELETED = "study_deleted"
    BACKUP = "backup"


class Outcome(IntEnum):
    """Event Outcome Indicator (PS3.15 A.5.2)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8


@dataclass(frozen=True)
class Code:
    """A coded value: code, meaning, coding scheme."""

    value: str
    meaning: str
    scheme: str = "DCM"


@dataclass(frozen=True)
class _Kind:
    event: Code
    action: str
    type: Code | None = None


_ACTIVITY = Code("110100", "Application Activity")
_ALERT = Code("110113", "Security Alert")
_AUTHENTICATION = Code("110114", "User Authentication")
_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
# PS3.15 A.5.3, codes of PS3.16 CID 400 and CID 401
_KINDS: Mapping[AuditEvent, _Kind] = {
    AuditEvent.APPLICATION_START: _Kind(_ACTIVITY, "E", Code("110120", "Application Start")),
    AuditEvent.APPLICATION_STOP: _Kind(_ACTIVITY, "E", Code("110121", "Application Stop")),
    AuditEvent.BEGIN_TRANSFERRING: _Kind(
        Code("110102", "Begin Transferring DICOM Instances"), "E"
    ),
    AuditEvent.INSTANCES_RECEIVED: _Kind(_TRANSFERRED, "C"),
    AuditEvent.INSTANCES_SENT: _Kind(_TRANSFERRED, "R"),
    AuditEvent.EXPORT: _Kind(Code("110106", "Export"), "R"),
    AuditEvent.AUDIT_LOG_USED: _Kind(Code("110101", "Audit Log Used"), "R"),
    AuditEvent.ASSOCIATION_REJECTED: _Kind(_ALERT, "E", Code("110126", "Node Authentication")),
    AuditEvent.NETWORK_CONFIGURATION: _Kind(_ALERT, "E", Code("110128", "Network Configuration")),
    AuditEvent.SOFTWARE_CONFIGURATION: _Kind(
        _ALERT, "E", Code("110131", "Software Configuration")
    ),
    AuditEvent.MODEL_CHANGED: _Kind(_ALERT, "E", Code("110131", "Software Configuration")),
    AuditEvent.DRIFT: _Kind(_ALERT, "E", Code("drift", "Drift of Inputs or Outputs", "99PROSTATE")),
    AuditEvent.DATABASE_REBUILT: _Kind(
        _ALERT, "E", Code("110131", "Software Configuration")
    ),
    AuditEvent.LOGIN: _Kind(_AUTHENTICATION, "E", Code("110122", "Login")),
    AuditEvent.LOGOUT: _Kind(_AUTHENTICATION, "E", Code("110123", "Logout")),
    AuditEvent.ACCOUNT_CHANGED: _Kind(
        _ALERT, "E", Code("110137", "User security Attributes Changed")
    ),
    AuditEvent.STUDY_CHANGED: _Kind(Code("110111", "Procedure Record"), "U"),
    AuditEvent.INSTANCES_ACCESSED: _Kind(Code("110103", "DICOM Instances Accessed"), "R"),
    AuditEvent.STUDY_DELETED: _Kind(Code("110105", "DICOM Study Deleted"), "D"),
    AuditEvent.BACKUP: _Kind(_ALERT, "E", Code("backup", "Backup or Restore", "99PROSTATE")),
    AuditEvent.RECORDS_LOST: _Kind(_ALERT, "E", Code("110133", "Audit Recording Stopped")),
}  # fmt: skip

APPLICATION = Code("110150", "Application")
LAUNCHER = Code("110151", "Application Launcher")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")
DESTINATION_MEDIA = Code("110154", "Destination Media")
_STUDY = Code("110180", "Study Instance UID")
_NODE_ID = Code("110182", "Node ID")
_PATIENT = Code("2", "Patient Number", "RFC-3881")
_URI = Code("12", "URI", "RFC-3881")


@dataclass(frozen=True)
class Participant:
    """Who took part. ``user``: login or process; ``ae_title`` and ``address`` where there are."""

    user: str
    role: Code | None = None
    requestor: bool = False
    ae_title: str = ""
    address: str = ""


@dataclass(frozen=True)
class StudyObject:
    """A study whose instances were touched: SOP Class UID to number of instances."""

    study_uid: str
    instances: Mapping[str, int] = field(default_factory=dict)
    patient_id: str | None = None
    """None: the message names no patient"""


@dataclass(frozen=True)
class AuditMessage:
    """One event. ``details``: (what, value) about the subject of an alert or a log."""

    event: AuditEvent
    at_s: float
    participants: Sequence[Participant]
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""
    study: StudyObject | None = None
    subject: str = ""
    details: Sequence[tuple[str, str]] = ()


def to_xml(message: AuditMessage, source_id: str) -> str:
    """Return a message as XML (PS3.15 A.5.1). ``source_id``: who reports it."""
    root = Element("AuditMessage")
    _event(root, message)
    for participant in message.participants:
        _participant(root, participant)
    SubElement(root, "AuditSourceIdentification", AuditSourceID=printable(source_id))
    if message.study is not None:
        _study(root, message.study)
    if message.subject:
        _subject(root, message)
    return tostring(root, encoding="unicode")


def _event(root: Element, message: AuditMessage) -> None:
    kind = _KINDS[message.event]
    at = datetime.fromtimestamp(message.at_s, UTC).isoformat(timespec="milliseconds")
    event = SubElement(
        root, "EventIdentification", EventActionCode=kind.action, EventDateTime=at,
        EventOutcomeIndicator=str(int(message.outcome)),
    )  # fmt: skip
    _coded(event, "EventID", kind.event)
    if kind.type is not None:
        _coded(event, "EventTypeCode", kind.type)
    if message.description:
        SubElement(event, "EventOutcomeDescription").text = printable(message.description)


def _participant(root: Element, who: Participant) -> None:
    found = SubElement(root, "ActiveParticipant", UserID=printable(who.user) or "unknown")
    if who.ae_title:
        found.set("AlternativeUserID", f"AETITLES={printable(who.ae_title)}")  # PS3.15 A.5.2
    found.set("UserIsRequestor", str(who.requestor).lower())
    if who.address:
        numeric = re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.%]*:[0-9A-Fa-f:.%]*", who.address)
        found.set("NetworkAccessPointID", printable(who.address))
        found.set("NetworkAccessPointTypeCode", "2" if numeric else "1")
    if who.role is not None:
        _coded(found, "RoleIDCode", who.role)


def _study(root: Element, study: StudyObject) -> None:
    found = _object(root, study.study_uid, _STUDY, type_code="2", role="3")
    for sop_class, number in sorted(study.instances.items()):
        SubElement(found, "SOPClass", UID=printable(sop_class), NumberOfInstances=str(number))
    if study.patient_id is not None:
        _object(root, study.patient_id or "unknown", _PATIENT, type_code="1", role="1")


def _subject(root: Element, message: AuditMessage) -> None:
    log = message.event is AuditEvent.AUDIT_LOG_USED
    # roles of PS3.15 A.5.2: 13 security resource
    found = _object(root, message.subject, _URI if log else _NODE_ID, type_code="2", role="13")
    if log:
        SubElement(found, "ParticipantObjectName").text = "Security Audit Log"
    for what, value in message.details:
        coded = base64.b64encode(printable(value).encode()).decode()
        SubElement(found, "ParticipantObjectDetail", type=printable(what), value=coded)


def _object(root: Element, name: str, kind: Code, *, type_code: str, role: str) -> Element:
    found = SubElement(
        root, "ParticipantObjectIdentification", ParticipantObjectID=printable(name),
        ParticipantObjectTypeCode=type_code, ParticipantObjectTypeCodeRole=role,
    )  # fmt: skip
    _coded(found, "ParticipantObjectIDTypeCode", kind)
    return found


def _coded(parent: Element, name: str, code: Code) -> None:
    found = SubElement(parent, name)
    found.set("csd-code", code.value)
    found.set("codeSystemName", code.scheme)
    found.set("originalText", code.meaning)


def printable(text: str) -> str:
    """Return text without what XML 1.0 and databases cannot hold: strangers choose AE titles."""
    return "".join(c if c.isprintable() else "?" for c in text)[:1024]
