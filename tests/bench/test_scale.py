"""How many studies four workers finish on one PostgreSQL, against one worker.

Two measurements. *Analysis*: the real path with small synthetic studies (T2W and ADC, 40 images),
every worker with one thread; the cores bound its ratio. *Coordination*: the real worker with a
STAND-IN for the model that waits a second, as a worker does whose GPU computes, and analyses
nothing; it shows what claims, heartbeats and commits cost, whatever the cores.

`BENCH_SCALE_STUDIES` (200) and `BENCH_SCALE_WAITING` (200) say how many studies each takes. The
rate counts from the time when every worker has finished one, so that starting and loading the
weights are left out. On a machine that does other work four processes get more of it than one: only
a quiet one tells the ratio of the analysis.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.flow.ingest import Ingest
from dicom_node.flow.promote import evaluate_due
from dicom_node.net.standin import dataset_bytes
from dicom_node.phantom import Role
from dicom_node.store.store import Store
from tests.conftest import ROOT
from tests.databases import postgresql_server
from tests.flow.conftest import encoded, series
from tests.running import wait_until
from tests.studies import StudyMaker

pytestmark = [pytest.mark.bench, pytest.mark.interop, pytest.mark.timeout(14400)]

STUDIES = int(os.environ.get("BENCH_SCALE_STUDIES", "200"))
WAITING = int(os.environ.get("BENCH_SCALE_WAITING", "200"))
AT_ONCE = 4
WAIT_S = 1.0
_NATIVE = "1.2.840.10008.1.2.1"
_LIMIT_S = 7200.0

REAL = ["-m", "dicom_node", "serve", "--roles", "worker"]
STAND_IN = """
import json, sys, time
from pathlib import Path
from dicom_node.clock import SystemClock
from dicom_node.config import load_config
from dicom_node.durable import ensure_dir, write_file
from dicom_node.roles import stop_event
from dicom_node.store.store import Store
from dicom_node.worker import Worker

class Waits:  # in the place of the model: NOT an analysis
    def start(self): pass
    def stop(self): pass
    def ask(self, job, limit_s, beat):
        time.sleep(float(sys.argv[2]))
        assert beat()
        folder = Path(job["out"])
        ensure_dir(folder)
        write_file(folder / "sr-0.dcm", [b"x" * 100_000])
        uid = job["study_uid"] + ".1"
        return {"outcome": "analysed", "results": [{
            "kind": "sr", "variant": "", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
            "sop_instance_uid": uid, "series_uid": uid + ".1", "file": "sr-0.dcm",
            "sha256": "0" * 64, "size": 100_000}]}

