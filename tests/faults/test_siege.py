"""F1-F4, R7 and R8 at once: an honest peer is served, and nothing is left of the attack."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.clock import SystemClock
from dicom_node.config import TlsSection, load_config
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import Address, echo, outgoing, send
from dicom_node.store.store import Store
from tests.conftest import ROOT
from tests.net.certificates import Authority
from tests.net.conftest import wait_for, write_instance
from tests.running import pacs_peer

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SIEGE_S = float(os.environ.get("SIEGE_S", "15"))
ECHO_P99_S = 1.0
INSTANCES = 60


@dataclass
class ReceiverAlone:
    """The receiver as the process it is in a node."""

    process: subprocess.Popen[bytes]
    address: Address
    store: Store
    own: TlsSection
    """what the honest peer shows"""

    def status(self, field: str) -> int:
        """A number of /proc: VmRSS (KiB), Threads."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split(f"{field}:")[1].split()[0])

    @property
    def files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@pytest.fixture(params=["plain", "tls"])
def receiver(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ReceiverAlone]:
    authority, tls = Authority(tmp_path / "ca"), request.param == "tls"
    issued = authority.issue("both", "127.0.0.1")
    files = f'certificate = "{issued.certificate}"\nkey = "{issued.key}"\nca = "{authority.file}"'
    file = tmp_path / "node.toml"
    file.write_text(
        f"[node]\nport = 0\n[tls]\nenabled = {str(tls).lower()}\nport = 0\n{files}\n"
        + pacs_peer(9, receives=False)
    )
    config = load_config(file)
    config.node.data_dir.mkdir()
    store = Store(config.database_url, clock=SystemClock(), create=True)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.roles", "receiver", str(file)],
            stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
        )  # fmt: skip
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    address = Address("PROSTATE_AI", "127.0.0.1", told["tls_port" if tls else "port"], tls)
    try:
        yield ReceiverAlone(process, address, store, authority.section(issued))
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()
        store.close()


def test_f1_to_f4_r7_and_r8_at_once(receiver: ReceiverAlone, tmp_path: Path) -> None:
    to, own = receiver.address, receiver.own
    files = [outgoing(write_instance(tmp_path, kilobytes=256)) for _ in range(INSTANCES)]
    # once before, so that what a first association loads is not counted as growth
    first = outgoing(write_instance(tmp_path, study="1.2.9"))
    assert send(to, [first], calling_ae="PACS", tls=own)[0].outcome is Outcome.SENT
    before = {"RSS": receiver.status("VmRSS"), "threads": receiver.status("Threads")}
    attack = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.besiegers", str(to.port), str(SIEGE_S)],
        cwd=ROOT,
    )
    time.sleep(1.5)
    outcomes: list[Outcome] = []
    sending = threading.Thread(
        target=lambda: outcomes.extend(
            status.outcome for status in send(to, files, calling_ae="PACS", tls=own)
        )
    )
    sending.start()
    took_s, failed, most_rss = [], 0, 0
    while attack.poll() is None:
        started = time.monotonic()
        failed += not echo(to, calling_ae="PACS", tls=own).ok
        took_s.append(time.monotonic() - started)
        most_rss = max(most_rss, receiver.status("VmRSS"))
        time.sleep(0.05)
    sending.join(120)
    p99_s = sorted(took_s)[math.ceil(len(took_s) * 0.99) - 1]
    print(
        f"\nsiege of {SIEGE_S:g} s, TLS {to.tls}: {len(took_s)} echoes, {failed} failed, "
        f"p99 {p99_s:.3f} s, RSS {before['RSS'] // 1024} MiB before, {most_rss // 1024} at most"
    )
    assert outcomes == [Outcome.SENT] * INSTANCES
    assert len(receiver.store.headers_of("1.2.3.4")) == INSTANCES
    assert (failed, p99_s < ECHO_P99_S) == (0, True)
    wait_for(lambda: receiver.status("Threads") <= before["threads"] + 2)
    assert receiver.files < 40
    assert receiver.status("VmRSS") < before["RSS"] * 1.1 + 8 * 1024
