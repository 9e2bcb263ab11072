"""The receiver as several processes behind the same ports (docs/decisions/0020).

One process accepts; it has no thread, no database and reads nothing of what comes, and it forks
those that receive, again when one has ended. Each of these has its own journal, files and rows of
it, and its own connections to the database. They die with the process that accepts.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# what a receiving process runs; nothing of it starts a thread or opens a file
from dicom_node.config import NodeConfig
from dicom_node.errors import NodeError
from dicom_node.flow.audit import AuditTrail
from dicom_node.flow.filing import Filing
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.journal import Journal, JournalLimits
from dicom_node.flow.spool import JOURNAL
from dicom_node.net.acceptor import Acceptor, Handler
from dicom_node.net.lending import Line, Message, What, new_line
from dicom_node.net.lent import LentReceiver
from dicom_node.net.listening import Listener, listeners
from dicom_node.pulse import Pulse
from dicom_node.store.shared_clock import clock_of
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

START_LIMIT_S = 50.0
DRAIN_LIMIT_S = 25.0
"""For the receiving processes to end: below the time that the supervisor gives."""
RESTART_DELAY_MAX_S = 30.0
STABLE_AFTER_S = 60.0
_STEP_S = 0.1
_ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass
class _Process:
    """A receiving process and its restart history."""

    number: int
    pid: int = 0
    handler: Handler | None = None
    started_s: float = 0.0
    failures: int = 0
    restart_s: float = 0.0


class Receivers:
    """Runs the receiving processes until it is told to stop.

    Args:
        config: the ports to open, and how many processes receive.
        die_with: has a new process end when the one with this id does.
        stop_event: makes the event that SIGTERM and SIGINT set in a new process.
    """

    def __init__(
        self,
        config: NodeConfig,
        die_with: Callable[[int], None],
        stop_event: Callable[[], threading.Event],
    ) -> None:
        self._config = config
        self._die_with = die_with
        self._stop_event = stop_event
        self._acceptor = Acceptor()
        self._processes = [_Process(number) for number in range(config.node.receiver_count)]
        self._stopping = False

    def run(self, announce: Callable[[list[tuple[Listener, int]]], None]) -> None:
        """Receive until SIGTERM. ``announce`` is told the ports when they are open.

        Raises:
            NodeError: it cannot start.
        """
        for number in _ENDING:
            signal.signal(number, self._on_signal)
        wanted = listeners(self._config)
        file_leftovers(self._config)
        gc.collect()
        gc.freeze()  # a collection would write to each object, and so unshare the memory
        try:
            self._start_all()
            if not self._stopping:
                ports = self._acceptor.open(wanted)
                announce(list(zip(wanted, ports, strict=True)))
            while not self._stopping:
                self._acceptor.step(_STEP_S)
                for process in self._processes:
                    self._keep_alive(process)
        finally:
            self._stop_all()

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _start_all(self) -> None:
        for process in self._processes:
            self._fork(process)
        end_s = time.monotonic() + START_LIMIT_S
        handlers = [one.handler for one in self._processes if one.handler is not None]
        while not self._stopping and not all(handler.ready for handler in handlers):
            self._acceptor.step(_STEP_S)
            lost = [handler for handler in handlers if handler.lost]
            if lost or time.monotonic() > end_s:
                told = next((handler.problem for handler in lost if handler.problem), "")
                raise NodeError(told or "a receiving process did not start")

    def _fork(self, process: _Process) -> None:
        mine, theirs = new_line()
        parent = os.getpid()
        # a signal that comes before the new process has its own handlers waits until then
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        pid = os.fork()
        if pid == 0:
            self._be_a_receiver(parent, mine, theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        theirs.close()
        process.pid, process.started_s = pid, time.monotonic()
        process.handler = self._acceptor.add(mine)

    def _be_a_receiver(self, parent: int, mine: Line, theirs: Line) -> None:
        """Receive in a process that was just forked; never returns."""
        status = 1
        try:
            self._die_with(parent)
            self._acceptor.close_copies()
            mine.close()
            stop = self._stop_event()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
            receive(self._config, theirs, stop)
            status = 0
        except (NodeError, OSError) as error:
            log.error("receiving process failed", extra={"problem": str(error)})
            theirs.send(Message(What.FAILED, items=(str(error),)))
        except BaseException:
            log.exception("receiving process failed")
        finally:
            os._exit(status)

    def _keep_alive(self, process: _Process) -> None:
        handler, now_s = process.handler, time.monotonic()
        if handler is None:
            if now_s >= process.restart_s:
                self._fork(process)
        elif handler.lost:
            status = _reap(process.pid)
            if status is None:
                return
            lived_s = now_s - process.started_s
            process.failures = 1 if lived_s > STABLE_AFTER_S else process.failures + 1
            delay_s = min(RESTART_DELAY_MAX_S, 0.5 * 2 ** (process.failures - 1))
            told = {"receiver": process.number, "status": status, "problem": handler.problem}
            log.error("receiving process ended", extra=told)
            process.handler, process.restart_s = None, now_s + delay_s

    def _stop_all(self) -> None:
        """Close the ports, let the processes finish what goes on; SIGKILL after the grace time."""
        self._acceptor.close_ports()
        living = [one for one in self._processes if one.handler is not None]
        for process in living:
            os.kill(process.pid, signal.SIGTERM)
        end_s = time.monotonic() + DRAIN_LIMIT_S
        while living and time.monotonic() < end_s:
            self._acceptor.step(_STEP_S)  # what they ask and tell meanwhile
            living = [one for one in living if _reap(one.pid) is None]
        for process in living:
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)


def _reap(pid: int) -> int | None:
    """Return the exit status of a child that has ended."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def receive(config: NodeConfig, line: Line, stop: threading.Event) -> None:
    """Be one of the receiving processes until ``stop``.

    Raises:
        NodeError: it cannot start.
    """
    clock = clock_of(config.database_url)
    store = Store(config.database_url, clock=clock)
    audit = AuditTrail(store, config, clock)
    audit.start()
    ingest = Ingest(store, config.node.data_dir, clock, _limits(config))
    ingest.start()
    receiver = LentReceiver(
        config, store, ingest, clock, audit=audit, line=line, broken=stop.set
    )  # fmt: skip
    receiver.start()
    pulse = Pulse(store, clock, "receiver", ports=_known_ports(config))
    pulse.start()
    stop.wait()
    pulse.stop()
    receiver.stop()
    ingest.stop()
    audit.close()
    store.close()


def _known_ports(config: NodeConfig) -> dict[str, int]:
    """Return the ports that have fixed numbers: others are known to who accepts alone."""
    tls = config.tls.port if config.tls.enabled else 0
    return {n: port for n, port in (("port", config.node.port), ("tls_port", tls)) if port}


def _limits(config: NodeConfig) -> JournalLimits:
    return JournalLimits().shared(config.node.receiver_count)


def file_leftovers(config: NodeConfig) -> None:
    """File what a crash left in the journals of all receivers there were, before a port opens.

    Raises:
        StoreError: disk or database refused.
    """
    clock = clock_of(config.database_url, lasting=False)
    store = Store(config.database_url, clock=clock)
    journal = Journal(config.node.data_dir / JOURNAL, _limits(config))
    try:
        if restored := Filing(store, config.node.data_dir, clock, journal).file_leftovers():
            log.warning("instances filed from the journal", extra={"instances": restored})
    finally:
        journal.close()
        store.close()
