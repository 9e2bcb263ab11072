"""A node under test: `dicom-node serve` as a process of its own, as an administrator runs it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.store.store import Store
from tests.databases import open_store

START_LIMIT_S = 90.0
COMMAND_LIMIT_S = 600.0
ROOT = Path(__file__).resolve().parents[1]


def wait_until(condition: Callable[[], Any], limit_s: float, what: str) -> Any:
    """Poll until the condition gives something true; fail with `what` after the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {limit_s:g} s: {what}")


def is_gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


class NodeUnderTest:
    """One configuration and data folder; the node on it can be started, stopped and killed."""

    def __init__(
        self,
        folder: Path,
        peers: str,
        *,
        quiet_s: float = 1.0,
        patience_s: float = 8.0,
        web: bool = True,
        node: str = "",
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.config_file = folder / "node.toml"
        self.port = 0
        self.lines: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = (quiet_s, patience_s, web, peers)
        self._node_table = node
        self._arguments = arguments
        folder.mkdir(parents=True, exist_ok=True)
        self._write_config(0)

    def rewrite(self, port: int) -> None:
        """Write the configuration anew; port 0: any free one at the next start."""
        self._write_config(port)

    def _write_config(self, port: int) -> None:
        quiet_s, patience_s, web, peers = self._settings
        self.config_file.write_text(
            f"[node]\nport = {port}\n{self._node_table}"
            f"[study]\nquiet_s = {quiet_s}\npatience_s = {patience_s}\n"
            f"[web]\nenabled = {str(web).lower()}\nport = 0\n{peers}",
            encoding="utf-8",
        )

    @property
    def data_dir(self) -> Path:
        """Where the node keeps its data."""
        return load_config(self.config_file).node.data_dir

    def start(self, *, environment: dict[str, str] | None = None) -> None:
        """Start the node in a session of its own and wait for `ready`; keeps its port."""
        log = (self.folder / "node.log").open("ab")
        self._process = subprocess.Popen(
            self._serve(),
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,  # a line that waits in a buffer would not wake the selector
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "2", **(environment or {})},
        )
        log.close()
        self.lines = []
        deadline = time.monotonic() + START_LIMIT_S
        while "ready" not in self.lines:
            line = self._line(deadline)
            if not line:
                self.kill()
                raise AssertionError(f"the node did not start: {self.log()[-2000:]}")
            self.lines.append(line)
            if line.startswith("DICOM "):
                self.port = int(line.rsplit(":", 1)[1])
        self._write_config(self.port)

    def _serve(self) -> list[str]:
        command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(self.config_file)]
        return [*command, *self._arguments]

    def start_unattended(self) -> None:
        """Start the node on its port and return at once; nobody reads what it prints."""
        log = (self.folder / "node.log").open("ab")
        self._process = subprocess.Popen(
            self._serve(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def _line(self, deadline: float) -> str:
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                return ""
        return self._process.stdout.readline().decode().strip()

    @property
    def pid(self) -> int:
        """Process id of the supervisor; also the id of its process group and session."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill -9 of the whole node: every process of its group at once."""
        os.killpg(self.pid, signal.SIGKILL)
        self.collect(60.0)

    def stop(self) -> int:
        """SIGTERM to the supervisor, as systemd does; returns the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self.collect(120.0)
        except subprocess.TimeoutExpired:
            left = self.processes()
            self.kill()
            raise AssertionError(f"it did not stop; left: {left}\n{self.log()[-2000:]}") from None

    def collect(self, limit_s: float) -> int:
        """Wait for the supervisor to end; returns its exit status."""
        assert self._process is not None
        status = self._process.wait(limit_s)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return status

    def processes(self) -> list[str]:
        """Command lines of the processes in the node's group."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if os.getpgid(int(folder.name)) == self.pid:
                    line = (folder / "cmdline").read_bytes()
                    found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found

    @property
    def running(self) -> bool:
        """Whether the supervisor lives."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What the node wrote to stderr."""
        path = self.folder / "node.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `dicom-node ... --config` of this node."""
        done = subprocess.run(
            [sys.executable, "-m", "dicom_node", *arguments, "--config", str(self.config_file)],
            capture_output=True, text=True, check=False, timeout=COMMAND_LIMIT_S,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with `--json` and parse its output."""
        return json.loads(self.command(*arguments, "--json").stdout)

    def revisions(self, study_uid: str) -> list[dict[str, Any]]:
        """The revisions of a study, read from the database beside the running node."""
        store = Store(load_config(self.config_file).database_url, clock=SystemClock())
        try:
            return store.studies_show(study_uid)
        finally:
            store.close()

    def wait_for(self, study_uid: str, states: set[str], limit_s: float = 120.0) -> dict[str, Any]:
        """Wait until the newest revision of a study is in one of the states, deliveries final."""

        def look() -> dict[str, Any] | None:
            rows = self.revisions(study_uid)
            newest = max(rows, key=lambda row: row["revision"], default=None)
            if newest is None or newest["state"] not in states:
                return None
            deliveries = [d["state"] for r in newest["results"] for d in r["deliveries"]]
            return newest if all(s in ("sent", "verified", "failed") for s in deliveries) else None

        found: dict[str, Any] = wait_until(look, limit_s, f"study in {sorted(states)}")
        return found


def pacs_peer(
    port: int, *, name: str = "pacs", ae_title: str = "PACS", receives: bool = True
) -> str:
    """A `[[peers]]` block for a peer on this machine."""
    return (
        f'[[peers]]\nname = "{name}"\nae_title = "{ae_title}"\nhost = "127.0.0.1"\nport = {port}\n'
        f"receives_results = {str(receives).lower()}\n"
    )


class ReceiverUnderTest:
    """The receiver alone, on a data folder of its own: for kills, tracing and timing.

    ``receivers``: how many processes it is; with several, ``pid`` is the one that accepts.
    """

    def __init__(
        self, folder: Path, calling_aes: tuple[str, ...] = ("PACS",), receivers: int = 1
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config_file = folder / "node.toml"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._receivers = receivers
        self._write_config(0, calling_aes)
        self._calling_aes = calling_aes
        self.data_dir.mkdir(exist_ok=True)
        open_store(self.database_url, SystemClock()).close()

    def _write_config(self, port: int, calling_aes: tuple[str, ...]) -> None:
        peers = "".join(
            f'[[peers]]\nname = "{ae.lower()}"\nae_title = "{ae}"\nhost = "127.0.0.1"\n'
            for ae in calling_aes
        )
        node = (
            f'[node]\nport = {port}\ndata_dir = "{self.folder}/data"\n'
            f"receivers = {self._receivers}\n"
        )
        self.config_file.write_text(node + peers, encoding="utf-8")

    @property
    def data_dir(self) -> Path:
        """Where it keeps its data."""
        return self.folder / "data"

    @property
    def database_url(self) -> str:
        """Its database."""
        return load_config(self.config_file).database_url

    def start(self, *before: str, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until its port is open; ``before``: a program that runs it."""
        log = (self.folder / "receiver.log").open("ab")
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", "dicom_node.roles", "receiver", str(self.config_file)],
            stdout=subprocess.PIPE, stderr=log, env=environment,
        )  # fmt: skip
        log.close()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.folder / "receiver.log").read_text()[-2000:]
        self.port = json.loads(line)["port"]
        self._write_config(self.port, self._calling_aes)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> list[int]:
        """Process ids of those that receive for it, the oldest first."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._collect()

    def set_receivers(self, count: int) -> None:
        """Let it be so many processes from its next start on."""
        self._receivers = count
        self._write_config(self.port, self._calling_aes)

    def stop(self) -> int:
        """SIGTERM: what is received is filed, then the process ends; returns its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._collect()

    def _collect(self) -> int:
        assert self._process is not None and self._process.stdout is not None
        status = self._process.wait(60)
        self._process.stdout.close()
        self._process = None
        return status


class ForkedReceiver(ReceiverUnderTest):
    """As its base class, but started in a tenth of the time, and killable before it is ready."""

    def __init__(
        self, folder: Path, calling_aes: tuple[str, ...] = ("PACS",), receivers: int = 1
    ) -> None:
        super().__init__(folder, calling_aes, receivers)
        with (folder / "receiver.log").open("ab") as log:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.forks", str(self.config_file)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
            )  # fmt: skip
        self._pid = 0

    def launch(self) -> None:
        """Start it and return at once."""
        self._order("start")
        self._pid = self._told("pid")

    def start(self, *before: str, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until its port is open."""
        assert not before and environment is None
        self.launch()
        self.port = self._told("port")
        self._write_config(self.port, self._calling_aes)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._pid

    def kill(self) -> None:
        """Kill -9, ready or not."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM: what is received is filed, then the process ends; returns its exit status."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        """End the program that forks."""
        for stream in (self._parent.stdin, self._parent.stdout):
            if stream is not None:
                stream.close()
        self._parent.wait(60)

    def _end(self, number: int) -> int:
        os.kill(self._pid, number)
        self._order("reap")
        return self._told("status")

    def _order(self, text: str) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.write(text.encode() + b"\n")
        self._parent.stdin.flush()

    def _told(self, what: str) -> int:
        assert self._parent.stdout is not None
        while line := self._parent.stdout.readline():
            message = json.loads(line)
            assert "error" not in message, message
            if what in message:
                return int(message[what])
        raise AssertionError((self.folder / "receiver.log").read_text()[-2000:])
