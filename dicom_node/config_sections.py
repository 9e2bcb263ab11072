"""The sections of the configuration. Every setting is described where it is declared."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, model_validator

from dicom_node.config_values import AeTitle, AuditPatient, Plaintext, Port, Section

MOST_RECEIVERS = 16
AUTO_RECEIVERS = 4


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: containers and services may be given fewer
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class NodeSection(Section):
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
    receivers: int = Field(
        1,
        ge=0,
        le=MOST_RECEIVERS,
        description="processes that receive, behind one port; 0: one for each core, at most 4",
    )

    @property
    def receiver_count(self) -> int:
        """How many processes receive."""
        return self.receivers or min(cores(), AUTO_RECEIVERS)


class TlsSection(Section):
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


class StudySection(Section):
    """When a study is taken as complete."""

    quiet_s: float = Field(
        10, ge=0, description="needed series complete and nothing new for this long: start"
    )
    patience_s: float = Field(
        1800,
        ge=0,
        description="needed series missing and nothing new for this long: not analysable",
    )


class ModelSection(Section):
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
    synthesis: bool = Field(
        True,
        description="compare with synthesised normal tissue, where the release can (a map, a page, "
        "a number in the report)",
    )
    case_limit_s: float = Field(
        600, gt=0, description="an analysis that takes longer is ended and counts as an attempt"
    )


class DriftSection(Section):
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


class DeliverySection(Section):
    """How long results are kept trying."""

    give_up_h: float = Field(72, gt=0, description="a destination down for longer: delivery failed")
    commitment_wait_h: float = Field(
        24, gt=0, description="storage commitment not answered for this long: asked for again"
    )


class RetentionSection(Section):
    """How long received images and results are kept (docs/retention.md). 0: for ever."""

    enabled: bool = Field(True, description="delete by these rules; false: nothing is deleted")
    images_days: float = Field(90, ge=0, description="images of studies that were analysed")
    unanalysed_days: float = Field(
        30, ge=0, description="images of studies that could not be analysed, or failed"
    )
    not_ours_days: float = Field(
        7, ge=0, description="images that are no business of this node: not MR, not a prostate"
    )
    held_days: float = Field(0, ge=0, description="images of studies held for a person to look at")
    canary_days: float = Field(1, ge=0, description="images of the node's own test studies")
    results_days: float = Field(
        365, ge=0, description="result objects; never before the images of their study"
    )
    least_days: float = Field(
        3, ge=0, description="nothing younger goes, however short of room the disk is"
    )
    floor_gib: float = Field(
        50, ge=0, description="less free space: the oldest images go earlier; 0: they never do"
    )
    floor_percent: float = Field(
        10, ge=0, le=50, description="the same in percent of the disk; the smaller of both counts"
    )
    ceiling_gib: float = Field(
        0, ge=0, description="more images stored: the oldest go earlier; 0: no ceiling"
    )


class AuditSection(Section):
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


class WebSection(Section):
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