stop = stop_event()
config = load_config(Path(sys.argv[1]))
store = Store(config.database_url, clock=SystemClock(), host=sys.argv[3])
worker = Worker(config, store, SystemClock())
worker._child = Waits()
worker.run(stop)
store.close()
"""


@dataclass(frozen=True)
class Rate:
    """What some workers did with their studies."""

    workers: int
    studies: int
    per_hour: float
    cpu_s: float
    shares: tuple[int, ...]


class Queue:
    """A database and a spool with studies that are ready to be analysed."""

    def __init__(self, server: str, folder: Path) -> None:
        name = f"b{uuid.uuid4().hex}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with admin.connect() as db:
            db.execute(text(f"CREATE DATABASE {name}"))
        self.url = server.replace("/postgres?", f"/{name}?")
        folder.mkdir()
        self.file = folder / "node.toml"
        self.file.write_text(
            f'[node]\ndata_dir = "{folder}/data"\ndatabase = "{self.url}"\n'
            "[study]\nquiet_s = 0\n[web]\nenabled = false\n"
            '[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104\n'
            "receives_results = true\n",
            encoding="utf-8",
        )
        self._config = load_config(self.file)
        self._engine = create_engine(self.url, poolclass=NullPool)

    def fill(self, studies: Iterator[Sequence[tuple[bytes, str, str, str]]]) -> None:
        """Receive studies (data set, transfer syntax, SOP class, SOP instance), and plan them."""
        clock = SystemClock()
        data_dir = self._config.node.data_dir
        with closing(Store(self.url, clock=clock, create=True)) as store:
            ingest = Ingest(store, data_dir, clock)
            ingest.start()
            for images in studies:
                for data, syntax, sop_class, instance in images:
                    answer = ingest.accept(
                        dataset_bytes=data, transfer_syntax_uid=syntax, sop_class_uid=sop_class,
                        sop_instance_uid=instance, calling_ae="MR1",
                    )  # fmt: skip
                    assert answer.status == 0, answer
                ingest.file_pending()
            ingest.stop()
            while evaluate_due(store, data_dir, clock, self._config):
                pass
            assert {row["state"] for row in store.studies_list()} == {"ready"}

    def finished(self) -> list[tuple[float, str]]:
        """When studies were finished, and by whom, in order."""
        query = (
            "SELECT a.at, c.host FROM events a JOIN ("
            "  SELECT study_id, max(host) AS host FROM claims_seen GROUP BY study_id"
            ") c ON c.study_id = a.study_id WHERE a.event = 'analysed' ORDER BY a.at"
        )
        with self._engine.connect() as db:
            return [(row[0], row[1]) for row in db.execute(text(query))]

    def watch(self) -> None:
        """Let the database note which host claims a study: the row forgets it when it is done."""
        with self._engine.begin() as db:
            db.execute(text("CREATE TABLE claims_seen (study_id bigint, host text)"))
            db.execute(text(
                "CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " INSERT INTO claims_seen VALUES (NEW.study_id, NEW.host); RETURN NEW; END $$"
            ))  # fmt: skip
            db.execute(text(
                "CREATE TRIGGER note_claim AFTER UPDATE ON revisions FOR EACH ROW"
                " WHEN (OLD.state = 'ready' AND NEW.state = 'running')"
                " EXECUTE FUNCTION note_claim()"
            ))  # fmt: skip

    def work(self, workers: int, studies: int, program: list[str]) -> Rate:
        """Let so many workers finish all studies; each study is claimed once."""
        self.watch()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        names = [f"w{n}" for n in range(workers)]
        running = [self._start([*program, name], environment) for name in names]
        try:
            wait_until(lambda: len(self.finished()) == studies, _LIMIT_S, "all are finished")
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            cpu_s = sum(_end(process) for process in running)
        assert [process.returncode for process in running] == [0] * workers
        ends = self.finished()
        hosts = [host for _, host in ends]
        with self._engine.connect() as db:
            claims = db.execute(text("SELECT count(*) FROM claims_seen")).scalar_one()
        assert claims == studies, "no study was claimed twice"
        begun = max(hosts.index(name) for name in names)  # each has finished one
        per_hour = 3600 * (studies - 1 - begun) / (ends[-1][0] - ends[begun][0])
        return Rate(
            workers,
            studies,
            per_hour,
            cpu_s / studies,
            tuple(sorted(hosts.count(name) for name in names)),
        )

    def _start(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> float:
    """Wait for a worker to end; returns the processor time of it and all its children."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


def compare(title: str, one: Rate, more: Rate) -> None:
    """Print both rates and their ratio."""
    where = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    print(f"\n{title}, {one.studies} studies, PostgreSQL, {where}")
    for rate in (one, more):
        print(f"  {rate.workers} workers: {rate.per_hour:.0f} studies/h, {rate.cpu_s:.2f} s of"
              f" processor time each (starting included), shares {rate.shares}")  # fmt: skip
    print(f"  ratio {more.per_hour / one.per_hour:.2f}")


def waiting_images(number: int) -> list[tuple[bytes, str, str, str]]:
    study = f"1.2.826.0.1.3680043.8.498.{number}"
    return [
        (encoded(image), _NATIVE, str(image.SOPClassUID), str(image.SOPInstanceUID))
        for kind in ("t2w", "adc")
        for image in series(kind, 10, study, PatientID=f"P{number}")
    ]


def test_four_workers_that_wait_for_a_gpu(server: str, tmp_path: Path) -> None:
    rates = []
    for workers in (1, AT_ONCE):
        queue = Queue(server, tmp_path / str(workers))
        queue.fill(waiting_images(number) for number in range(1, WAITING + 1))
        program = ["-c", STAND_IN, str(queue.file), str(WAIT_S)]
        rates.append(queue.work(workers, WAITING, program))
    compare(f"coordination: STAND-IN that waits {WAIT_S:g} s", *rates)


def small_study(studies: StudyMaker, folder: Path) -> list[tuple[bytes, str, str, str]]:
    files = studies.write(folder, folder.name, roles=frozenset({Role.T2W_AXIAL, Role.ADC}))
    heads = [dcmread(path, stop_before_pixels=True) for path in files]
    return [
        (dataset_bytes(path), str(head.file_meta.TransferSyntaxUID), str(head.SOPClassUID),
         str(head.SOPInstanceUID))
        for path, head in zip(files, heads, strict=True)
    ]  # fmt: skip


def test_four_workers_that_analyse(server: str, tmp_path: Path, studies: StudyMaker) -> None:
    rates = []
    for workers in (1, AT_ONCE):
        queue = Queue(server, tmp_path / str(workers))
        sources = (tmp_path / "studies" / f"scale-{number}" for number in range(STUDIES))
        queue.fill(small_study(studies, folder) for folder in sources)
        program = [*REAL, "--config", str(queue.file), "--instance"]
        rates.append(queue.work(workers, STUDIES, program))
    compare("analysis: the real path, one thread for each worker", *rates)
