"""Programs of others as peers: DCMTK tools and a throw-away Orthanc on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

START_LIMIT_S = 90.0


def require(program: str) -> str:
    """Path of a program. Missing: the test skips, or fails under ``INTEROP_REQUIRED=1``."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        message = f"{program} is not installed"
        if os.environ.get("INTEROP_REQUIRED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


def run(program: str, *arguments: object, limit_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command line tool to its end and return what it printed."""
    return subprocess.run(
        [require(program), *map(str, arguments)],
        capture_output=True, text=True, errors="replace", timeout=limit_s, check=False,
        env={**os.environ, "TCP_NODELAY": "1"},
    )  # fmt: skip


def free_port() -> int:
    """A port on loopback that nobody uses now, below those that the system gives to others."""
    for _ in range(1000):
        number = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", number))
            return number
    raise AssertionError("no port is free")


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the program ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens on port {port}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that a test has started."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class StoreScp:
    """DCMTK's storescp; keeps data sets bit by bit as they came."""

    ae_title = "STORESCP"
    host = "127.0.0.1"
    tls = False
    identities = ("127.0.0.1",)

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        command = [require("storescp"), "+xa", "+B", "-od", folder, "-aet", self.ae_title]
        self._process = subprocess.Popen(
            [*map(str, command), *options, str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_port(self.port, self._process)

    def stored(self) -> dict[str, Path]:
        """What came: SOP Instance UID to file."""
        return {path.name.split(".", 1)[1]: path for path in self.folder.iterdir()}

    def stop(self) -> None:
        end(self._process)


class OrthancPeer:
    """A real Orthanc with its own temporary storage, as a PACS that holds and sends studies."""

    ae_title = "ORTHANC"
    host = "127.0.0.1"
    tls = False
    identities: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self._program = require("Orthanc")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._http_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._http_port}", timeout=120, trust_env=False
        )

    def start(self, changes: dict[str, Any] | None = None) -> OrthancPeer:
        """Start the program (never the service) and wait until both ports are open.

        ``changes``: settings in the place of the usual ones.
        """
        settings = {
            "Name": "interop", "StorageDirectory": str(self._folder / "storage"),
            "IndexDirectory": str(self._folder / "storage"), "Plugins": [],
            "DicomAet": self.ae_title, "DicomPort": self.port, "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": True, "DicomAlwaysAllowStore": True,
            "HttpPort": self._http_port, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "OverwriteInstances": False, "SaveJobs": False,
            "DicomScuTimeout": 30, "StableAge": 1,
        }  # fmt: skip
        settings |= changes or {}
        file = self._folder / "orthanc.json"
        file.write_text(json.dumps(settings))
        log = (self._folder / "orthanc.log").open("wb")
        with log:
            self._process = subprocess.Popen(
                [self._program, str(file)], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            wait_for_port(self.port, self._process)
            wait_for_port(self._http_port, self._process)
        except AssertionError:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the program; what it stored stays in its folder."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._http.close()

    def set_modality(self, name: str, ae_title: str, port: int, **allowed: bool) -> None:
        """Make a DICOM application known to Orthanc; ``allowed``: its settings of that name."""
        body = {"AET": ae_title, "Host": "127.0.0.1", "Port": port, **allowed}
        self._http.put(f"/modalities/{name}", json=body).raise_for_status()

    def request_commitment(self, uids: list[tuple[str, str]], modality: str = "node") -> str:
        """Ask a modality for storage commitment; returns Orthanc's name of the transaction."""
        body = {"DicomInstances": [list(pair) for pair in uids]}
        path = f"/modalities/{modality}/storage-commitment"
        return str(self._http.post(path, json=body).raise_for_status().json()["ID"])

    def commitment(self, transaction: str) -> dict[str, Any]:
        """What Orthanc knows of a transaction it began."""
        path = f"/storage-commitment/{transaction}"
        return dict(self._http.get(path).raise_for_status().json())

    def delete_all(self) -> None:
        """Forget every study."""
        for study in self.studies():
            self._http.delete(f"/studies/{study}").raise_for_status()

    def upload(self, path: Path) -> str:
        """Put a file into Orthanc by HTTP; returns Orthanc's name of the instance."""
        answer = self._http.post("/instances", content=path.read_bytes()).raise_for_status()
        return str(answer.json()["ID"])

    def upload_folder(self, folder: Path) -> list[str]:
        return [self.upload(path) for path in sorted(folder.rglob("*")) if _is_dicom(path)]

    def echo(self, modality: str = "node") -> bool:
        return self._http.post(f"/modalities/{modality}/echo", content="{}").status_code == 200

    def store(self, resources: list[str], modality: str = "node") -> httpx.Response:
        """C-STORE resources (instances, series or studies) to a modality; waits for the end."""
        body = {"Resources": resources, "Synchronous": True}
        return self._http.post(f"/modalities/{modality}/store", json=body)

    def studies(self) -> list[str]:
        """Orthanc's names of all studies it holds."""
        return list(self._http.get("/studies").raise_for_status().json())

    def stable_series(self) -> int:
        """How many series got nothing new for ``StableAge``."""
        found = self._http.get("/series", params={"expand": ""}).raise_for_status().json()
        return sum(bool(one["IsStable"]) for one in found)

    def instances(self, study_uid: str, modality: str | None = None) -> list[dict[str, Any]]:
        """Instances of a study: ``ID``, ``MainDicomTags`` (SOPInstanceUID ...), by query."""
        query = {"StudyInstanceUID": study_uid}
        if modality is not None:
            query["Modality"] = modality
        body = {"Level": "Instance", "Query": query, "Expand": True}
        found = self._http.post("/tools/find", json=body).raise_for_status()
        return list(found.json())

    def download(self, instance: str) -> bytes:
        """One instance as a Part 10 file."""
        return self._http.get(f"/instances/{instance}/file").raise_for_status().content


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def shuffled(files: list[Path], seed: int) -> list[Path]:
    """The files in an order that the seed decides."""
    return random.Random(seed).sample(files, len(files))
