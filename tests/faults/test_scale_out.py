"""A node in parts: PostgreSQL, one spool, two receivers, four workers; parts die and are cut off.

One receiver is killed as it acknowledges the last image and does not come back; one worker is
killed in the middle of an analysis and started again; one is cut off from the database in the
middle of another. Every study is delivered, once, and nothing acknowledged is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from dicom_node.clock import SystemClock
from dicom_node.net.outcomes import Outcome
from dicom_node.net.sender import Address, outgoing, send_each
from dicom_node.net.standin import PacsStandIn, dataset_bytes
from dicom_node.store.store import Store
from tests.databases import postgresql_server
from tests.faults.cut import Wire
from tests.interop.peers import free_port
from tests.running import NodeUnderTest, pacs_peer, wait_until
from tests.studies import StudyMaker, study_uid

pytestmark = [
    pytest.mark.faults, pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(900),
]  # fmt: skip

STUDIES, MOST_STUDIES = 4, 12
LIMIT_S = 300.0
WORKERS = ("w1", "w2", "w3", "w4")
KILLED, CUT = "w1", "w2"


class Hospital:
    """The parts of one node, and what they share."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        port = free_port()
        stack.enter_context(postgresql_server(port))
        self.url = f"postgresql+psycopg://node@127.0.0.1:{port}/postgres"
        self.wire = stack.enter_context(Wire(port))
        self.pacs = stack.enter_context(PacsStandIn("PACS", folder / "pacs"))
        self.data_dir = folder / "shared"
        self._folder = folder
        self.acknowledged: dict[str, bytes] = {}
        self.sent: list[list[Path]] = []
        self.parts: dict[str, NodeUnderTest] = {}
        for name, roles in {
            "r1": "receiver", "r2": "receiver,delivery", **dict.fromkeys(WORKERS, "worker"),
        }.items():  # fmt: skip
            self.parts[name] = self._part(name, roles)
        self.parts["r1"].command("migrate")
        self.store = Store(self.url, clock=SystemClock())
        stack.callback(self.store.close)
        engine = create_engine(self.url, poolclass=NullPool)
        self._look = stack.enter_context(engine.connect().execution_options(
            isolation_level="AUTOCOMMIT"
        ))  # fmt: skip

    def _part(self, name: str, roles: str) -> NodeUnderTest:
        url = self.url
        if name == CUT:
            url = url.replace(url.rsplit(":", 1)[1].split("/")[0], str(self.wire.port))
        node = f'data_dir = "{self.data_dir}"\ndatabase = "{url}"\n'
        return NodeUnderTest(
            self._folder / name, pacs_peer(self.pacs.port), quiet_s=3.0, patience_s=600.0,
            web=False, node=node, arguments=("--roles", roles, "--instance", name),
        )  # fmt: skip

    def send(self, files: Sequence[Path], receiver: str) -> None:
        """Send images to one of the receivers; all are acknowledged."""
        to = Address("PROSTATE_AI", "127.0.0.1", self.parts[receiver].port)
        paths = {one.sop_instance_uid: one.path for one in map(outgoing, files)}
        for status in send_each(to, [outgoing(path) for path in files], calling_ae="PACS"):
            assert status.outcome is Outcome.SENT, status
            uid = status.sop_instance_uid
            self.acknowledged[uid] = dataset_bytes(paths[uid])

    def running(self, name: str) -> str | None:
        """The study that an instance analyses now."""
        query = (
            "SELECT s.study_uid FROM revisions r JOIN studies s ON s.id = r.study_id"
            " WHERE r.state = 'running' AND r.host = :host"
        )
        return self._look.execute(text(query), {"host": name}).scalar_one_or_none()

    def events(self, uid: str) -> list[tuple[str, str]]:
        """The timeline of a study: events and their details."""
        query = (
            "SELECT e.event, e.detail FROM events e JOIN studies s ON s.id = e.study_id"
            " WHERE s.study_uid = :uid ORDER BY e.id"
        )
        return [(row[0], row[1]) for row in self._look.execute(text(query), {"uid": uid})]

    def rows(self) -> list[dict[str, Any]]:
        """Every revision of every study."""
        return [row for files in self.sent for row in self.store.studies_show(study_uid(files))]


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    with ExitStack() as stack:
        made = Hospital(stack, tmp_path)
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(NodeUnderTest.start, made.parts.values()))
            yield made
        finally:
            made.wire.heal()
            living = [part for part in made.parts.values() if part.running]
            with ThreadPoolExecutor() as pool:
                statuses = list(pool.map(NodeUnderTest.stop, living))
        assert set(statuses) == {0}


