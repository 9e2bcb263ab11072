"""The configuration: one TOML file, read once at the edge into one frozen object.

Unknown keys are errors. Every setting is described where it is declared
(`dicom_node.config_sections`); ``dicom-node init`` writes these descriptions as comments
(`dicom_node.config_text`).
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError, model_validator

from dicom_node.config_monitoring import (
    AlarmsSection,
    CanarySection,
    MailSecurity,
    MetricsSection,
)
from dicom_node.config_sections import (
    AuditSection,
    DeliverySection,
    DriftSection,
    ModelSection,
    NodeSection,
    RetentionSection,
    StudySection,
    TlsSection,
    WebSection,
)
from dicom_node.config_values import (
    AeTitle,
    AuditPatient,
    CertificateName,
    Network,
    Plaintext,
    Port,
    Section,
)
from dicom_node.domain.confirmation import Check
from dicom_node.domain.profile import DEFAULT_KINDS, ResultKind
from dicom_node.errors import WrongUseError

__all__ = [
    "NO_CERTIFICATE",
    "AlarmsSection",
    "AuditPatient",
    "AuditSection",
    "DeliverySection",
    "MailSecurity",
    "NodeConfig",
    "NodeSection",
    "PeerConfig",
    "Plaintext",
    "TlsSection",
    "load_config",
]

NO_CERTIFICATE = "set tls.certificate, tls.key and tls.ca"

_S = TypeVar("_S", bound=Section)


class PeerConfig(Section):
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


class NodeConfig(Section):
    """The whole configuration."""

    node: NodeSection = NodeSection()
    tls: TlsSection = TlsSection()
    study: StudySection = StudySection()
    model: ModelSection = ModelSection()
    drift: DriftSection = DriftSection()
    delivery: DeliverySection = DeliverySection()
    retention: RetentionSection = RetentionSection()
    audit: AuditSection = AuditSection()
    web: WebSection = WebSection()
    metrics: MetricsSection = MetricsSection()
    alarms: AlarmsSection = AlarmsSection()
    canary: CanarySection = CanarySection()
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

    @property
    def shared(self) -> bool:
        """Whether other hosts can share database and data folder (docs/deployment.md)."""
        return not self.database_url.startswith("sqlite")

    def analysis_digest(self) -> str:
        """SHA-256 of the settings that change what a result says (never AE titles or ports).

        Synthesis counts where it is off: results without it stay what they were before it came.
        """
        counted = {"device", "precision"} | (set() if self.model.synthesis else {"synthesis"})
        settings = self.model.model_dump_json(include=counted)
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
    alarms = _resolve(config.alarms, folder, ("webhook_secret_file", "mail_password_file", "ca"))
    found = {
        "node": node, "model": model, "tls": tls, "audit": audit, "web": web, "alarms": alarms,
    }  # fmt: skip
    return config.model_copy(update=found)


def _resolve(section: _S, folder: Path, names: tuple[str, ...]) -> _S:
    """Return a section whose file names are paths from the folder of the configuration."""
    files = {
        name: str(folder / Path(value).expanduser())
        for name in names
        if (value := getattr(section, name))
    }
    return section.model_copy(update=files)
