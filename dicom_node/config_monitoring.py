"""The sections of the configuration about watching the node."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from dicom_node.config_values import AeTitle, Network, Port, Section
from dicom_node.domain.alarm import Duty, Limits, duty_of

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class MailSecurity(StrEnum):
    """How the mail server is spoken to."""

    STARTTLS = "starttls"
    TLS = "tls"
    OFF = "off"


def _address(value: str) -> str:
    name, at, host = value.strip().rpartition("@")
    if not (name and at and host) or not value.isprintable() or " " in value.strip():
        raise ValueError(f"'{value}' is no mail address")
    return value.strip()


def _webhook(value: str) -> str:
    url = urlsplit(value)
    try:
        _ = url.port
    except ValueError:
        raise ValueError("its port is a number from 1 to 65535") from None
    if value and (url.scheme not in ("https", "http") or not url.hostname or url.username):
        raise ValueError("give an address such as https://alarms.hospital.example/node")
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        raise ValueError("without TLS (http://) only on this machine; give https://...")
    return value


MailAddress = Annotated[str, AfterValidator(_address)]
WebhookUrl = Annotated[str, AfterValidator(_webhook)]


class MetricsSection(Section):
    """Who may read /metrics; a token of the role viewer always may."""

    scrape_from: tuple[Network, ...] = Field(
        (), description="addresses (CIDR) that may read /metrics without a token"
    )


class AlarmsSection(Section):
    """When people are told that something is wrong, and by which way (docs/monitoring.md)."""

    every_s: float = Field(30, ge=1, le=600, description="how often everything is looked at")
    nothing_received_h: float = Field(
        24, ge=0, description="nothing received for so many hours of duty; 0: no alarm"
    )
    duty_days: str = Field("mon-fri", description="days of duty: mon-fri, or mon,wed,sat")
    duty_hours: str = Field("07:00-19:00", description="hours of duty, in the time of the machine")
    study_waits_h: float = Field(2, ge=0, description="a study not analysed for so long; 0: off")
    study_failed_h: float = Field(
        24, ge=0, description="failed and held studies are an alarm for so long; 0: off"
    )
    destination_h: float = Field(
        1, ge=0, description="a result waits for its destination for so long; 0: off"
    )
    refusals_per_h: int = Field(
        100, ge=0, description="more refused requests within an hour are an alarm; 0: off"
    )
    disk_free_gib: float = Field(5, ge=0, description="less free on the disk is an alarm")
    certificate_days: float = Field(
        30, ge=0, description="a certificate ends within so many days; 0: off"
    )
    remind_h: float = Field(24, ge=0, description="told again while it lasts; 0: never")
    webhook_url: WebhookUrl = Field("", description="POSTed to as JSON; empty: no webhook")
    webhook_secret_file: str = Field(
        "", description="file with the secret that signs each message (HMAC-SHA256)"
    )
    mail_to: tuple[MailAddress, ...] = Field((), description="who gets mail; empty: nobody")
    mail_from: str = Field("", description="sender of the mail")
    mail_host: str = Field("", description="mail server (SMTP)")
    mail_port: Port = Field(587, description="its port")
    mail_security: MailSecurity = Field(
        MailSecurity.STARTTLS, description="starttls, tls, or off (readable on the way)"
    )
    mail_user: str = Field("", description="login at the mail server; empty: none")
    mail_password_file: str = Field("", description="file with the password of that login")
    ca: str = Field(
        "", description="PEM file: who signs webhook and mail server; empty: those of the system"
    )

    @model_validator(mode="after")
    def _mail_is_whole(self) -> AlarmsSection:
        if self.mail_to and not (self.mail_host and self.mail_from):
            raise ValueError("mail_to goes with mail_host and mail_from: set them too")
        if self.mail_from:
            _address(self.mail_from)
        if bool(self.mail_user) != bool(self.mail_password_file):
            raise ValueError("mail_user and mail_password_file go together: set both")
        if self.mail_user and self.mail_security is MailSecurity.OFF:
            raise ValueError("a password is sent over TLS alone: mail_security starttls or tls")
        return self

    @model_validator(mode="after")
    def _secret_goes_with_a_webhook(self) -> AlarmsSection:
        if self.webhook_url and not self.webhook_secret_file:
            raise ValueError("webhook_url goes with webhook_secret_file: set both")
        return self

    @model_validator(mode="after")
    def _duty_can_be_read(self) -> AlarmsSection:
        _ = self.duty
        return self

    @property
    def duty(self) -> Duty:
        """The hours in which images are expected."""
        return duty_of(self.duty_days, self.duty_hours)

    @property
    def limits(self) -> Limits:
        """The settings that the rules take."""
        return Limits(**{name: getattr(self, name) for name in Limits.__dataclass_fields__})

    @property
    def channels(self) -> tuple[str, ...]:
        """The ways on which people are told."""
        named = {"webhook": self.webhook_url, "mail": self.mail_to}
        return tuple(name for name, there in named.items() if there)


class CanarySection(Section):
    """A synthetic study that goes the whole way on a schedule (docs/monitoring.md, Canary)."""

    every_h: float = Field(0, ge=0, description="a test study every so many hours; 0: none")
    to: str = Field(
        "", description="peer that gets its results; empty: they are made, and sent nowhere"
    )
    limit_min: float = Field(
        30, gt=0, description="back within so many minutes, or it counts as lost"
    )
    patient_id: str = Field(
        "CANARY", pattern=r"^[A-Za-z0-9^_.-]{1,64}$", description="Patient ID of the test patient"
    )
    ae_title: AeTitle = Field("CANARY", description="AE title that it is sent as")
    host: str = Field(
        "", description="where it is sent to; empty: the receiver of the same machine"
    )
    port: Port = Field(0, description="port there; 0: that of the receiver")

    @model_validator(mode="after")
    def _host_and_port(self) -> CanarySection:
        if self.host and not self.port:
            raise ValueError("host goes with port: set both")
        return self
