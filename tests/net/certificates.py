"""Certificates for the tests, made where they are used: an authority and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicom_node.config import TlsSection

_DAY = datetime.timedelta(days=1)
USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True)
class Issued:
    """A certificate and its key as PEM files."""

    certificate: Path
    key: Path
    x509: x509.Certificate

    @property
    def sha256(self) -> str:
        return self.x509.fingerprint(hashes.SHA256()).hex()


class Authority:
    """Signs certificates for hosts, addresses and common names; keeps everything in a folder."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        usage = x509.BasicConstraints(ca=True, path_length=0)
        signed = (
            self._builder(self._name, self._key.public_key(), -1, 30)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, from_day: int, to_day: int
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() + from_day * _DAY)
            .not_valid_after(_now() + to_day * _DAY)
        )

    def issue(
        self,
        name: str,
        *alternative: str,
        days: tuple[int, int] = (-1, 365),
        uses: tuple[x509.ObjectIdentifier, ...] = USES,
    ) -> Issued:
        """Sign a certificate; ``alternative`` names stand beside the common name ``name``."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(name), key.public_key(), *days)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if alternative:
            names = x509.SubjectAlternativeName([_general_name(one) for one in alternative])
            builder = builder.add_extension(names, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        stem = f"{name.replace(' ', '-')}-{signed.serial_number:x}"
        files = (self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        files[1].chmod(0o600)
        return Issued(*files, signed)

    def revoke(self, *issued: Issued) -> Path:
        """Write the list of revoked certificates."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(_now() - _DAY)
            .next_update(_now() + 30 * _DAY)
        )
        for one in issued:
            revoked = x509.RevokedCertificateBuilder().serial_number(one.x509.serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(_now()).build())
        file = self._folder / "crl.pem"
        signed = builder.sign(self._key, hashes.SHA256())
        file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return file

    def section(self, issued: Issued, **settings: object) -> TlsSection:
        """The [tls] table of a node that has ``issued`` and trusts this authority."""
        files = {"certificate": str(issued.certificate), "key": str(issued.key)}
        return TlsSection.model_validate({**files, "ca": str(self.file), **settings})


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
