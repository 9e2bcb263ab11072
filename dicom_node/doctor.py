"""`doctor`: looks at an installation and says, line by line, what is right and what to do."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.config import NO_CERTIFICATE, NodeConfig, load_config
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    from dicom_node.registry.shelf import RunnableRelease

DISK_FLOOR_GIB = 5.0
CERTIFICATE_DAYS = 30
AUDIT_BACKLOG = 1000


@dataclass(frozen=True)
class Check:
    """One line of the report. ``state`` is ok, note or wrong."""

    name: str
    state: str
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the line as plain values."""
        return asdict(self)


def examine(config_file: Path) -> list[Check]:
    """Run every check; the configuration comes first, as the rest depends on it."""
    try:
        config = load_config(config_file)
    except NodeError as error:
        return [Check("configuration", "wrong", error.message, error.advice)]
    checks = [Check("configuration", "ok", str(config_file))]
    for check in _CHECKS:
        checks += _guarded(check, config)
    return checks


def _guarded(check: Callable[[NodeConfig], Iterator[Check]], config: NodeConfig) -> list[Check]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return list(check(config))
    except NodeError as error:
        return [Check(name, "wrong", error.message, error.advice)]
    except OSError as error:
        return [Check(name, "wrong", str(error), "check the path and its rights")]


def _data_folder(config: NodeConfig) -> Iterator[Check]:
    folder = config.node.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = os.access(existing, os.W_OK | os.X_OK)
    yield Check(
        "data folder",
        "ok" if writable else "wrong",
        str(folder),
        "" if writable else f"give this user the right to write in {existing}",
    )


def _disk(config: NodeConfig) -> Iterator[Check]:
    folder = config.node.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    low = free_gib < DISK_FLOOR_GIB
    advice = f"free some space: below {DISK_FLOOR_GIB:g} GiB studies may be refused" if low else ""
    yield Check("disk", "wrong" if low else "ok", f"{free_gib:.0f} GiB free", advice)


