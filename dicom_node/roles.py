"""Entry point of the processes that `serve` starts: receiver, worker, delivery, web.

Each prints one line of JSON on stdout when it is up, then runs until SIGTERM. They share the
database and the spool, nothing else.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from dicom_node.config import NodeConfig, load_config
from dicom_node.errors import NodeError
from dicom_node.logs import guard_tracebacks, start_logging
from dicom_node.supervisor import PARENT_ENV

log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1

Announce = Callable[[dict[str, object]], None]
Ports = dict[str, int]


def die_with_parent() -> None:
    """Ask the kernel (Linux) to end this process when its parent dies."""
    parent = os.environ.get(PARENT_ENV)
    die_with(os.getppid() if parent is None else int(parent))


def die_with(parent: int) -> None:
    """Ask the kernel (Linux) to end this process when its parent, which has this id, dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the request took effect


def _announce(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def stop_event() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set. Call it on the main thread, once.

    A thread sets it, told through the wake-up descriptor. The kernel may hand the signal to any
    thread, and a Python handler then runs only when the main thread wakes by itself; and a handler
    that interrupts the main thread inside ``Event.wait`` must not take the event's lock.
    """
    stop = threading.Event()
    told, tells = socket.socketpair()
    tells.setblocking(False)
    signal.set_wakeup_fd(tells.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def pass_on() -> None:
        told.recv(1)
        stop.set()

    threading.Thread(target=pass_on, name="signals", daemon=True).start()
    return stop


def run_receiver(config: NodeConfig, ports: Ports, announce: Announce) -> None:
    """C-ECHO and C-STORE SCP."""
    if config.node.receiver_count > 1:
        return _run_receivers(_with_ports(config, ports), announce)
    from dicom_node.flow.adopt import Adoption
    from dicom_node.flow.audit import AuditTrail
    from dicom_node.flow.ingest import Ingest
    from dicom_node.net.receiver import Receiver
    from dicom_node.pulse import Pulse
    from dicom_node.store.shared_clock import clock_of
    from dicom_node.store.store import Store

    stop = stop_event()
    clock = clock_of(config.database_url)
    config = _with_ports(config, ports)
    store = Store(config.database_url, clock=clock)
    audit = AuditTrail(store, config, clock)
    audit.start()
    ingest = Ingest(store, config.node.data_dir, clock)
    ingest.start()
    adoption = Adoption(store, config.node.data_dir, clock)
    adopting = threading.Thread(target=adoption.run, args=[stop], name="adoption", daemon=True)
    adopting.start()
    receiver = Receiver(config, store, ingest, clock, audit=audit)
    receiver.start()
    pulse = Pulse(store, clock, "receiver", ports=_bound(receiver.plain_port, receiver.tls_port))
    pulse.start()
    announce(_ports_open(config, receiver.plain_port, receiver.tls_port))
    stop.wait()
    pulse.stop()
    receiver.stop()
    ingest.stop()
    adopting.join(timeout=5.0)
    audit.close()
    store.close()


def _run_receivers(config: NodeConfig, announce: Announce) -> None:
    from dicom_node.net.listening import Listener
    from dicom_node.receivers import Receivers

    def opened(ports: list[tuple[Listener, int]]) -> None:
        found = {listener.context is not None: port for listener, port in ports}
        announce(_ports_open(config, found.get(False), found.get(True)))

    Receivers(config, die_with, stop_event).run(opened)


def _bound(plain: int | None, tls: int | None) -> Ports:
    """Return the ports that are open."""
    return {name: n for name, n in (("port", plain), ("tls_port", tls)) if n is not None}


def _ports_open(config: NodeConfig, plain: int | None, tls: int | None) -> dict[str, object]:
    opened = {
        "port": (plain, "DICOM", config.node.bind),
        "tls_port": (tls, "TLS DICOM", config.tls.bind or config.node.bind),
    }
    described = [
        f"{kind} {config.node.ae_title} on {address}:{port}"
        for port, kind, address in opened.values()
        if port is not None
    ]
    return {**_bound(plain, tls), "describe": described}


def _with_ports(config: NodeConfig, ports: Ports) -> NodeConfig:
    node, tls = config.node, config.tls
    if "port" in ports:
        node = node.model_copy(update={"port": ports["port"]})
    if "tls_port" in ports:
        tls = tls.model_copy(update={"port": ports["tls_port"]})
    return config.model_copy(update={"node": node, "tls": tls})


def run_worker(config: NodeConfig, _ports: Ports, announce: Announce) -> None:
    """Decide which studies are complete, analyse them, write the result objects."""
    from dicom_node.pulse import Progress, Pulse
    from dicom_node.store.shared_clock import clock_of
    from dicom_node.store.store import Store
    from dicom_node.worker import Worker

    stop = stop_event()
    clock = clock_of(config.database_url)
    store = Store(config.database_url, clock=clock)
    progress = Progress(clock)
    worker = Worker(config, store, clock, progress.turn)
    pulse = Pulse(store, clock, "worker", goes_on=progress.goes_on)
    pulse.start()
    announce({})
    worker.run(stop)
    pulse.stop()
    store.close()


def run_delivery(config: NodeConfig, _ports: Ports, announce: Announce) -> None:
    """Send result objects to their destinations, ask what they keep, answer who asks us."""
    from dicom_node.flow.audit import AuditTrail
    from dicom_node.flow.confirm import Confirmer
    from dicom_node.flow.deliver import DeliveryLoop
    from dicom_node.flow.forward import Forwarder
    from dicom_node.flow.messages import Messenger
    from dicom_node.flow.pledge import PledgeLoop
    from dicom_node.flow.retention import Retention
    from dicom_node.flow.watch import Watch
    from dicom_node.path_canary import PathCanary
    from dicom_node.pulse import Progress, Pulse
    from dicom_node.store.shared_clock import clock_of
    from dicom_node.store.store import Store

    stop = stop_event()
    clock = clock_of(config.database_url)
    store = Store(config.database_url, clock=clock)
    progress = Progress(clock)
    pulse = Pulse(store, clock, "delivery", goes_on=progress.goes_on)
    pulse.start()
    announce({})
    audit = AuditTrail(store, config, clock)
    audit.start()
    beside = [
        threading.Thread(target=loop.run, args=[stop], name=name, daemon=True)
        for name, loop in (
            ("pledges", PledgeLoop(store, config, clock)),
            ("audit-forwarder", Forwarder(store, config, clock)),
            ("watch", Watch(store, config, clock, PathCanary(store, config, clock))),
            ("messenger", Messenger(store, config, clock)),
            ("retention", Retention(store, config, clock, audit)),
        )
    ]
    for thread in beside:
        thread.start()
    confirmer = Confirmer(store, config, clock)
    DeliveryLoop(store, config, clock, confirmer=confirmer, audit=audit, turned=progress.turn).run(
        stop
    )
    pulse.stop()
    for thread in beside:
        thread.join(timeout=5.0)
    audit.close()
    store.close()


def run_web(config: NodeConfig, ports: Ports, announce: Announce) -> None:
    """Web console and API."""
    from dicom_node.web.server import serve

    serve(config, ports.get("port"), announce, stop_event())


ROLES: dict[str, Callable[[NodeConfig, Ports, Announce], None]] = {
    "receiver": run_receiver,
    "worker": run_worker,
    "delivery": run_delivery,
    "web": run_web,
}


def main(arguments: list[str]) -> int:
    """Run one role: ``ROLE CONFIG_FILE [NAME=PORT...]``, ports as an earlier run announced them."""
    die_with_parent()
    name, config_file = arguments[0], Path(arguments[1])
    ports = {key: int(port) for key, port in (one.split("=") for one in arguments[2:])}
    start_logging(name)
    guard_tracebacks()
    try:
        ROLES[name](load_config(config_file), ports, _announce)
    except NodeError as error:
        _announce({"error": str(error)})
        return 1
    except OSError as error:
        _announce({"error": f"{name}: {error.strerror or error}; check address and port"})
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
