"""How fast C-STORE goes in, beside DCMTK's storescp (not durable) and Orthanc, in the same run.

The public examination, repeated under new UIDs, sent by DCMTK's storescu to a fresh receiver each
time; receivers take turns, so that a ratio compares neighbours in time. TCP_NODELAY is set on all
and all use one PDU size, except in the last table: there sender and receivers are as installed.

`BENCH_INSTANCES` (1500), `BENCH_ROUNDS` (5), `BENCH_STOCK_INSTANCES` (150) change the size. With
several associations a node of `BENCH_RECEIVERS` (2) receiving processes takes its turns too; its
memory is what all its processes have at the end (PSS), that of the others the peak of one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from dicom_node.clock import SystemClock
from dicom_node.store.store import Store
from tests.interop.peers import end, free_port, require, wait_for_port
from tests.running import ReceiverUnderTest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

INSTANCES = int(os.environ.get("BENCH_INSTANCES", "1500"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
STOCK_INSTANCES = int(os.environ.get("BENCH_STOCK_INSTANCES", "150"))
RECEIVERS = int(os.environ.get("BENCH_RECEIVERS", "2"))
PDU_BYTES = 131072
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Running:
    """A receiver that was started for one run."""

    pid: int
    port: int
    ae_title: str
    stop: Callable[[], object]
    database_url: str = ""


@dataclass
class Run:
    """One run: wall time of the senders, processor time and peak memory of the receiver."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    settled_s: float = 0.0


@dataclass
class Table:
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def show(self, title: str, count: int) -> None:
        print(f"\n{title}: {count} instances, {len(next(iter(self.runs.values())))} rounds")
        print(f"  {'':12} images/s (range)        CPU ms/image  peak MiB  node is x times")
        ours = self.runs["node"]
        for name, runs in self.runs.items():
            rates = sorted(count / run.wall_s for run in runs)
            ratio = statistics.median(b.wall_s / a.wall_s for a, b in zip(ours, runs, strict=True))
            print(
                f"  {name:12} {statistics.median(rates):7.0f} ({rates[0]:.0f}-{rates[-1]:.0f})"
                f"{'':8} {statistics.median(run.cpu_s for run in runs) / count * 1000:8.2f}"
                f"  {max(run.peak_mib for run in runs):8.0f}  {ratio:8.2f}"
            )
        settled = statistics.median(run.settled_s for run in ours)
        print(f"  node: all files and rows there {settled:.2f} s after the last answer")


def start_node(folder: Path, environment: dict[str, str], receivers: int = 1) -> Running:
    node = ReceiverUnderTest(folder, ("STORESCU",), receivers)
    node.start(environment=environment)
    return Running(node.pid, node.port, "PROSTATE_AI", node.stop, node.database_url)


