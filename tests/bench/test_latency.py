"""From the last image to results in the PACS, by stage, and the peak memory of all processes.

`make bench` prints it for the public examination (where it is there) and for a synthetic study of
about 2,000 images with 70 dynamic phases. Nothing here fails on time.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ai_core.sim.study import simulate_study
from dicom_node.net.standin import PacsStandIn
from dicom_node.phantom import PhantomOptions, write_study
from tests.running import NodeUnderTest, pacs_peer
from tests.studies import study_uid

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
QUIET_S = 2.0


@dataclass
class MemoryWatch:
    """Sum of the proportional set sizes (PSS) of a process group, and its peak, in MiB."""

    group: int
    peak_mib: float = 0.0
    by_role_mib: dict[str, float] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.wait(0.25):
            self.peak_mib = max(self.peak_mib, sum(self._sample()))

    def _sample(self) -> list[float]:
        sizes = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[2]) != self.group:
                    continue
                pss = next(
                    line for line in (folder / "smaps_rollup").read_text().splitlines()
                    if line.startswith("Pss:")
                )  # fmt: skip
                role = (folder / "cmdline").read_bytes().split(b"\0")
                size = int(pss.split()[1]) / 1024
                name = b" ".join(part for part in role[2:4] if b"/" not in part).decode()
                self.by_role_mib[name] = max(size, self.by_role_mib.get(name, 0.0))
                sizes.append(size)
            except (OSError, StopIteration):
                continue  # ended meanwhile
        return sizes


def measure(files: list[Path], tmp_path: Path, title: str) -> None:
    with PacsStandIn("PACS", tmp_path / "pacs") as pacs:
        node = NodeUnderTest(tmp_path / "node", pacs_peer(pacs.port), quiet_s=QUIET_S)
        begun = time.monotonic()
        node.start()
        start_s = time.monotonic() - begun
        watch = MemoryWatch(node.pid)
        watching = threading.Thread(target=watch.run)
        watching.start()
        try:
            time.sleep(15)  # the model loads while the node waits for its first study
            begun = time.monotonic()
            pacs.send(files, host="127.0.0.1", port=node.port, ae_title="PROSTATE_AI")
            sent_s = time.monotonic() - begun
            begun = time.monotonic()
            row = node.wait_for(study_uid(files), {"delivered", "failed", "not_analysable"}, 600)
            back_s = time.monotonic() - begun
        finally:
            watch.stop.set()
            watching.join()
            node.stop()
        result = next((node.data_dir / "results").rglob("result.json"))
        timings = json.loads(result.read_text())["timings_s"]
    print(f"\n{title}: {len(files)} images, state {row['state']}")
    print(f"  node start to ready            {start_s:7.1f} s")
    print(f"  receive                        {sent_s:7.1f} s, {len(files) / sent_s:.0f} images/s")
    print(f"  last image to results in PACS  {back_s:7.1f} s, of it quiet_s {QUIET_S:g} s")
    for stage, seconds in timings.items():
        print(f"    {stage:<28} {seconds:7.1f} s")
    print(f"  peak memory, all processes     {watch.peak_mib:7.0f} MiB")
    for role, size in sorted(watch.by_role_mib.items(), key=lambda item: -item[1]):
        print(f"    {role:<28} {size:7.0f} MiB")


def test_public_examination(prostatex_0000: Path, tmp_path: Path) -> None:
    measure(sorted(prostatex_0000.rglob("*.dcm")), tmp_path, "PROSTATEx ProstateX-0000")


def test_two_thousand_images_with_seventy_phases(tmp_path: Path) -> None:
    study = simulate_study(7, lesion=True, slices=26, dce_phases=6)
    options = PhantomOptions(uid_seed="bench", patient_id="BENCH", dce_phases=70)
    files = write_study(study, tmp_path / "study", options=options)
    measure(files, tmp_path, "synthetic, 70 dynamic phases")
