"""Audit messages in the format of PS3.15 A.5.1."""

from __future__ import annotations

import base64
from xml.etree.ElementTree import Element, fromstring

import pytest

from dicom_node.domain.audit import (
    DESTINATION,
    SOURCE,
    AuditEvent,
    AuditMessage,
    Outcome,
    Participant,
    StudyObject,
    to_xml,
)

WHO = [
    Participant("PACS", SOURCE, True, "PACS", "10.0.0.5"),
    Participant("411", DESTINATION, False, "PROSTATE_AI", "node.example"),
]


def read(message: AuditMessage) -> Element:
    return fromstring(to_xml(message, "PROSTATE_AI@node"))


def code(found: Element | None) -> tuple[str, str]:
    assert found is not None
    return found.attrib["csd-code"], found.attrib["codeSystemName"]


@pytest.mark.parametrize(
    ("event", "event_id", "action", "event_type"),
    [
        (AuditEvent.APPLICATION_START, "110100", "E", "110120"),
        (AuditEvent.APPLICATION_STOP, "110100", "E", "110121"),
        (AuditEvent.BEGIN_TRANSFERRING, "110102", "E", None),
        (AuditEvent.INSTANCES_RECEIVED, "110104", "C", None),
        (AuditEvent.INSTANCES_SENT, "110104", "R", None),
        (AuditEvent.EXPORT, "110106", "R", None),
        (AuditEvent.AUDIT_LOG_USED, "110101", "R", None),
        (AuditEvent.ASSOCIATION_REJECTED, "110113", "E", "110126"),
        (AuditEvent.NETWORK_CONFIGURATION, "110113", "E", "110128"),
        (AuditEvent.SOFTWARE_CONFIGURATION, "110113", "E", "110131"),
        (AuditEvent.STUDY_DELETED, "110105", "D", None),
        (AuditEvent.DATABASE_REBUILT, "110113", "E", "110131"),
        (AuditEvent.RECORDS_LOST, "110113", "E", "110133"),
    ],
)
def test_every_event_has_its_codes(
    event: AuditEvent, event_id: str, action: str, event_type: str | None
) -> None:
    found = read(AuditMessage(event, 0.0, WHO)).find("EventIdentification")
    assert found is not None
    assert code(found.find("EventID")) == (event_id, "DCM")
    assert found.attrib["EventActionCode"] == action
    assert found.attrib["EventDateTime"] == "1970-01-01T00:00:00.000+00:00"
    kind = found.find("EventTypeCode")
    assert (None if kind is None else kind.attrib["csd-code"]) == event_type


def test_a_transfer_names_both_sides_study_and_patient() -> None:
    study = StudyObject("1.2.3", {"1.2.840.10008.5.1.4.1.1.4": 164}, "P1")
    root = read(AuditMessage(AuditEvent.INSTANCES_RECEIVED, 0.0, WHO, Outcome.SUCCESS, "", study))
    assert [one.tag for one in root] == [
        "EventIdentification", "ActiveParticipant", "ActiveParticipant",
        "AuditSourceIdentification", "ParticipantObjectIdentification",
        "ParticipantObjectIdentification",
    ]  # fmt: skip
    sender, here = root.findall("ActiveParticipant")
    assert code(sender.find("RoleIDCode")) == ("110153", "DCM")
    assert sender.attrib == {
        "UserID": "PACS", "AlternativeUserID": "AETITLES=PACS", "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.0.0.5", "NetworkAccessPointTypeCode": "2",
    }  # fmt: skip
    assert here.attrib["NetworkAccessPointTypeCode"] == "1"
    of_study, of_patient = root.findall("ParticipantObjectIdentification")
    assert of_study.attrib["ParticipantObjectID"] == "1.2.3"
    assert code(of_study.find("ParticipantObjectIDTypeCode")) == ("110180", "DCM")
    classes = of_study.find("SOPClass")
    assert classes is not None and classes.attrib["NumberOfInstances"] == "164"
    assert of_patient.attrib["ParticipantObjectID"] == "P1"
    assert of_patient.attrib["ParticipantObjectTypeCodeRole"] == "1"
    assert code(of_patient.find("ParticipantObjectIDTypeCode")) == ("2", "RFC-3881")


def test_the_patient_can_be_left_out() -> None:
    root = read(AuditMessage(AuditEvent.EXPORT, 0.0, WHO, study=StudyObject("1.2.3")))
    assert len(root.findall("ParticipantObjectIdentification")) == 1


def test_what_strangers_send_does_no_harm() -> None:
    hostile = 'A"><x/>\x00\x1b&\udce4'
    alert = AuditMessage(
        AuditEvent.ASSOCIATION_REJECTED, 0.0, [Participant(hostile, None, True, hostile)],
        subject=hostile, details=[("called", hostile)],
    )  # fmt: skip
    root = read(alert)
    subject = root.find("ParticipantObjectIdentification")
    assert subject is not None and subject.attrib["ParticipantObjectID"] == 'A"><x/>??&?'
    detail = subject.find("ParticipantObjectDetail")
    assert detail is not None
    assert base64.b64decode(detail.attrib["value"]).decode() == 'A"><x/>??&?'