def _storage(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.flow.health import TROUBLES, storage_state

    if config.node.data_dir.exists():
        trouble = storage_state(config.node.data_dir).trouble
        if trouble is None:
            yield Check("storage", "ok", "takes what is received")
        else:
            yield Check("storage", "wrong", TROUBLES[trouble].message, TROUBLES[trouble].advice)


def _retention(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.clock import SystemClock
    from dicom_node.flow.health import disk_of
    from dicom_node.flow.retention import pressure_of
    from dicom_node.registry.choose import database_exists
    from dicom_node.store.store import Store

    if not config.retention.enabled:
        yield Check(
            "retention", "note", "nothing is deleted", "set retention.enabled, or watch the disk"
        )
        return
    if not database_exists(config):
        return
    store = Store(config.database_url, clock=SystemClock())
    try:
        short = pressure_of(store, config, disk_of(config.node.data_dir)).words
    finally:
        store.close()
    yield Check(
        "retention", "note" if short else "ok", short or "the disk has room",
        "the oldest images go earlier than their age; see dicom-node retention plan, and "
        "enlarge the disk or lower the days" if short else "",
    )  # fmt: skip


def _database(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.clock import SystemClock
    from dicom_node.store.engine import describe_sqlite
    from dicom_node.store.store import Store

    if not config.node.database and not (config.node.data_dir / "node.sqlite3").exists():
        yield Check("database", "note", "not made yet", "it is made by the first start")
    else:
        store = Store(config.database_url, clock=SystemClock())
        counts = store.status()["revisions"]
        store.close()
        yield Check("database", "ok", f"{sum(counts.values())} study revisions")
    if not config.node.database:
        yield Check("sqlite", "ok", describe_sqlite())


def _sharing(config: NodeConfig) -> Iterator[Check]:
    """Look at what the parts of a node on several hosts rely on."""
    from dicom_node.sharing import file_system_of
    from dicom_node.store.shared_clock import SKEW_TOLD_S, DatabaseClock

    if not config.shared:
        return
    clock = DatabaseClock(config.database_url)
    clock.stop()
    off = abs(clock.ahead_s) > SKEW_TOLD_S
    yield Check(
        "clock", "note" if off else "ok", f"{-clock.ahead_s:+.1f} s from the database's",
        "the node takes the database's time; let both hosts follow a time server" if off else "",
    )  # fmt: skip
    system = file_system_of(config.node.data_dir)
    if system is None or system.local:
        kind = "unknown" if system is None else system.kind
        yield Check("shared folder", "note", f"{kind}: this host alone has it",
                    "fine on one host; several need a file system that they share")  # fmt: skip
        return
    yield Check(
        "shared folder", "ok" if system.holds_locks else "wrong", system.kind,
        "" if system.holds_locks else "use NFS 4.1 or CephFS: hosts must see each other's locks",
    )  # fmt: skip


def _audit(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.clock import SystemClock
    from dicom_node.net.syslog import tls_context
    from dicom_node.store.store import Store

    if not config.audit.syslog_host:
        advice = "set audit.syslog_host: a copy elsewhere shows what was changed here"
        yield Check("audit trail", "note", "not forwarded", advice)
        return
    tls_context(config.audit)
    waiting = 0
    if config.node.database or (config.node.data_dir / "node.sqlite3").exists():
        store = Store(config.database_url, clock=SystemClock())
        waiting = store.audit_backlog()
        store.close()
    late = waiting > AUDIT_BACKLOG
    yield Check(
        "audit trail", "wrong" if late else "ok",
        f"{waiting} records wait for {config.audit.syslog_host}",
        "see that the repository runs, and the log of the delivery process" if late else "",
    )  # fmt: skip


def _ports(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.net.listening import is_loopback, listeners

    opened = listeners(config)
    wanted = [
        ("TLS port" if one.context else "DICOM port", one.address, one.port) for one in opened
    ]
    if config.web.enabled:
        wanted.append(("web port", config.web.bind, config.web.port))
    for name, address, port in wanted:
        try:
            with socket.create_server((address, port)):
                yield Check(name, "ok", f"{address}:{port} is free")
        except OSError as error:
            yield Check(
                name, "note", f"{address}:{port}: {error.strerror}",
                "fine where this node is running; else choose another port",
            )  # fmt: skip
    for one in opened:
        if one.context is None and not is_loopback(one.address):
            yield Check(
                "plain DICOM", "note", f"{one.address}: images and names can be read on the way",
                "use TLS where the peers can: see [tls] and node.plaintext",
            )  # fmt: skip


def _tls(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.clock import SystemClock
    from dicom_node.net.tls import client_context, own_certificate

    if not config.tls.has_certificate:
        return
    client_context(config.tls)
    ends_s = ssl.cert_time_to_seconds(own_certificate(config.tls)["notAfter"])
    left_days = (ends_s - SystemClock().now_s()) / 86400
    soon = left_days < CERTIFICATE_DAYS
    yield Check(
        "certificate", "wrong" if soon else "ok", f"valid for {left_days:.0f} more days",
        "have a new certificate made, then restart the node" if soon else "",
    )  # fmt: skip
    open_to_others = Path(config.tls.key).stat().st_mode & 0o077
    yield Check(
        "private key", "wrong" if open_to_others else "ok", config.tls.key,
        f"chmod 600 {config.tls.key}" if open_to_others else "",
    )  # fmt: skip


def _web_console(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.clock import SystemClock
    from dicom_node.store.store import Store
    from dicom_node.web.listening import check_listening

    if not config.web.enabled:
        return
    check_listening(config)
    accounts = []
    if config.node.database or (config.node.data_dir / "node.sqlite3").exists():
        store = Store(config.database_url, clock=SystemClock())
        accounts = store.accounts()
        store.close()
    yield Check(
        "web console", "ok" if accounts else "note",
        f"{len(accounts)} accounts" if accounts else "nobody can log in",
        "" if accounts else "make an account: dicom-node users add NAME --role admin",
    )  # fmt: skip


def _peers(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.clock import SystemClock
    from dicom_node.flow.peers import all_peers
    from dicom_node.store.store import Store

    peers = list(config.peers)
    if config.node.database or (config.node.data_dir / "node.sqlite3").exists():
        store = Store(config.database_url, clock=SystemClock())
        peers = [entry.peer for entry in all_peers(store, config)]
        store.close()
    for peer in peers:
        if peer.tls and not config.tls.has_certificate:
            yield Check("TLS", "wrong", f"peer {peer.name} uses TLS", NO_CERTIFICATE)
    senders = [peer.name for peer in peers if peer.may_send]
    receivers = [peer.name for peer in peers if peer.receives_results]
    yield Check(
        "senders", "ok" if senders else "wrong", ", ".join(senders) or "no peer may send",
        "" if senders else "add one: dicom-node peers add NAME --ae-title AE --host HOST",
    )  # fmt: skip
    yield Check(
        "destinations", "ok" if receivers else "wrong",
        ", ".join(receivers) or "no peer receives results",
        "" if receivers else "add one: dicom-node peers add ... --port PORT --receives-results",
    )  # fmt: skip


def _decoders(_config: NodeConfig) -> Iterator[Check]:
    for package, what in (("gdcm", "JPEG lossless, JPEG 2000"), ("jpeg_ls", "JPEG-LS")):
        try:
            importlib.import_module(package)
        except ImportError:
            yield Check(f"decoder {package}", "wrong", f"missing ({what})", "install again")
        else:
            yield Check(f"decoder {package}", "ok", what)


def _model(config: NodeConfig) -> Iterator[Check]:
    from ai_core import load_release
    from ai_core.errors import CoreError
    from dicom_node.errors import RegistryError

    device, precision = config.model.device, config.model.precision
    for name, runnable in _releases_in_use(config):
        try:
            release = runnable()
            info = load_release(release.folder, device, precision, release.sha256).info
        except (CoreError, RegistryError) as error:
            yield Check(name, "wrong", str(error.args[0]), error.advice)
        else:
            yield Check(name, "ok", f"{info.name} {info.version}, SHA-256 {info.sha256[:12]}")


def _releases_in_use(config: NodeConfig) -> list[tuple[str, Callable[[], RunnableRelease]]]:
    """Return what runs on studies and in the shadow, each with the check of its signature."""
    from dicom_node.clock import SystemClock
    from dicom_node.domain.states import ReleaseState
    from dicom_node.registry.choose import database_exists, release_without_registry
    from dicom_node.registry.shelf import runnable
    from dicom_node.store.store import Store

    pinned = bool(config.model.release) or not database_exists(config)
    found: list[tuple[str, Callable[[], RunnableRelease]]] = []
    if pinned:
        found.append(("model", lambda: release_without_registry(config)))
    if database_exists(config):
        store = Store(config.database_url, clock=SystemClock())
        for row in store.releases():
            if row.state is ReleaseState.ACTIVE and not pinned:
                found.append(("model", partial(runnable, config, row)))
            elif row.state is ReleaseState.SHADOW:
                found.append(("model in the shadow", partial(runnable, config, row)))
        store.close()
    return found


def _drift(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.clock import SystemClock
    from dicom_node.registry.choose import database_exists
    from dicom_node.store.store import Store

    if not database_exists(config):
        return
    store = Store(config.database_url, clock=SystemClock())
    try:
        rows = store.scanners()
    finally:
        store.close()
    for row in rows:
        if row.alarms:
            yield Check(
                "drift", "note", f"{row.scanner}: {', '.join(sorted(row.alarms))}",
                "what changed there? see dicom-node models drift",
            )  # fmt: skip


def _monitoring(config: NodeConfig) -> Iterator[Check]:
    from dicom_node.doctor_monitoring import monitoring

    for found in monitoring(config):
        yield Check(*found)


_CHECKS: tuple[Callable[[NodeConfig], Iterator[Check]], ...] = (
    _data_folder, _disk, _storage, _database, _retention, _sharing, _audit, _ports, _tls,
    _web_console, _peers, _decoders, _model, _drift, _monitoring,
)  # fmt: skip
