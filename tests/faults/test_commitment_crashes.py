"""A crash at every step of storage commitment, then a start (`tests/faults/test_crash_points.py`).

As SCU: what was sent is `sent` until the archive has answered, is asked about once, and is not sent
again. As SCP: who asked gets its report, and the same one where it is not known that it came.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicom_node import crash_points
from dicom_node.clock import SystemClock
from dicom_node.domain.confirmation import FIRST_CHECK_S
from dicom_node.flow.confirm import LEASE_S
from dicom_node.store.store import Store
from tests.faults.crashes import PACS, STUDY_UID
from tests.faults.test_crash_points import EACH, Lives, lives, ready
from tests.flow.conftest import MR, T2W, series
from tests.fuzz.campaign import Campaign
from tests.interop.peers import free_port
from tests.net.archive import Archive
from tests.net.conftest import wait_for

__all__ = ["lives", "ready"]
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(7200)]
FIRST_S = FIRST_CHECK_S + 1
NEXT_LIFE = {
    "delivery-committed": FIRST_S, "checks-claimed": LEASE_S + 60, "commitment-opened": 3660.0,
    "commitment-requested": 0.0, "report-taken": 0.0,
}  # fmt: skip
"""So long after the crash the node asks, if it has to: the archive was not asked yet, or was."""
TRANSACTION = "1.2.826.0.1.3680043.8.498.9"


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, lives: Lives, ready: Path) -> Path:
    """The data folder of a node whose report waits for its delivery."""
    folder = tmp_path_factory.mktemp("reported") / "data"
    shutil.copytree(ready, folder)
    assert lives.live(scenario="report", folder=folder, port=1)[0] == 0, lives.log.read_text()
    return folder


@contextmanager
def archive(folder: Path, before: Path) -> Iterator[tuple[Archive, dict[str, Any]]]:
    """An archive that insists on its reports, and the order for a node that knows it."""
    shutil.copytree(before, folder)
    made = Archive("insist", ae_title=PACS, node_port=free_port()).start()
    try:
        ports = {"port": made.port, "own_port": made.node_port}
        yield made, {"folder": folder, "until": folder / "taken", **ports}
    finally:
        made.stop()
        shutil.rmtree(folder)


def note_answer(pacs: Archive, file: Path) -> None:
    """Write a file when the node has taken the report."""
    with contextlib.suppress(AssertionError):  # which the test then says in better words
        wait_for(lambda: 0 in pacs.statuses, 60)
    file.touch()


def delivery_states(folder: Path) -> set[str]:
    store = Store(f"sqlite:///{folder}/node.sqlite3", clock=SystemClock())
    try:
        (study,) = store.studies_list()
    finally:
        store.close()
    return {d["state"] for result in study["results"] for d in result["deliveries"]}


@pytest.mark.parametrize("point", NEXT_LIFE)
def test_G2_G3_crashes_while_asking(
    tmp_path: Path, lives: Lives, reported: Path, point: str
) -> None:
    campaign = Campaign(f"crash at {point}, commitment asked for", EACH, block=1)

    def case(_number: int, _chance: random.Random) -> None:
        with archive(tmp_path / "data", reported) as (pacs, order):
            order["scenario"] = "confirm"
            status, _ = lives.live(point=point, hit=1, advance_s=FIRST_S, **order)
            assert status == crash_points.FAULT_EXIT_STATUS, lives.log.read_text()[-2000:]
            between = delivery_states(tmp_path / "data")
            assert between <= {"pending", "sending", "sent"} or point == "report-taken", between
            taken = threading.Thread(target=note_answer, args=[pacs, order["until"]])
            taken.start()
            status, said = lives.live(recover=True, advance_s=NEXT_LIFE[point], **order)
            taken.join()
            assert status == 0, lives.log.read_text()[-2000:]
            (study,) = said[-1]
            ends = [d["state"] for result in study["results"] for d in result["deliveries"]]
            assert ends and set(ends) == {"verified"}
            assert set(pacs.came.values()) == {1}, "nothing is sent twice"
            assert len(pacs.requests) == 1, "asked once"
            assert pacs.statuses[-1] == 0, "the report was taken"
            assert sorted(pacs.requests[0][1]) == sorted(pacs.came)

    campaign.run(case, limit_s=300)
    campaign.finish()


@pytest.mark.parametrize("point", crash_points.PLEDGE_POINTS)
def test_G2_crashes_while_answering(tmp_path: Path, lives: Lives, ready: Path, point: str) -> None:
    campaign = Campaign(f"crash at {point}, commitment answered", EACH, block=1)
    images = [(MR, str(image.SOPInstanceUID)) for image in series(T2W, study=STUDY_UID)]

    def case(_number: int, _chance: random.Random) -> None:
        with archive(tmp_path / "data", ready) as (peer, order):
            order["scenario"] = "pledge"
            statuses: list[int | None] = []
            over = threading.Event()

            def ask() -> None:  # once, as soon as the port is open
                while not peer.asked and not over.wait(0.05):
                    statuses[:] = [peer.ask(images, TRANSACTION)]

            asking = threading.Thread(target=ask)
            asking.start()
            try:
                status, _ = lives.live(point=point, hit=1, **order)
            finally:
                over.set()
                asking.join()
            assert status == crash_points.FAULT_EXIT_STATUS, lives.log.read_text()[-2000:]
            assert statuses == [None if point == "pledge-written" else 0]
            status, said = lives.live(recover=True, **order)
            assert (status, said[-1]) == (0, ["answered"]), lives.log.read_text()[-2000:]
            # whether the first report came is not known where the crash came before its note
            count = 2 if point == "report-sent" else 1
            wait_for(lambda: len(peer.reports) == count, 10)
            for report in peer.reports:
                assert report.TransactionUID == TRANSACTION
                kept = [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence]
                assert kept == [uid for _, uid in images]
                assert "FailedSOPSequence" not in report

    campaign.run(case, limit_s=300)
    campaign.finish()
