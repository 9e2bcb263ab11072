"""/metrics in the text format of Prometheus: read from the database and the disk at each scrape.

Any web process tells of the whole node, on whatever hosts it runs. Labels are bounded: states,
roles, reasons, releases, and peers and hosts that an administrator named. Test studies (canaries)
are in no counter.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response

from dicom_node import __version__
from dicom_node.domain.account import Role
from dicom_node.domain.alarm import AlarmCode
from dicom_node.domain.canary import RunState
from dicom_node.domain.roles import alive
from dicom_node.flow.health import Trouble
from dicom_node.flow.peers import all_peers
from dicom_node.flow.watch import certificates_days
from dicom_node.net.access import parse_address
from dicom_node.registry.switch import named_releases
from dicom_node.store import counters
from dicom_node.web.api.access import may
from dicom_node.web.console import Console, console_of

router = APIRouter(include_in_schema=False)
_BEARER = HTTPBearer(auto_error=False)
P = "dicom_node_"
MAX_PEERS = 100
"""So many destinations have series of their own."""


@router.get("/metrics")
def metrics(
    request: Request,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None,
) -> Response:
    """Answer a scrape, from an address of ``metrics.scrape_from`` or with a token."""
    console = console_of(request)
    if not _from_a_scraper(console, request):
        try:
            may(Role.VIEWER)(request, sent)
        except HTTPException as error:
            return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
    return Response(exposition(console), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _from_a_scraper(console: Console, request: Request) -> bool:
    try:
        address = parse_address(request.client.host if request.client else "")
    except ValueError:
        return False
    named = console.config.metrics.scrape_from
    return any(address in ipaddress.ip_network(block, strict=False) for block in named)


def exposition(console: Console) -> bytes:
    """Return all metrics as text.

    Raises:
        HTTPException: 503, the database or the disk does not answer.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(console))
    try:
        return generate_latest(registry)
    except Exception as error:
        raise HTTPException(503, f"no metrics ({type(error).__name__})") from error


