"""`make demo`: the node, a PACS stand-in and one study, on this machine, in a minute.

Starts `dicom-node serve` on a temporary data folder, sends a study over C-STORE, waits for the
results to come back over C-STORE, checks them, prints a table, writes objects and a picture.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from rich.console import Console

from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.durable import write_file
from dicom_node.errors import NodeError
from dicom_node.net.standin import PacsStandIn
from dicom_node.phantom import packaged_study
from dicom_node.store.store import Store

QUIET_S = 2.0
PATIENCE_S = 6.0
WAIT_LIMIT_S = 300.0
LOG_NAME = "node.log"
FINAL = {"delivered", "not_analysable", "failed", "held"}


@dataclass(frozen=True)
class _Node:
    """The running node of the demo."""

    ae_title: str
    port: int
    config_file: Path


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    parser.add_argument(
        "--study", type=Path, help="folder of DICOM files; else the synthetic study"
    )
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        return _run(options.study or packaged_study(), options.out, console)
    except NodeError as error:
        console.print(f"[red]demo failed:[/red] {error}")
        return 1


def _run(study: Path, out: Path, console: Console) -> int:
    files = dicom_files(study)
    uid = _study_uid(files, study)
    _make_output_folder(out)
    with tempfile.TemporaryDirectory(prefix="dicom-node-demo-") as scratch:
        folder = Path(scratch)
        pacs = PacsStandIn("DEMO_PACS", folder / "pacs")
        pacs_port = pacs.start()
        try:
            with _running_node(folder, pacs_port, out / LOG_NAME, console) as node:
                sent_at = time.monotonic()
                console.print(f"sending {len(files)} images to {node.ae_title} by C-STORE ...")
                pacs.send(files, host="127.0.0.1", port=node.port, ae_title=node.ae_title)
                stored_s = time.monotonic() - sent_at
                row = _wait_for_results(node, uid, console)
                timings = _timings(node)
            return _report(row, timings, pacs, files, out, stored_s, console)
        finally:
            pacs.stop()


def _make_output_folder(out: Path) -> None:
    """Empty the folder of an earlier demo; never one that holds something else."""
    if out.exists() and any(out.iterdir()) and not (out / LOG_NAME).exists():
        raise NodeError(f"{out} is not empty and not of an earlier demo", "give another --out")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files below a folder, in order; others are left out."""
    if not folder.is_dir():
        raise NodeError(f"no folder {folder}", "give STUDY=<folder of DICOM files>")
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pydicom.dcmread(path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        if path.name != "DICOMDIR":
            found.append(path)
    if not found:
        raise NodeError(f"{folder} holds no DICOM files", "give STUDY=<folder of DICOM files>")
    return found


def _study_uid(files: list[Path], folder: Path) -> str:
    uids = {
        str(pydicom.dcmread(f, specific_tags=["StudyInstanceUID"]).StudyInstanceUID) for f in files
    }
    if len(uids) != 1:
        raise NodeError(f"{folder} holds {len(uids)} studies", "give the folder of one study")
    return uids.pop()


@contextmanager
def _running_node(
    folder: Path, pacs_port: int, log_file: Path, console: Console
) -> Iterator[_Node]:
    """Start `dicom-node serve` as an administrator would, and stop it at the end."""
    config_file = folder / "node.toml"
    write_file(config_file, [_configuration(pacs_port).encode()])
    command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(config_file)]
    with log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        port = _await_ready(process, console, log_file)
        yield _Node("PROSTATE_AI", port, config_file)
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _configuration(pacs_port: int) -> str:
    return f"""
[node]
port = 0
[study]
quiet_s = {QUIET_S}
patience_s = {PATIENCE_S}
[web]
enabled = false
[[peers]]
name = "pacs"
ae_title = "DEMO_PACS"
host = "127.0.0.1"
port = {pacs_port}
receives_results = true
"""


def _await_ready(process: subprocess.Popen[str], console: Console, log_file: Path) -> int:
    port = 0
    for line in process.stdout or ():
        text = line.strip()
        if text == "ready":
            console.print("node is ready")
            return port
        console.print(text, style="dim")
        if text.startswith("DICOM "):
            port = int(text.rsplit(":", 1)[1])
    raise NodeError("the node did not start", f"see {log_file}")


def _wait_for_results(node: _Node, uid: str, console: Console) -> dict[str, object]:
    """Follow the study until it and its deliveries are final."""
    config = load_config(node.config_file)
    store = Store(config.database_url, clock=SystemClock())
    deadline = time.monotonic() + WAIT_LIMIT_S
    shown = ""
    try:
        while time.monotonic() < deadline:
            rows = store.studies_show(uid)
            if rows:
                row = rows[-1] if rows[-1]["revision"] >= rows[0]["revision"] else rows[0]
                if row["state"] != shown:
                    shown = str(row["state"])
                    console.print(f"study is {shown}")
                if shown in FINAL and _deliveries_final(row):
                    return row
            time.sleep(0.2)
    finally:
        store.close()
    raise NodeError(f"no result after {WAIT_LIMIT_S:.0f} s", "see node.log in the output folder")


def _timings(node: _Node) -> dict[str, float]:
    """Seconds per stage of the analysis, as stored with the result."""
    folder = load_config(node.config_file).node.data_dir / "results"
    for file in folder.rglob("result.json"):
        timings: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))["timings_s"]
        return timings
    return {}


def _deliveries_final(row: dict[str, object]) -> bool:
    results = row["results"]
    assert isinstance(results, list)  # noqa: S101 - shape fixed by the store
    states = [delivery["state"] for result in results for delivery in result["deliveries"]]
    return all(state in ("sent", "verified", "failed") for state in states)


def _report(
    row: dict[str, object],
    timings: dict[str, float],
    pacs: PacsStandIn,
    files: list[Path],
    out: Path,
    stored_s: float,
    console: Console,
) -> int:
    from dicom_node.demo_report import collect, show

    results = row["results"]
    assert isinstance(results, list)  # noqa: S101 - shape fixed by the store
    objects = collect(results, pacs, out)
    show(console, row, timings, objects, len(files), stored_s, out)
    if row["state"] not in ("delivered", "not_analysable"):
        console.print(f"[red]the study ended as {row['state']}:[/red] {row['message']}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
