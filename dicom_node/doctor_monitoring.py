"""What `doctor` says of processes, alarms and the canary: (name, state, found, advice)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from dicom_node.config import NodeConfig
from dicom_node.domain.alarm import ALARMS
from dicom_node.domain.canary import RunState
from dicom_node.domain.roles import NEEDED, alive
from dicom_node.errors import NodeError
from dicom_node.flow.peers import all_peers
from dicom_node.net.notify import read_secret
from dicom_node.net.pem import verifying_context
from dicom_node.registry.choose import database_exists
from dicom_node.store.shared_clock import clock_of
from dicom_node.store.store import Store

Found = tuple[str, str, str, str]


def monitoring(config: NodeConfig) -> Iterator[Found]:
    """Look at everything that watches the node."""
    yield from _channels(config)
    if not database_exists(config):
        return
    store = Store(config.database_url, clock=clock_of(config.database_url, lasting=False))
    try:
        yield from _processes(store)
        yield from _alarms(store)
        yield from _canary(store, config)
    finally:
        store.close()


def _processes(store: Store) -> Iterator[Found]:
    lives = alive(store.processes(), store.clock.now_s())
    if not any(lives.values()):
        yield "processes", "note", "none is seen", "start the node: dicom-node serve"
        return
    lacking = [role for role in NEEDED if not lives[role]]
    told = ", ".join(f"{n} {role}" for role, n in lives.items() if n)
    if lacking:
        advice = f"no {' and no '.join(lacking)} is seen: see its log"
        yield "processes", "wrong", told, advice
    else:
        yield "processes", "ok", told, ""


def _alarms(store: Store) -> Iterator[Found]:
    for row in store.alarms(going_on=True):
        about = f" ({row.subject})" if row.subject else ""
        text = ALARMS[row.code]
        yield "alarm", "note", f"{text.words}{about}: {row.found}", text.advice


def _channels(config: NodeConfig) -> Iterator[Found]:
    settings = config.alarms
    if not settings.channels:
        yield (
            "alarms", "note", "nobody is told", "set alarms.webhook_url or alarms.mail_to",
        )  # fmt: skip
        return
    problem = ""
    try:
        verifying_context(settings.ca)
        for name in ("webhook_secret_file", "mail_password_file"):
            if file := getattr(settings, name):
                read_secret(file, f"alarms.{name}")
                if stat.S_IMODE(Path(file).stat().st_mode) & 0o077:
                    problem = f"chmod 600 {file}"
    except NodeError as error:
        problem = str(error)
    told = f"told by {' and '.join(settings.channels)}"
    yield "alarms", "wrong" if problem else "ok", told, problem or "try: dicom-node alarms test"


def _canary(store: Store, config: NodeConfig) -> Iterator[Found]:
    settings = config.canary
    receivers = [e.peer.name for e in all_peers(store, config) if e.peer.receives_results]
    if settings.to and settings.to not in receivers:
        advice = "name a peer that receives results, or leave canary.to empty"
        yield "canary", "wrong", f"{settings.to} receives no results", advice
        return
    last = store.canary_last()
    if last is None:
        off = "set canary.every_h, or try: dicom-node canary run"
        yield "canary", "note", "none was sent yet", "" if settings.every_h else off
        return
    passed = last.state is RunState.PASSED
    yield (
        "canary", "ok" if passed else "wrong", last.message,
        "" if passed else "what stopped it stops studies of patients too",
    )  # fmt: skip
