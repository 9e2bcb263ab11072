"""The configuration: one TOML file, read once at the edge into one frozen object.

Unknown keys are errors. Every setting is described where it is declared; ``dicom-node init``
writes these descriptions as comments (`dicom_node.config_text`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicom_node.domain.confirmation import Check
from dicom_node.domain.profile import DEFAULT_KINDS, ResultKind
from dicom_node.errors import WrongUseError

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


NO_CERTIFICATE = "set tls.certificate, tls.key and tls.ca"

AeTitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
CertificateName = Annotated[str, AfterValidator(_certificate)]
Port = Annotated[int, Field(ge=0, le=65535)]


class AuditPatient(StrEnum):
    """How audit records name the patient."""

    ID = "id"
    NONE = "none"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


_S = TypeVar("_S", bound=_Section)


class Plaintext(StrEnum):
    """Where DICOM without TLS is spoken."""

    OFF = "off"
    LOOPBACK = "loopback"
    NETWORK = "network"


class NodeSection(_Section):
    """Who the node is on the network, and where it keeps its data."""

    ae_title: AeTitle = Field("PROSTATE_AI", description="AE title of this node")
    bind: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: Port = Field(11112, description="DICOM port; 0: any free port, printed at start")
    plaintext: Plaintext = Field(
        Plaintext.LOOPBACK,
        description="DICOM without TLS: off, loopback, or network (readable on the way)",
    )
    data_dir: Path = Field(Path("node-data"), description="received images, results, database")
    database: str = Field(
        "", description="empty: SQLite in data_dir; else a SQLAlchemy URL (PostgreSQL)"
    )


class TlsSection(_Section):
    """DICOM over TLS (PS3.15 B.12), and the certificate that the node shows to its peers."""

    enabled: bool = Field(False, description="open a port for DICOM over TLS")
    bind: str = Field("", description="address to listen on; empty: node.bind")
    port: Port = Field(2762, description="DICOM port with TLS; 0: any free port, printed at start")
    certificate: str = Field("", description="PEM file: certificate of this node, then its chain")
    key: str = Field("", description="PEM file: its private key, readable by the node alone")
    ca: str = Field("", description="PEM file: authorities that sign the certificates of peers")
    crl: str = Field("", description="PEM file: revoked certificates; empty: none are looked up")

    @model_validator(mode="after")
    def _files_go_together(self) -> TlsSection:
        named = [bool(name) for name in (self.certificate, self.key, self.ca)]
        if any(named) and not all(named):
            raise ValueError("certificate, key and ca go together: set all three")
        if self.enabled and not any(named):
            raise ValueError("enabled, but no certificate: set certificate, key and ca")
        return self

    @property
    def has_certificate(self) -> bool:
        """Whether the node can speak TLS at all."""
        return bool(self.certificate)


class StudySection(_Section):
    """When a study is taken as complete."""

    quiet_s: float = Field(
        10, ge=0, description="needed series complete and nothing new for this long: start"
    )
    patience_s: float = Field(
        1800,
        ge=0,
        description="needed series missing and nothing new for this long: not analysable",
    )


class ModelSection(_Section):
    """Which weights run, and where."""

    release: str = Field(
        "", description="folder of a signed release for every study; empty: as models list says"
    )
    trusted_keys: str = Field(
        "", description="folder of public keys that sign releases; empty: keys/trusted in data_dir"
    )
    device: str = Field(
        "auto", pattern="^(auto|cpu|cuda(:[0-9]+)?)$", description="auto, cpu or cuda"
    )
    precision: str = Field(
        "auto",
        pattern="^(auto|fp32|bf16)$",
        description="of the networks: auto (bf16 on CUDA, fp32 elsewhere), fp32, or bf16",
    )
    case_limit_s: float = Field(
        600, gt=0, description="an analysis that takes longer is ended and counts as an attempt"
    )


class DriftSection(_Section):
    """When the studies of a scanner count as changed (docs/models.md, Drift)."""

    reference_studies: int = Field(
        200, ge=20, le=5000, description="first studies of a scanner: what later ones are held to"
    )
    current_studies: int = Field(
        50, ge=10, le=5000, description="latest studies, which are compared with them"
    )
    least_studies: int = Field(
        30, ge=10, description="a figure with fewer values in a window is not judged"
    )
    psi: float = Field(
        0.25, ge=0, description="the least population stability index that is an alarm"
    )
    significance: float = Field(
        1e-5, gt=0, lt=1, description="chance of a false alarm in one look at one figure"
    )

    @model_validator(mode="after")
    def _windows_can_hold_enough(self) -> DriftSection:
        if self.least_studies > min(self.reference_studies, self.current_studies):
            raise ValueError("least_studies is more than a window holds")
        return self


class DeliverySection(_Section):
    """How long results are kept trying."""

    give_up_h: float = Field(72, gt=0, description="a destination down for longer: delivery failed")
    commitment_wait_h: float = Field(
        24, gt=0, description="storage commitment not answered for this long: asked for again"
    )


class AuditSection(_Section):
    """The audit trail, and where it is forwarded."""

    patient: AuditPatient = Field(
        AuditPatient.ID, description="id (PS3.15 demands it) or none: patient in audit records"
    )
    syslog_host: str = Field(
        "", description="audit record repository (syslog over TLS); empty: not forwarded"
    )
    syslog_port: Port = Field(6514, description="its port")
    syslog_ca: str = Field(
        "", description="certificates that sign the repository's; empty: those of the system"
    )
    syslog_certificate: str = Field(
        "", description="certificate of this node, where the repository asks for one"
    )
    syslog_key: str = Field("", description="private key of that certificate")


class WebSection(_Section):
    """The web console and its API."""

    enabled: bool = Field(True, description="serve the web console")
    bind: str = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8042, description="HTTP port; 0: any free port, printed at start")
    certificate: str = Field("", description="PEM file: certificate for HTTPS, then its chain")
    key: str = Field("", description="PEM file: its private key, readable by the node alone")
    plaintext: Plaintext = Field(
        Plaintext.LOOPBACK,
        description="HTTP without TLS: off, loopback, or network (passwords readable on the way)",
    )
    public_url: str = Field(
        "",
        pattern="^(https?://[^/ ]+/?)?$",
        description="address in the browser, where a proxy is before it: https://...",
    )
    idle_min: float = Field(30, gt=0, le=720, description="a session not used for this long ends")

    @model_validator(mode="after")
    def _certificate_and_key(self) -> WebSection:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together: set both")
        return self

    @property
    def address(self) -> str:
        """Where a browser finds the console."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = f"[{self.bind}]" if ":" in self.bind else self.bind
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether the browser speaks HTTPS, to the node or to a proxy before it."""
        return self.address.startswith("https://")


class PeerConfig(_Section):
    """A DICOM application that may send here, or receives results, or both."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="short name, unique")
    ae_title: AeTitle = Field(description="its AE title")
    host: str = Field(min_length=1, description="its host name or address")
    port: Port | None = Field(None, description="its DICOM port; needed only where it receives")
    may_send: bool = Field(True, description="its C-STORE and C-ECHO are accepted")
    receives_results: bool = Field(False, description="result objects go there")
    from_: tuple[Network, ...] = Field(
        (), alias="from", description="addresses it sends from (CIDR); empty: host"
    )
    objects: tuple[ResultKind, ...] = Field((), description="empty: the default set")
    tls: bool = Field(False, description="TLS alone, in both directions")
    certificate: tuple[CertificateName, ...] = Field(
        (), description="what its certificate may bear: names, sha256:FINGERPRINT; empty: host"
    )
    verify: Check = Field(
        Check.AUTO, description="how it confirms results: auto, commitment, query or off"
    )

    @model_validator(mode="after")
    def _port_where_it_receives(self) -> PeerConfig:
        if self.receives_results and not self.port:
            raise ValueError(f"peer '{self.name}' receives results: give its port")
        return self

    @property
    def identities(self) -> tuple[str, ...]:
        """What a certificate must bear one of to be this peer's."""
        return self.certificate or (self.host.lower(),)

    @property
    def result_kinds(self) -> tuple[ResultKind, ...]:
        """The kinds of object this peer gets, in sending order."""
        return self.objects or DEFAULT_KINDS