def test_G1_G2_G3_parts_that_die_and_one_that_is_cut_off(
    hospital: Hospital, tmp_path: Path, studies: StudyMaker
) -> None:
    def write() -> list[Path]:
        number = len(hospital.sent)
        hospital.sent.append(studies.write(tmp_path / "studies" / str(number), f"scale-{number}"))
        return hospital.sent[-1]

    whole = write()
    middle = _middle_of_t2w(whole)  # the study cannot start before all of it is filed
    hospital.send([path for path in whole if path not in middle], "r2")
    hospital.send(middle, "r1")
    hospital.parts["r1"].kill()  # what it acknowledged is for r2 to file
    while len(hospital.sent) < STUDIES:
        hospital.send(write(), "r2")
    hit: dict[str, str] = {}

    def harm() -> bool:
        for name in {KILLED, CUT} - hit.keys():
            if uid := hospital.running(name):
                hit[name] = uid
                hospital.wire.cut() if name == CUT else hospital.parts[name].kill()
        queue = hospital.store.work_waits()
        if len(hit) < 2 and not queue and len(hospital.sent) < MOST_STUDIES:
            hospital.send(write(), "r2")
        return len(hit) == 2

    wait_until(harm, LIMIT_S, "both workers had a study")
    hospital.parts[KILLED].start()
    wait_until(lambda: _ended(hospital), LIMIT_S, "every study has ended")
    hospital.wire.heal()
    lost = hospital.parts[CUT]
    wait_until(lambda: "the claim was taken back" in lost.log(), LIMIT_S, "it lost its claim")
    _check(hospital, hit)


def _middle_of_t2w(files: list[Path]) -> list[Path]:
    heads = {path: dcmread(path, stop_before_pixels=True) for path in files}
    t2w = [path for path, head in heads.items() if "t2" in head.SeriesDescription.lower()]
    assert 6 < len(t2w) < len(files)
    t2w.sort(key=lambda path: float(heads[path].ImagePositionPatient[2]))
    return t2w[len(t2w) // 3 : 2 * len(t2w) // 3]


def _ended(hospital: Hospital) -> bool:
    final = {"delivered", "failed", "held", "not_analysable", "superseded"}
    rows = hospital.rows()
    return len(rows) >= len(hospital.sent) and {row["state"] for row in rows} <= final


def _check(hospital: Hospital, hit: dict[str, str]) -> None:
    # G1: whatever was acknowledged is there, by whichever receiver
    stored = {
        row.sop_instance_uid: dataset_bytes(hospital.data_dir / row.path)
        for files in hospital.sent
        for row in hospital.store.headers_of(study_uid(files))
    }
    assert stored == hospital.acknowledged
    # G2, G3: one revision each, delivered; every object at the PACS once, byte by byte
    rows = hospital.rows()
    assert [(row["revision"], row["state"]) for row in rows] == [(1, "delivered")] * len(
        hospital.sent
    )
    for row in rows:
        filed = hospital.pacs.filed(row["study_uid"])
        assert {one.sop_instance_uid for one in filed} == {
            result["sop_instance_uid"] for result in row["results"]
        }
        assert [(one.copies, one.differing) for one in filed] == [(1, 0)] * len(filed)
    # what was cut short was taken back and done again, each finished once
    for name, uid in hit.items():
        timeline = hospital.events(uid)
        counts = Counter(event for event, _ in timeline)
        assert (counts["claim"], counts["node_died"], counts["analysed"]) == (2, 1, 1), (
            name, timeline,
        )  # fmt: skip
