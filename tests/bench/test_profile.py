"""Where the time of one received image goes: wall and processor time of each step of the way.

Without the network: the images of the public examination, twice, under new UIDs, one after the
other as one association sends them. `BENCH_FOLDER` names another disk than that of the tests.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest

from dicom_node.clock import SystemClock
from dicom_node.flow import ingest as ingest_module
from dicom_node.flow.ingest import Ingest
from dicom_node.store.store import Store
from tests.bench.test_ingest import copies

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]
INSTANCES = 328


class Shares:
    """Wall and processor time by step, in seconds."""

    def __init__(self) -> None:
        self.wall_s: Counter[str] = Counter()
        self.cpu_s: Counter[str] = Counter()

    def timed(self, step: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                return real(*arguments, **named)
            finally:
                self.wall_s[step] += time.perf_counter() - wall_s
                self.cpu_s[step] += time.thread_time() - cpu_s

        return call

    def show(self, count: int) -> None:
        print(f"\n{count} images, ms for each:  wall  processor")
        for step, seconds in self.wall_s.items():
            print(f"  {step:22} {seconds / count * 1e3:8.3f} {self.cpu_s[step] / count * 1e3:8.3f}")


def test_where_the_time_of_an_image_goes(
    prostatex_0000: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = copies(prostatex_0000, tmp_path / "copies", INSTANCES, 1)
    images = [(path.read_bytes(), head_of(path)) for path in sorted(folder.iterdir())]
    shares = Shares()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER", tmp_path)) as place:
        data_dir = Path(place)
        store = Store(f"sqlite:///{data_dir}/n.sqlite3", clock=SystemClock(), create=True)
        ingest = Ingest(store, data_dir, SystemClock())
        ingest._journal.make_ready()
        accept = shares.timed("all before the answer", ingest.accept)
        sha256 = shares.timed("  digest", hashlib.sha256)
        with monkeypatch.context() as patch:
            patch.setattr(
                ingest_module, "read_header", shares.timed("  header", ingest_module.read_header)
            )
            patch.setattr(ingest_module, "hashlib", SimpleNamespace(sha256=sha256))
            patch.setattr(os, "pwritev", shares.timed("  write", os.pwritev))
            patch.setattr(os, "fdatasync", shares.timed("  flush of the disk", os.fdatasync))
            for data, (offset, syntax, sop_class, uid) in images:
                answer = accept(
                    dataset_bytes=data[offset:], transfer_syntax_uid=syntax,
                    sop_class_uid=sop_class, sop_instance_uid=uid,
                )  # fmt: skip
                assert answer.status == 0
        shares.timed("file and row, afterwards", ingest.file_pending)()
        ingest.stop()
        store.close()
    shares.show(len(images))


def head_of(path: Path) -> tuple[int, str, str, str]:
    """Offset of the data set, transfer syntax, SOP class and instance of a file."""
    meta = pydicom.filereader.read_file_meta_info(path)
    offset = 144 + int(meta.FileMetaInformationGroupLength)
    uid, sop_class = meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID
    return offset, str(meta.TransferSyntaxUID), str(sop_class), str(uid)
