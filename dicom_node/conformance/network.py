"""Ports, peers and settings of a configuration: what a firewall and a PACS must know."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel

from dicom_node.config import NodeConfig, PeerConfig, Plaintext
from dicom_node.conformance.document import Cell, Table

_PROTOCOLS = {
    "node": ("DICOM", "peers that may send", "associations of peers (7.2.2)"),
    "tls": ("DICOM over TLS", "peers that may send", "associations of peers (7.2.2)"),
    "web": ("HTTP", "browsers of administrators", "web console"),
}
"""Protocol, other side and purpose of the sections of the configuration that open a port."""


DICOM_PORTS = frozenset({"node", "tls"})
"""Sections whose port speaks DICOM."""


@dataclass(frozen=True)
class Listener:
    """A section of the configuration that opens a port."""

    section: str
    address: str
    port: int
    open: bool


def listeners(config: NodeConfig) -> Iterator[Listener]:
    """Return every port of the configuration, from each section that has one."""
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, BaseModel) and {"bind", "port"} <= type(section).model_fields.keys():
            address = section.bind or config.node.bind  # type: ignore[attr-defined]
            is_open = getattr(section, "enabled", True)
            if name == "node":
                is_open = config.node.plaintext is not Plaintext.OFF
            yield Listener(name, address, section.port, is_open)  # type: ignore[attr-defined]


def firewall(config: NodeConfig, peers: Sequence[PeerConfig]) -> Table:
    """Return every connection that must be let through, in both directions."""
    rows: list[tuple[Cell, ...]] = []
    senders = ", ".join(_sources(peer) for peer in peers if peer.may_send)
    for listener in listeners(config):
        if not listener.open:
            continue
        protocol, others, purpose = _protocol(config, listener.section)
        if listener.section in DICOM_PORTS and senders:
            others = senders
        rows.append(
            ("in", others, f"{listener.address}:{_port(listener.port)}", f"{protocol}/TCP", purpose)
        )
    for peer in peers:
        if peer.port:
            purpose = "associations of this node (7.2.1)"
            protocol = "DICOM over TLS" if peer.tls else "DICOM"
            to = f"{peer.host}:{peer.port}"
            rows.append(("out", "this node", to, f"{protocol}/TCP", purpose))
    rows += [*_outgoing(config), *_database(config.node.database)]
    columns = ("direction", "from", "to", "protocol", "purpose")
    return Table("firewall", "Firewall sheet", columns, tuple(rows))


def _protocol(config: NodeConfig, section: str) -> tuple[str, str, str]:
    if section == "web" and config.web.certificate:
        return ("HTTPS", "browsers of administrators", "web console")
    words = inspect.getdoc(type(getattr(config, section))) or section
    return _PROTOCOLS.get(section, (section.upper(), "peers", words.splitlines()[0]))


def _port(port: int) -> str:
    return str(port) if port else "any free port, printed at start"


def _sources(peer: PeerConfig) -> str:
    return ", ".join(peer.from_) or peer.host


def _outgoing(config: NodeConfig) -> Iterator[tuple[Cell, ...]]:
    """Yield the services that settings name by host and port (``x_host``, ``x_port``)."""
    for name in type(config).model_fields:
        section = getattr(config, name)
        keys = type(section).model_fields if isinstance(section, BaseModel) else {}
        for key, info in keys.items():
            port = f"{key.removesuffix('host')}port"
            if key.endswith("_host") and port in keys and getattr(section, key):
                where = f"{getattr(section, key)}:{getattr(section, port)}"
                purpose = (info.description or key).partition(";")[0]
                yield ("out", "this node", where, "TCP", purpose)


def _database(url: str) -> list[tuple[Cell, ...]]:
    """Return the way to a database on another machine; its password is not looked at."""
    parts = urlsplit(url)
    if not parts.hostname:
        return []
    where = f"{parts.hostname}:{parts.port or 5432}"
    return [("out", "this node", where, f"{parts.scheme.partition('+')[0]}/TCP", "database")]


def ae_titles(config: NodeConfig, peers: Sequence[PeerConfig]) -> Table:
    """Return the AE titles of this node and of the peers it knows, with what each may do."""
    open_here = [
        f"{one.address}:{_port(one.port)}" + (" (TLS)" if one.section == "tls" else "")
        for one in listeners(config)
        if one.open and one.section in DICOM_PORTS
    ]
    rows: list[tuple[Cell, ...]] = [
        ("this node", config.node.ae_title, ", ".join(open_here), "", "SCP and SCU", "")
    ]
    for peer in peers:
        does = (("sends", peer.may_send), ("gets results", peer.receives_results))
        rows.append(
            (
                peer.name,
                peer.ae_title,
                f"{peer.host}:{peer.port}" if peer.port else peer.host,
                _sources(peer) if peer.may_send else "",
                ", ".join(word for word, applies in does if applies),
                ", ".join(peer.result_kinds) if peer.receives_results else "",
            )
        )
    columns = ("name", "AE title", "address", "sends from", "does", "gets")
    return Table("ae_titles", "AE titles", columns, tuple(rows))


def settings(config: NodeConfig) -> Table:
    """Return every setting with its value; paths and URLs are left out."""
    rows: list[tuple[Cell, ...]] = []
    for name in type(config).model_fields:
        section = getattr(config, name)
        if not isinstance(section, BaseModel):
            continue
        for key, info in type(section).model_fields.items():
            value = _shown(getattr(section, key))
            rows.append((f"{name}.{key}", value, info.description or ""))
    return Table("settings", "Settings", ("setting", "value", "meaning"), tuple(rows))


def _shown(value: object) -> str:
    """Return a value in words; of a URL only the kind, as it may hold a password."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value)) or "(empty)"
    text = str(value)
    if "://" in text:
        return f"({urlsplit(text).scheme.partition('+')[0]})"
    if isinstance(value, Path) or text.startswith("/"):
        return "(a path)"
    return text or "(empty)"