def start_storescp(folder: Path, environment: dict[str, str], *options: str) -> Running:
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(
        [require("storescp"), "+B", "-od", str(folder), *options, str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    wait_for_port(port, process)
    return Running(process.pid, port, "STORESCP", lambda: end(process))


def start_orthanc(folder: Path, environment: dict[str, str], **settings: object) -> Running:
    folder.mkdir()
    port = free_port()
    values = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "Plugins": [], "DicomPort": port, "DicomAlwaysAllowStore": True, "HttpPort": free_port(),
        "StableAge": 3600, **settings,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(values))
    process = subprocess.Popen(
        [require("Orthanc"), str(folder / "orthanc.json")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    wait_for_port(port, process)
    return Running(process.pid, port, "ORTHANC", lambda: end(process))


def cpu_s(pid: int) -> float:
    """User and system time of a process and of its children, those that ended too."""
    ticks = 0
    for one in [pid, *children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(int(value) for value in fields[11:15])
    return ticks / _TICKS


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def memory_mib(running: Running) -> float:
    """Peak of the process; of a node of several what all have now, shared memory once."""
    several = children(running.pid) if running.database_url else []
    if several:
        return sum(pss_mib(one) for one in [running.pid, *several])
    return peak_mib(running.pid)


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(x.split()[1]) / 1024 for x in lines if x.startswith("Pss:"))


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(x.split()[1]) / 1024 for x in status.splitlines() if x.startswith("VmHWM"))


def rows(running: Running) -> int:
    store = Store(running.database_url, clock=SystemClock())
    try:
        return sum(study["instances"] for study in store.studies_list())
    finally:
        store.close()


def measure(running: Running, folders: list[Path], environment: dict[str, str]) -> Run:
    count = sum(len(list(folder.iterdir())) for folder in folders)
    pid = running.pid
    before_s = cpu_s(pid)
    begun = time.perf_counter()
    senders = [
        subprocess.Popen(
            [require("storescu"), "-aec", running.ae_title, *pdu_options(environment), "+sd",
             "127.0.0.1", str(running.port), str(folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )
        for folder in folders
    ]  # fmt: skip
    statuses = [sender.wait() for sender in senders]
    wall_s = time.perf_counter() - begun
    assert statuses == [0] * len(folders)
    settled_s = 0.0
    if running.database_url:
        while rows(running) < count:
            time.sleep(0.02)
        settled_s = time.perf_counter() - begun - wall_s
    result = Run(wall_s, cpu_s(pid) - before_s, memory_mib(running), settled_s)
    running.stop()
    return result


def pdu_options(environment: dict[str, str]) -> list[str]:
    if "TCP_NODELAY" not in environment:
        return []
    return ["-R", "--max-pdu", str(PDU_BYTES), "--max-send-pdu", str(PDU_BYTES)]


def copies(source: Path, target: Path, count: int, associations: int) -> list[Path]:
    """The examination repeated under new UIDs, in one folder for each association."""
    originals = sorted(source.rglob("*.dcm"))
    folders = [target / str(number) for number in range(associations)]
    for folder in folders:
        folder.mkdir(parents=True)
    study = ""
    for number in range(count):
        if number % len(originals) == 0:
            study = generate_uid()
        image = pydicom.dcmread(originals[number % len(originals)])
        image.StudyInstanceUID = study
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.save_as(folders[number % associations] / f"{number:06}.dcm")
    return folders


def compare(
    starts: dict[str, Callable[[Path], Running]],
    folders: list[Path],
    environment: dict[str, str],
    tmp_path: Path,
) -> Table:
    table = Table({name: [] for name in starts})
    for number in range(ROUNDS):
        order = list(starts.items())
        for name, start in order[number % len(order) :] + order[: number % len(order)]:
            running = start(tmp_path / f"{name}-{number}")
            table.runs[name].append(measure(running, folders, environment))
    return table


def show_disk(folder: Path) -> None:
    """What one flush costs here and now: 84 KiB written in place, then fdatasync."""
    handle = os.open(folder / "probe", os.O_RDWR | os.O_CREAT)
    data = os.urandom(86_016)
    for at in range(64):
        os.pwrite(handle, data, at * len(data))
    os.fsync(handle)
    times = []
    for at in range(64):
        begun = time.perf_counter()
        os.pwrite(handle, data, at * len(data))
        os.fdatasync(handle)
        times.append((time.perf_counter() - begun) * 1000)
    os.close(handle)
    times.sort()
    print(f"\none flush of the disk: median {times[32]:.2f} ms, 90 % {times[57]:.2f} ms")


@pytest.mark.parametrize("associations", [1, 4])
def test_ingest_durable(prostatex_0000: Path, tmp_path: Path, associations: int) -> None:
    environment = {**os.environ, "TCP_NODELAY": "1"}
    folders = copies(prostatex_0000, tmp_path / "copies", INSTANCES, associations)
    fork = ["--fork"] if associations > 1 else []
    show_disk(tmp_path)
    several: dict[str, Callable[[Path], Running]] = {}
    if associations > 1:
        name = f"node of {RECEIVERS}"
        several[name] = lambda folder: start_node(folder, environment, RECEIVERS)
    table = compare(
        {
            "node": lambda folder: start_node(folder, environment),
            **several,
            "storescp": lambda folder: start_storescp(
                folder, environment, "--max-pdu", str(PDU_BYTES), *fork
            ),
            "Orthanc": lambda folder: start_orthanc(
                folder, environment, MaximumPduLength=PDU_BYTES
            ),
        },
        folders, environment, tmp_path,
    )  # fmt: skip
    table.show(f"{associations} association(s), TCP_NODELAY on all, PDU {PDU_BYTES}", INSTANCES)


def test_ingest_from_an_unmodified_sender(prostatex_0000: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    folders = copies(prostatex_0000, tmp_path / "copies", STOCK_INSTANCES, 1)
    table = compare(
        {
            "node": lambda folder: start_node(folder, environment),
            "storescp": lambda folder: start_storescp(folder, environment),
            "Orthanc": lambda folder: start_orthanc(folder, environment),
        },
        folders, environment, tmp_path,
    )  # fmt: skip
    table.show("unmodified storescu, everything as installed", STOCK_INSTANCES)