class NodeCollector(Collector):
    """Reads the node at each scrape."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead: what there is follows from the scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        console = self._console
        status, counted = console.store.status(), console.store.counters()
        yield InfoMetricFamily(
            P + "build", "Version and AE title of the node",
            {"version": __version__, "ae_title": console.config.node.ae_title},
        )  # fmt: skip
        for part in (
            _held(status), _counted(counted), _waits(console), _deliveries(console, counted),
            _storage(console), _processes(console), _watched(console), _models(console),
            _certificates(console),
        ):  # fmt: skip
            yield from part


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(P + name, words, value)


def _labelled(
    name: str, words: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(P + name, words, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family


def _held(status: dict[str, Any]) -> Iterator[Metric]:
    held = status["held"]
    yield _gauge("held_studies", "Studies in the database", held["studies"])
    yield _gauge("held_instances", "Instances in the database", held["instances"])
    yield _gauge("held_bytes", "Bytes of the instances in the database", held["bytes"])
    states = [((state,), n) for state, n in status["revisions"].items()]
    yield _labelled("revisions", "Study revisions by state", ("state",), states)
    states = [((state,), n) for state, n in status["deliveries"].items()]
    yield _labelled("deliveries", "Objects to deliver by state", ("state",), states)
    late = status["audit"]["not_forwarded"]
    yield _gauge("audit_not_forwarded_records", "Audit records not forwarded", late)


def _counted(counted: counters.Counted) -> Iterator[Metric]:
    for name, key, words in (
        ("received_studies", counters.STUDIES_RECEIVED, "Studies received"),
        ("received_instances", counters.INSTANCES_RECEIVED, "Instances received"),
    ):
        yield CounterMetricFamily(P + name, words, counted.get((key, ""), 0))
    refused = CounterMetricFamily(P + "refused", "Refused requests by reason", labels=("reason",))
    for (name, label), n in sorted(counted.items()):
        if name == counters.REFUSED:
            refused.add_metric((label,), n)
    yield refused
    analyses = counted.get((counters.ANALYSES, ""), 0)
    classes = [
        (f"{bound:.1f}", counted.get((counters.ANALYSIS_LE, f"{bound:g}"), 0))
        for bound in counters.ANALYSIS_BOUNDS_S
    ]
    yield HistogramMetricFamily(
        P + "analysis_seconds", "Time from reading a study to its encoded results",
        [*classes, ("+Inf", analyses)], counted.get((counters.ANALYSIS_SECONDS, ""), 0),
    )  # fmt: skip


def _waits(console: Console) -> Iterator[Metric]:
    since_s = console.store.oldest_waiting_s()
    waits_s = 0.0 if since_s is None else max(0.0, console.clock.now_s() - since_s)
    yield _gauge("oldest_waiting_seconds", "Age of the oldest study not analysed", waits_s)


def _deliveries(console: Console, counted: counters.Counted) -> Iterator[Metric]:
    peers = [e.peer.name for e in all_peers(console.store, console.config)
             if e.peer.receives_results][:MAX_PEERS]  # fmt: skip
    now_s = console.clock.now_s()
    open_ = console.store.destination_counts(peers)
    yield _labelled(
        "peer_deliveries", "Objects not delivered yet, or not at all, by peer and state",
        ("peer", "state"),
        (((peer, state), n) for peer in peers for state, n in open_[peer].items()),
    )  # fmt: skip
    waits = console.store.oldest_deliveries_s(peers)
    yield _labelled(
        "peer_oldest_delivery_seconds", "Age of the oldest object that waits for a peer",
        ("peer",), (((peer,), max(0.0, now_s - waits.get(peer, now_s))) for peer in peers),
    )  # fmt: skip
    total = CounterMetricFamily(
        P + "peer_delivered", "Objects that a peer took or refused", labels=("peer", "outcome")
    )
    for (name, label), n in sorted(counted.items()):
        peer, _, outcome = label.rpartition(" ")
        if name == counters.DELIVERIES and peer in peers:
            total.add_metric((peer, outcome), n)
    yield total


def _storage(console: Console) -> Iterator[Metric]:
    healthy = ("storage_healthy", "1: what is received can be stored")
    try:
        state = console.storage()
    except OSError:  # it does not answer, or hangs
        yield _gauge(*healthy, 0)
        return
    yield _gauge(*healthy, state.trouble is None)
    yield _labelled(
        "storage_trouble", "1: this keeps the node from storing", ("trouble",),
        (((str(one),), float(state.trouble is one)) for one in Trouble),
    )  # fmt: skip
    yield _gauge("disk_free_bytes", "Free on the disk of the data folder", state.free_bytes)
    yield _gauge("disk_size_bytes", "Size of the disk of the data folder", state.total_bytes)


def _processes(console: Console) -> Iterator[Metric]:
    rows, now_s = console.store.processes(), console.clock.now_s()
    yield _labelled(
        "processes_alive", "Processes that live, by role", ("role",),
        (((role,), n) for role, n in alive(rows, now_s).items()),
    )  # fmt: skip
    latest: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row.role, row.host)
        latest[key] = min(latest.get(key, float("inf")), row.age_s(now_s))
    yield _labelled(
        "process_seen_seconds", "Since a process of a role was last seen on a host",
        ("role", "host"), latest.items(),
    )  # fmt: skip


def _watched(console: Console) -> Iterator[Metric]:
    store = console.store
    going_on = [row.code for row in store.alarms_open()]
    yield _labelled(
        "alarms", "Alarms that go on, by code", ("code",),
        (((str(code),), float(going_on.count(code))) for code in AlarmCode),
    )  # fmt: skip
    drifting = sum(bool(row.alarms) for row in store.scanners())
    yield _gauge("scanners_drifting", "Scanners with a drift alarm", drifting)
    last, good = store.canary_last(), store.canary_last(RunState.PASSED)
    if last is not None and last.ended_at_s is not None:
        passed = last.state is RunState.PASSED
        yield _gauge("canary_passed", "1: the last test study came back", passed)
        ended_s = last.ended_at_s
        yield _gauge("canary_last_timestamp_seconds", "End of the last test study", ended_s)
    if good is not None and good.ended_at_s is not None:
        took_s = good.ended_at_s - good.started_at_s
        yield _gauge("canary_seconds", "Time of the last test study that came back", took_s)


def _models(console: Console) -> Iterator[Metric]:
    rows = {one.row.id: one for one in named_releases(console.config, console.store)}
    family = GaugeMetricFamily(
        P + "model_info", "Release that analyses studies", labels=("release", "sha256", "scope")
    )
    if console.config.model.release:
        family.add_metric((console.config.model.release, "", "pinned"), 1)
    else:
        for rule in console.store.rules()[:MAX_PEERS]:
            one = rows[rule.release_id]
            family.add_metric((str(one), one.sha256, str(rule.scope)), 1)
    yield family


def _certificates(console: Console) -> Iterator[Metric]:
    now_s = console.clock.now_s()
    days = certificates_days(console.config, now_s)
    yield _labelled(
        "certificate_end_timestamp_seconds", "End of a certificate of the node", ("use",),
        (((name,), now_s + left * 86_400) for name, left in days.items()),
    )  # fmt: skip
