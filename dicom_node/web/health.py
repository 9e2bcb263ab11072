"""What is well and what is not, from what can be asked in a moment; `doctor` looks deeper."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node.errors import NodeError
from dicom_node.flow.health import Disk
from dicom_node.flow.peers import all_peers
from dicom_node.flow.retention import pressure_of
from dicom_node.net.tls import own_certificate
from dicom_node.web.console import Console

DISK_LOW_GIB = 5.0
CERTIFICATE_DAYS = 30
WAITS_LONG_S = 3600.0
AUDIT_BACKLOG = 1000


@dataclass(frozen=True)
class Sign:
    """One line of the health card. ``state``: ok, note or wrong."""

    name: str
    state: str
    found: str
    advice: str = ""


def signs(console: Console, status: Mapping[str, Any]) -> list[Sign]:
    """Return everything that can be told of the health of the node."""
    parts = (_disk(console), _peers(console), _waits(status), _audit(console, status),
             _certificate(console))  # fmt: skip
    return [sign for part in parts for sign in part]


def _disk(console: Console) -> Iterator[Sign]:
    disk = shutil.disk_usage(console.config.node.data_dir)
    free_gib = disk.free / 2**30
    low = free_gib < DISK_LOW_GIB
    short = pressure_of(console.store, console.config, Disk(disk.free, disk.total, False)).words
    early = f"{short}: the oldest images go earlier than their age" if short else ""
    yield Sign(
        "disk", "wrong" if low else "note" if short else "ok",
        f"{free_gib:.0f} of {disk.total / 2**30:.0f} GiB free",
        "free some space: studies may be refused" if low else early,
    )  # fmt: skip


def _peers(console: Console) -> Iterator[Sign]:
    peers = [entry.peer for entry in all_peers(console.store, console.config)]
    for what, there in (
        ("senders", any(peer.may_send for peer in peers)),
        ("destinations", any(peer.receives_results for peer in peers)),
    ):
        if not there:
            yield Sign(what, "wrong", "none", "add one under AE titles")


def _waits(status: Mapping[str, Any]) -> Iterator[Sign]:
    named = (("revision", "oldest study in work"), ("delivery", "oldest delivery"))
    for key, name in named:
        waits_s = status["oldest_unfinished_s"][key]
        if waits_s is not None and waits_s > WAITS_LONG_S:
            yield Sign(
                name, "note", f"waits for {waits_s / 3600:.1f} h",
                "look at the studies in work, and at the destinations",
            )  # fmt: skip


def _audit(console: Console, status: Mapping[str, Any]) -> Iterator[Sign]:
    if not console.config.audit.syslog_host:
        return
    waiting = status["audit"]["not_forwarded"]
    late = waiting > AUDIT_BACKLOG
    yield Sign(
        "audit trail", "wrong" if late else "ok", f"{waiting} records not forwarded",
        "see that the repository runs" if late else "",
    )  # fmt: skip


def _certificate(console: Console) -> Iterator[Sign]:
    if not console.config.tls.has_certificate:
        return
    try:
        ends_s = ssl.cert_time_to_seconds(own_certificate(console.config.tls)["notAfter"])
    except (NodeError, OSError) as error:
        yield Sign("certificate", "wrong", "cannot be read", str(error))
        return
    days = (ends_s - console.clock.now_s()) / 86_400
    soon = days < CERTIFICATE_DAYS
    yield Sign(
        "certificate", "wrong" if soon else "ok", f"valid for {days:.0f} more days",
        "have a new one made, then restart the node" if soon else "",
    )  # fmt: skip
