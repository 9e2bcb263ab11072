"""What the first page and the status of the API tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dicom_node.errors import NodeError
from dicom_node.flow.monitored import alarms_json, processes_json
from dicom_node.flow.peers import all_peers
from dicom_node.registry.switch import named_releases
from dicom_node.store.console_rows import SenderSeen, Throughput
from dicom_node.web.console import Console
from dicom_node.web.health import Sign, signs

DAY_S = 86_400.0
MAX_SHOWN = 50
"""So many senders and destinations are shown."""


@dataclass(frozen=True)
class ModelInUse:
    """A release and what it analyses. ``scope``: the studies; ``release``: its name."""

    scope: str
    release: str


@dataclass(frozen=True)
class DestinationState:
    """A destination and what waits for it."""

    name: str
    ae_title: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Overview:
    """The node at a glance."""

    status: dict[str, Any]
    storage: dict[str, Any]
    day: Throughput
    hour: Throughput
    senders: list[SenderSeen]
    destinations: list[DestinationState]
    models: list[ModelInUse]
    signs: list[Sign]
    refusals: list[dict[str, Any]]
    processes: list[dict[str, Any]]
    alarms: list[dict[str, Any]]


def overview(console: Console) -> Overview:
    """Ask the store what the first page shows; nothing in it grows with the years."""
    store, now_s = console.store, console.clock.now_s()
    status = store.status()
    peers = [entry.peer for entry in all_peers(store, console.config)]
    senders = sorted({peer.ae_title for peer in peers if peer.may_send})[:MAX_SHOWN]
    receivers = [peer for peer in peers if peer.receives_results][:MAX_SHOWN]
    counts = store.destination_counts([peer.name for peer in receivers])
    return Overview(
        status=status,
        storage=console.storage().as_dict(),
        day=store.throughput(now_s - DAY_S),
        hour=store.throughput(now_s - 3600),
        senders=store.senders_seen(senders),
        destinations=[
            DestinationState(peer.name, peer.ae_title, counts[peer.name]) for peer in receivers
        ],
        models=models_in_use(console),
        signs=signs(console, status),
        refusals=store.refusals(5),
        processes=processes_json(store.processes(), now_s)[:MAX_SHOWN],
        alarms=alarms_json(store.alarms(MAX_SHOWN, going_on=True)),
    )


def models_in_use(console: Console) -> list[ModelInUse]:
    """Return which release analyses what."""
    if console.config.model.release:
        return [ModelInUse("every study", f"{console.config.model.release} (configuration)")]
    try:
        names = {one.row.id: str(one) for one in named_releases(console.config, console.store)}
    except NodeError as error:
        return [ModelInUse("the registry", error.message)]
    return [ModelInUse(str(rule.scope), names[rule.release_id]) for rule in console.store.rules()][
        :MAX_SHOWN
    ]