class NodeConfig(_Section):
    """The whole configuration."""

    node: NodeSection = NodeSection()
    tls: TlsSection = TlsSection()
    study: StudySection = StudySection()
    model: ModelSection = ModelSection()
    drift: DriftSection = DriftSection()
    delivery: DeliverySection = DeliverySection()
    audit: AuditSection = AuditSection()
    web: WebSection = WebSection()
    peers: tuple[PeerConfig, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> NodeConfig:
        names = [peer.name for peer in self.peers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"peer name used twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _tls_has_a_certificate(self) -> NodeConfig:
        for peer in self.peers:
            if peer.tls and not self.tls.has_certificate:
                raise ValueError(f"peer '{peer.name}' uses TLS: {NO_CERTIFICATE}")
        return self

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.node.database or f"sqlite:///{self.node.data_dir / 'node.sqlite3'}"

    def analysis_digest(self) -> str:
        """SHA-256 of the settings that change what a result says (never AE titles or ports)."""
        settings = self.model.model_dump_json(include={"device", "precision"})
        return hashlib.sha256(settings.encode()).hexdigest()


def load_config(path: Path) -> NodeConfig:
    """Read and check a configuration file. Relative paths count from the file's folder.

    Raises:
        WrongUseError: the file cannot be read, is not TOML, or a setting is unknown or wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WrongUseError(
            f"no configuration at {path}", f"write one: dicom-node init {path}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUseError(
            f"cannot read {path}: {error}", "check the path and its rights"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise WrongUseError(f"{path} is not valid TOML: {error}", "mend that line") from None
    try:
        config = NodeConfig.model_validate(values)
    except ValidationError as error:
        raise WrongUseError(f"{path}: {_first_problem(error)}", "mend that setting") from None
    return _resolve_paths(config, path.resolve().parent)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting '{place}'"
    what = problem["msg"].removeprefix("Value error, ")
    return f"setting '{place}': {what}" if place else what


def _resolve_paths(config: NodeConfig, folder: Path) -> NodeConfig:
    node = config.node.model_copy(update={"data_dir": folder / config.node.data_dir.expanduser()})
    model = _resolve(config.model, folder, ("release", "trusted_keys"))
    tls = _resolve(config.tls, folder, ("certificate", "key", "ca", "crl"))
    audit = _resolve(config.audit, folder, ("syslog_ca", "syslog_certificate", "syslog_key"))
    web = _resolve(config.web, folder, ("certificate", "key"))
    found = {"node": node, "model": model, "tls": tls, "audit": audit, "web": web}
    return config.model_copy(update=found)


def _resolve(section: _S, folder: Path, names: tuple[str, ...]) -> _S:
    """Return a section whose file names are paths from the folder of the configuration."""
    files = {
        name: str(folder / Path(value).expanduser())
        for name in names
        if (value := getattr(section, name))
    }
    return section.model_copy(update=files)
