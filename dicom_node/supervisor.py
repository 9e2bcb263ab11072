"""`serve`: the process that owns the node. It prepares, starts the others, restarts, stops them.

Order at start: configuration, lock on the data folder, migration, recovery to its end, then the
processes (all roles, or some where others run elsewhere); the DICOM port opens last. The children
stay in the session and process group of the supervisor and end when it dies.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from dicom_node.config import NodeConfig
from dicom_node.errors import NodeError, StoreError
from dicom_node.instance import INSTANCE_ENV, ROLES, chosen_instance, instance_name

log = logging.getLogger(__name__)

START_LIMIT_S = 60.0
DRAIN_LIMIT_S = 30.0
RESTART_DELAY_MAX_S = 30.0
STABLE_AFTER_S = 60.0
PARENT_ENV = "DICOM_NODE_PARENT_PID"
LOCK_ENV = "DICOM_NODE_LOCK_FD"
INSTANCES = "instances"
LOCK_WAIT_S = 10.0
"""The processes of a node that was killed need a moment to end, more while they wait for a disk."""


@dataclass
class _Role:
    """One child process and its restart history."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0
    announced: dict[str, object] = field(default_factory=dict)


class Supervisor:
    """Runs the roles of the node as child processes until it is told to stop."""

    def __init__(
        self,
        config: NodeConfig,
        config_file: Path,
        roles: Sequence[str] = ROLES,
        instance: str = "",
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._part = len(roles) < len(ROLES)
        os.environ[INSTANCE_ENV] = chosen_instance(instance, roles)
        names = [name for name in roles if name != "web" or config.web.enabled]
        self._roles = [_Role(name) for name in names]
        self._stopping = False
        self._ports: dict[str, dict[str, int]] = {}

    def run(self, announce: Callable[[str], None]) -> int:
        """Serve until SIGTERM or SIGINT. ``announce`` gets the lines meant for stdout.

        Returns the exit status: 0 after a clean stop.

        Raises:
            NodeError: the node cannot start; the message says what to do.
        """
        with hold_data_dir(self._config):
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)
            prepare(self._config, [role.name for role in self._roles], part=self._part)
            record_life(self._config, started=True)
            try:
                self._start_all()
                if not self._stopping:
                    for role in self._roles:
                        for line in _describe(role):
                            announce(line)
                    announce("ready")
                self._watch()
            finally:
                self._stop_all()
                _record_stop(self._config)
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _start_all(self) -> None:
        """Start everything but the receiver together, then the receiver: its port opens last."""
        first = [role for role in self._roles if role.name != "receiver"]
        for role in first:
            self._spawn(role)
        for role in first:
            self._await_announcement(role)
        for role in self._roles:
            if role.name == "receiver" and not self._stopping:
                self._spawn(role)
                self._await_announcement(role)

    def _spawn(self, role: _Role) -> None:
        arguments = [sys.executable, "-m", "dicom_node.roles", role.name, str(self._config_file)]
        # a restarted process keeps the ports that were announced
        arguments += [f"{key}={port}" for key, port in self._ports.get(role.name, {}).items()]
        environment = {**os.environ, PARENT_ENV: str(os.getpid())}
        role.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment,
            pass_fds=inherited_lock(),
        )
        role.started_at = time.monotonic()

    def _await_announcement(self, role: _Role) -> None:
        """Wait for the line of JSON in which a role says that it is up."""
        process = role.process
        if process is None or process.stdout is None:
            return
        line = _read_line(process.stdout, START_LIMIT_S, lambda: self._stopping)
        if self._stopping:
            return
        if not line:
            process.kill()
            process.wait()
            raise NodeError(f"the {role.name} process did not start", "see the lines above")
        role.announced = json.loads(line)
        if problem := role.announced.get("error"):
            process.wait()
            raise NodeError(str(problem))
        self._ports[role.name] = {
            key: port
            for key in ("port", "tls_port")
            if isinstance(port := role.announced.get(key), int)
        }

    def _watch(self) -> None:
        while not self._stopping:
            for role in self._roles:
                self._keep_alive(role)
            time.sleep(0.2)

    def _keep_alive(self, role: _Role) -> None:
        now = time.monotonic()
        if role.process is not None:
            status = role.process.poll()
            if status is None:
                return
            lived_s = now - role.started_at
            role.failures = 1 if lived_s > STABLE_AFTER_S else role.failures + 1
            delay_s = min(RESTART_DELAY_MAX_S, 0.5 * 2 ** (role.failures - 1))
            log.error("process ended", extra={"child": role.name, "status": status})
            role.process, role.restart_at = None, now + delay_s
        elif now >= role.restart_at:
            self._spawn(role)
            try:
                self._await_announcement(role)
            except NodeError as error:
                log.error("restart failed", extra={"child": role.name, "problem": error.message})

    def _stop_all(self) -> None:
        """Receiver first (nothing new comes in), then the rest; SIGKILL after the grace time."""
        running = [role.process for role in reversed(self._roles) if role.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + DRAIN_LIMIT_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class lock_data_dir:
    """Hold a lock on the data folder. Exclusive: one node, one folder.

    ``shared`` locks are held beside each other and not beside an exclusive one. ``name``: of the
    lock file, for a lock of an instance; such a file goes away with its holder.

    Every process of the node inherits the lock, so that it falls only when the last one is gone: a
    node that starts after a crash never recovers a folder in which an old process still writes.
    """

    def __init__(
        self, data_dir: Path, wait_s: float = LOCK_WAIT_S, *, shared: bool = False, name: str = ""
    ) -> None:
        self._path = data_dir / (name or "node.lock")
        self._wait_s = wait_s
        self._how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._instance = bool(name)
        self._before = os.environ.get(LOCK_ENV, "")
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._acquire()
            os.environ[LOCK_ENV] = f"{self._before} {self._file.fileno()}".strip()
        except BlockingIOError:
            raise self._taken() from None
        except OSError as error:
            raise StoreError(
                f"cannot use the data folder {self._path.parent}: {error.strerror}",
                "create it, or give this user the right to write there",
            ) from None

    def _taken(self) -> StoreError:
        if self._instance:
            return StoreError(
                f"a part of the node named {self._path.stem} runs", "stop it, or give --instance"
            )
        return StoreError(
            f"another node runs on {self._path.parent}", "stop it, or choose another data_dir"
        )

    def _acquire(self) -> IO[str]:
        deadline = time.monotonic() + self._wait_s
        while True:
            file = self._path.open("a+")
            try:
                fcntl.flock(file, self._how | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    return file
            except FileNotFoundError:
                pass  # its holder ended and took it away
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.close()
                    raise
            file.close()
            time.sleep(0.05)

    def __exit__(self, *_exception: object) -> None:
        os.environ.pop(LOCK_ENV, None)
        if self._before:
            os.environ[LOCK_ENV] = self._before
        if self._file is not None:
            if self._instance:
                self._path.unlink(missing_ok=True)
            self._file.close()


@contextmanager
def hold_data_dir(config: NodeConfig) -> Iterator[None]:
    """Hold the data folder for a node: alone with SQLite; with PostgreSQL beside other instances.

    Raises:
        StoreError: another node has it, or one of this name runs.
    """
    data_dir = config.node.data_dir
    if not config.shared:
        with lock_data_dir(data_dir):
            yield
        return
    name = instance_name()
    with (
        lock_data_dir(data_dir, shared=True),
        lock_data_dir(data_dir, name=f"{INSTANCES}/{name}.lock"),
    ):
        yield


def inherited_lock() -> tuple[int, ...]:
    """Return the descriptors of the locks on the data folder, for the processes started next."""
    return tuple(int(number) for number in os.environ.get(LOCK_ENV, "").split())


def prepare(config: NodeConfig, roles: Sequence[str] = ROLES, *, part: bool = False) -> None:
    """Migrate the database and recover what the last run left, before anything is started.

    A ``part`` of a node never migrates: others may run, of another version.
    """
    from dicom_node.flow.recover import recover, take_back
    from dicom_node.store.shared_clock import clock_of
    from dicom_node.store.store import Store

    clock = clock_of(config.database_url, lasting=False)
    store = Store(config.database_url, clock=clock, create=not part)
    try:
        if "receiver" in roles:
            report = recover(store, config.node.data_dir, alone=not config.shared)
            log.info("recovered", extra={"report": str(report)})
        elif taken := take_back(store):
            log.info("taken back", extra={"claims": taken})
    finally:
        store.close()


def record_life(config: NodeConfig, *, started: bool) -> None:
    """Record start or stop of the node in the audit trail.

    Raises:
        StoreError: the trail cannot be written; a node that cannot record does not start.
    """
    from dicom_node.clock import SystemClock
    from dicom_node.flow.audit import AuditTrail
    from dicom_node.store.store import Store

    clock = SystemClock()
    store = Store(config.database_url, clock=clock)
    try:
        trail = AuditTrail(store, config, clock)
        if started:
            trail.started()
        else:
            trail.stopped()
        trail.flush()
    finally:
        store.close()


def _record_stop(config: NodeConfig) -> None:
    try:
        record_life(config, started=False)
    except NodeError:
        log.exception("the stop could not be recorded")


def _describe(role: _Role) -> list[str]:
    described = role.announced.get("describe") or []
    return [str(line) for line in (described if isinstance(described, list) else [described])]


def _read_line(stream: IO[bytes], limit_s: float, stopping: Callable[[], bool]) -> bytes:
    """One line from a pipe; empty when the other side ended or the time is up."""
    deadline = time.monotonic() + limit_s
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while time.monotonic() < deadline and not stopping():
            if not selector.select(timeout=0.2):
                continue
            part = os.read(stream.fileno(), 4096)
            received += part
            if not part or received.endswith(b"\n"):
                return received
    return b""
