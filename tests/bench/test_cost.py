"""What operations cost with a million instances in the database, against hardly any.

`COST_INSTANCES` (1,000,000) is the size of the large database; it is filled once and kept in the
temporary folder (3.8 GB for a million). Both databases end with the same 30 studies of the last
ten days; the large one holds years of others before them. Every operation is done on the one and on
the other, in turn, each time on a study that is new.

CPU time is that of this process. Pages are those of SQLite: touched (each step down an index
counts) and read from the file with an empty page cache, as after another process has written.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.dicom.header import read_header
from dicom_node.domain.audit import APPLICATION, AuditEvent, AuditMessage, Participant
from dicom_node.domain.confirmation import FIRST_CHECK_S
from dicom_node.flow.promote import evaluate_due
from dicom_node.flow.spool import Source, instance_row
from dicom_node.store.engine import HEAD
from dicom_node.store.rows import Destination, InstanceRow, ResultRow
from dicom_node.store.store import Store
from tests.bench.archive_rows import DAY_S, SYNTAX, Filling, digest, fill
from tests.flow.conftest import ADC, T2W, encoded, series

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

INSTANCES = int(os.environ.get("COST_INSTANCES", "1000000"))
ROUNDS = int(os.environ.get("COST_ROUNDS", "25"))
PER_STUDY = 320
NOW_S = 1_800_000_000.0
PACS = Destination("pacs", ("sr", "seg-lesions", "seg-gland", "key-images"))
_HIT, _MISS = 7, 8  # SQLITE_DBSTATUS_CACHE_HIT, SQLITE_DBSTATUS_CACHE_MISS
_SQLITE = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")


class Pages:
    """Counts the pages that the connections of a store touch, and read from the file."""

    def __init__(self, store: Store) -> None:
        self._open: list[Any] = []
        event.listen(store._engine, "connect", lambda one, _: self._open.append(one))

    def _handles(self) -> Iterator[ctypes.c_void_p]:
        # the first member of CPython's connection object, behind its head, is the sqlite3 pointer
        for one in self._open:
            yield ctypes.c_void_p.from_address(id(one) + object.__basicsize__)

    def _sum(self, what: int) -> int:
        total = 0
        for handle in self._handles():
            now, most = ctypes.c_int(), ctypes.c_int()
            _SQLITE.sqlite3_db_status(handle, what, ctypes.byref(now), ctypes.byref(most), 0)
            total += now.value
        return total

    def forget(self) -> None:
        """Empty the page cache of every connection."""
        for handle in self._handles():
            _SQLITE.sqlite3_db_release_memory(handle)

    def read(self) -> int:
        return self._sum(_MISS)

    def touched(self) -> int:
        return self._sum(_HIT) + self._sum(_MISS)


@dataclass
class Side:
    """One of the two databases, and what was measured on it."""

    folder: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW_S))
    cpu_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    touched: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    read: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.config = NodeConfig.model_validate({"node": {"data_dir": self.folder}})
        self.store = Store(self.config.database_url, clock=self.clock, host="here")
        self.store.close()
        self.pages = Pages(self.store)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        self.pages.forget()
        touched, read, since_s = self.pages.touched(), self.pages.read(), time.process_time()
        yield
        self.cpu_s[name].append(time.process_time() - since_s)
        self.touched[name].append(self.pages.touched() - touched)
        self.read[name].append(self.pages.read() - read)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    recent = Filling(30, 32, NOW_S - 3600, "recent")
    before_s = recent.received_s(0) - 8 * 3600
    old = Filling(INSTANCES // PER_STUDY, PER_STUDY, before_s)
    kept = Path(tempfile.gettempdir()) / f"dicom-node-cost-{HEAD}-{INSTANCES}.sqlite3"
    if not kept.exists():
        made = kept.with_suffix(f".{os.getpid()}")
        fill(made, old, recent)
        made.rename(kept)
    small, large = tmp_path / "small", tmp_path / "large"
    for folder in (small, large):
        folder.mkdir()
    fill(small / "node.sqlite3", recent)
    shutil.copyfile(kept, large / "node.sqlite3")
    both = Side(small), Side(large)
    yield both
    for side in both:
        side.store.close()
    shutil.rmtree(large)


def rows_of(study: str, now_s: float) -> list[InstanceRow]:
    """A complete study as the receive path makes its rows."""
    images = series(T2W, study=study) + series(ADC, study=study)
    headers = [read_header(encoded(image), SYNTAX) for image in images]
    return [
        instance_row(one, SYNTAX, digest(one.sop_instance_uid), 110_000,
                     Source("PACS", "PROSTATE_AI", "10.0.0.5", now_s))
        for one in headers
    ]  # fmt: skip


def results_of(study: str) -> list[ResultRow]:
    return [
        ResultRow(kind, f"1.2.840.10008.5.1.4.1.1.{66 + n}", f"{study}.9.{n}", f"{study}.9",
                  f"results/{digest(study)[:16]}-1/{kind}.dcm", digest(kind), 60_000)
        for n, kind in enumerate(PACS.kinds)
    ]  # fmt: skip


def start(side: Side) -> None:
    """What the database is asked at a start (`dicom_node.flow.recover`)."""
    store = side.store
    last_s = store.last_boot_s() or side.clock.now_s()
    with side.measured("start: rows of two days, work taken back"):
        store.paths_since(last_s - 2 * DAY_S)
        boot = store.start_boot()
        store.recover_after_node_death(boot)
        store.recover_deliveries()


def receive(side: Side, rows: list[InstanceRow]) -> None:
    store = side.store
    with side.measured("file a batch of 40 images"):
        store.known_paths([row.path for row in rows])
        store.add_instances(rows)
    with side.measured("file the same batch again"):
        store.known_paths([row.path for row in rows])
        store.add_instances(rows)
    with side.measured("find an instance"):
        store.find_instance(rows[0].study_uid, rows[0].sop_instance_uid)
    with side.measured("answer a commitment request"):
        store.held(rows[0].sop_instance_uid)


def work(side: Side, study: str) -> None:
    store = side.store
    with side.measured("idle look of the worker"):
        evaluate_due(store, side.folder, side.clock, side.config)
        store.claim_ready("worker-0")
    side.clock.advance(11)
    with side.measured("completion: a study is due"):
        evaluate_due(store, side.folder, side.clock, side.config)
    with side.measured("claim"):
        claim = store.claim_ready("worker-0")
    assert claim is not None
    with side.measured("read the inputs of a claim"):
        store.headers_of(study, through=claim.through)
    with side.measured("heartbeat"):
        store.heartbeat(claim)
    with side.measured("finish, 4 results"):
        store.finish_analysed(claim, results_of(study), [PACS])


def deliver(side: Side) -> None:
    store = side.store
    with side.measured("idle look of the delivery"):
        store.peers_with_checks()
        store.reap_stale_deliveries()
        store.expire_deliveries(72 * 3600)
    with side.measured("claim 4 deliveries"):
        claims = store.claim_deliveries("pacs", "d")
    assert len(claims) == 4
    with side.measured("note 4 as sent"):
        for claim in claims:
            store.delivery_sent(claim)
    side.clock.advance(FIRST_CHECK_S)
    with side.measured("claim commitment checks"):
        store.peers_with_checks()
        rows = store.claim_checks("pacs", 300)
    assert len(rows) == 4
    uid = f"{rows[0].study_uid}.7"
    with side.measured("request and take commitment"):
        store.open_commitment(uid, "pacs", rows, 3600)
        store.commitment_answered(uid, ["pacs"], {row.sop_instance_uid for row in rows}, {})
    with side.measured("manifest"):
        for row in store.manifests_due():
            store.manifest_written(row)


def look(side: Side, study: str) -> None:
    store = side.store
    with side.measured("status, readiness"):
        store.status()
    with side.measured("studies list, newest 25"):
        store.studies_list(25)
    with side.measured("studies show, timeline"):
        store.studies_show(study)
        store.timeline(study)
        store.delivery_details(study)
    with side.measured("record a refusal"):
        store.record_refusal("STRANGER", "PROSTATE_AI", "10.0.0.99", "unknown AE title")
    who = [Participant("1", APPLICATION)]
    with side.measured("append an audit record"):
        message = AuditMessage(AuditEvent.APPLICATION_START, side.clock.now_s(), who)
        store.audit_append([message], "NODE@host")
    with side.measured("round of the janitor"):
        store.reap_stale()
        store.pull_back_times(1800.0, 3600.0)


def test_cost_does_not_grow_with_what_was_received(sides: tuple[Side, Side]) -> None:
    for number in range(ROUNDS + 1):
        study = f"1.2.826.0.1.3680043.8.498.{10**18 + number}"
        rows = rows_of(study, sides[0].clock.now_s())
        for side in sides if number % 2 else sides[::-1]:
            start(side)
            receive(side, rows)
            work(side, study)
            deliver(side)
            look(side, study)
        if number == 0:  # statements are compiled once in the life of a process
            for side in sides:
                for measured in (side.cpu_s, side.touched, side.read):
                    measured.clear()
    small, large = sides
    shown = small.store.status()["held"]["instances"], large.store.status()["held"]["instances"]
    print(f"\n{shown[1]:,} instances against {shown[0]:,}, medians of {ROUNDS} rounds")
    print(f"{'':42}{'CPU ms':>16}{'ratio':>6}{'touched':>14}{'ratio':>6}{'read':>12}{'ratio':>6}")
    for name in small.cpu_s:
        print(f"{name:42}" + "".join(_cells(name, small, large)))
    for name in ("cpu_s", "touched", "read"):
        sums = [sum(map(statistics.median, getattr(one, name).values())) for one in sides]
        print(f"all operations together, {name}: {sums[1] / sums[0]:.2f}")


def _cells(name: str, small: Side, large: Side) -> Iterator[str]:
    pairs = zip(small.cpu_s[name], large.cpu_s[name], strict=True)
    one, other = (statistics.median(side.cpu_s[name]) * 1e3 for side in (small, large))
    yield f"{one:8.2f}{other:8.2f}{statistics.median(b / a for a, b in pairs):6.2f}"
    for few, many in ((small.touched, large.touched), (small.read, large.read)):
        one, other = statistics.median(few[name]), statistics.median(many[name])
        yield f"{one:7.0f}{other:7.0f}{other / max(one, 1):6.2f}"
