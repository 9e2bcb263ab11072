"""Kinds of value in the configuration, checked where they are read."""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_FINGERPRINT = re.compile(r"^sha256:[0-9a-f]{64}$")
_CERTIFICATE_NAME = re.compile(r"^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$")
# PS3.5 6.2, VR AE: 16 characters at most, no backslash, no control characters, not only spaces
_AE_TITLE = re.compile(r"^[\x20-\x5b\x5d-\x7e]{1,16}$")


def _ae_title(value: str) -> str:
    value = value.strip(" ")
    if not _AE_TITLE.match(value):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f"'{value}' is not an address or a CIDR block such as 10.1.0.0/16"
        ) from None
    return value


def _certificate(value: str) -> str:
    value = value.strip().lower()
    if value.startswith("sha256:"):
        value = value.replace(":", "").replace("sha256", "sha256:")
        if not _FINGERPRINT.match(value):
            raise ValueError("a fingerprint is sha256: and 64 hexadecimal digits")
    elif not _CERTIFICATE_NAME.match(value):
        raise ValueError("name a host, an address or sha256:FINGERPRINT")
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
CertificateName = Annotated[str, AfterValidator(_certificate)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class AuditPatient(StrEnum):
    """How audit records name the patient."""

    ID = "id"
    NONE = "none"


class Plaintext(StrEnum):
    """Where DICOM without TLS is spoken."""

    OFF = "off"
    LOOPBACK = "loopback"
    NETWORK = "network"
