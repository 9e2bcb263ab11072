"""Who made a result object: constants of the equipment modules. Standard library only."""

from __future__ import annotations

import uuid

MANUFACTURER = "Prostate DICOM Node"
MODEL_NAME = "prostate-dicom-node"
CREATOR_NAME = "Prostate DICOM Node^AI"

CODING_SCHEME = "99PDN"
"""Designator of the product's private coding scheme (PS3.16 8.2: private ones begin with 99)."""
CODING_SCHEME_NAME = "Prostate DICOM Node codes"

NAMESPACE = uuid.UUID("6f5f0c0e-2d0a-5c1d-9a57-5a1f6f1b7e42")
"""Namespace of every UID that the product derives (UUIDv5)."""

RUO_SUFFIX = " - RUO"
DISCLAIMER = "Research use only, machine-made, unverified."
NOT_A_PROBABILITY = "AI suspicion index, not a probability"


def uid_of(*parts: str) -> str:
    """Return the UID ``2.25.<UUIDv5>`` that depends on the given parts only (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(31).join(parts)).int}"


IMPLEMENTATION_CLASS_UID = uid_of("implementation class")
IMPLEMENTATION_VERSION = "PROSTATE_NODE"


def device_observer_uid(installation_id: str) -> str:
    """UID of this installation as an observer (PS3.16 TID 1004)."""
    return uid_of("device observer", installation_id)
