"""What stands in a certificate file of the node: until when it is valid, its fingerprint."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from dicom_node.errors import WrongUseError


def ends_s(file: str) -> float:
    """Return when the first certificate of a PEM file ends, in seconds since 1970-01-01 UTC.

    Raises:
        WrongUseError: the file cannot be read, or holds no certificate.
    """
    return _first(file).not_valid_after_utc.timestamp()


def fingerprint(file: str) -> str:
    """Return the fingerprint of the first certificate, as peers name it: ``sha256:HEX``.

    Raises:
        WrongUseError: the file cannot be read, or holds no certificate.
    """
    return f"sha256:{_first(file).fingerprint(hashes.SHA256()).hex()}"


def verifying_context(authorities: str) -> ssl.SSLContext:
    """Return a context for HTTPS and mail that verifies the server, its name included.

    Raises:
        WrongUseError: the file of authorities cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=authorities or None)
    except (OSError, ssl.SSLError) as error:
        raise WrongUseError(
            f"alarms.ca: {authorities} cannot be used ({error.strerror})",
            "give the authorities as PEM",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _first(file: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(Path(file).read_bytes())
    except (OSError, ValueError) as error:
        raise WrongUseError(
            f"the certificate {file} cannot be read ({type(error).__name__})", "give it as PEM"
        ) from None
