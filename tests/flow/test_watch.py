"""The watch over a real store: what it measures, who looks, what it tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from dicom_node.clock import ManualClock
from dicom_node.config import NodeConfig
from dicom_node.domain.alarm import PROCESS_MISSING_S, SETTLE_S, AlarmCode, Change
from dicom_node.domain.canary import STUDY_ROOT, Judgement, RunState
from dicom_node.domain.roles import NEEDED, ProcessRow
from dicom_node.flow.watch import LEASE_S, Watch
from dicom_node.pulse import STUCK_S, Progress, Pulse
from dicom_node.store.store import Store
from tests.databases import open_store
from tests.net.certificates import Authority
from tests.store.life import image, live

H = 3600.0
MakeWatch = Callable[..., Watch]


@pytest.fixture
def clock() -> ManualClock:
    """A Monday, early in the local morning."""
    return ManualClock(datetime(2026, 11, 16, 6).timestamp())  # noqa: DTZ001 - local time is meant


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path}/n.sqlite3", clock, host="here")
    made.installation_id()
    yield made
    made.close()


@pytest.fixture
def watch(store: Store, clock: ManualClock, tmp_path: Path) -> MakeWatch:
    def make(**settings: object) -> Watch:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        alarms = {"disk_free_gib": 0, **settings.pop("alarms", {})}  # type: ignore[dict-item]
        values = {**settings, "alarms": alarms, "node": {"data_dir": folder}}
        return Watch(store, NodeConfig.model_validate(values), clock)

    return make


def peers(**more: object) -> dict[str, object]:
    return {"peers": [{"name": "pacs", "ae_title": "PACS", "host": "h", "port": 104, **more}]}


def codes(watch: Watch) -> list[tuple[AlarmCode, str]]:
    return [(turn.now.code, turn.now.subject) for turn in watch.look()]


def test_silence_counts_in_hours_of_duty_from_the_last_image_of_a_peer(
    watch: MakeWatch, store: Store, clock: ManualClock
) -> None:
    looker = watch(**peers(), alarms={"nothing_received_h": 3})
    assert looker.facts().nothing_received_s == 0, "set up before the hours of duty"
    clock.advance(3 * H)
    assert looker.facts().nothing_received_s == 2 * H
    from dataclasses import replace

    store.add_instances([replace(image("1.2.1", 1, clock.now_s()), calling_ae="PACS")])
    store.add_instances(
        [replace(image(STUDY_ROOT + "1", 1, clock.now_s() + H), calling_ae="CANARY")]
    )
    clock.advance(2 * H)
    assert looker.facts().nothing_received_s == 2 * H
    clock.advance(1.5 * H)
    assert (AlarmCode.NOTHING_RECEIVED, "") in codes(looker)
    assert watch(**peers(may_send=False)).facts().nothing_received_s is None


def test_what_waits_and_what_failed_is_measured(
    watch: MakeWatch, store: Store, clock: ManualClock
) -> None:
    for step in live(store, clock):
        if step == "revise":
            break
    looker = watch(**peers(receives_results=True))
    facts = looker.facts()
    failed, held = store.ended_badly(0.0)
    assert (facts.failed, facts.held) == (failed, held)
    assert failed + held > 0
    clock.advance(25 * H)
    assert (looker.facts().failed, looker.facts().held) == (0, 0), "a day later it is known"


def test_a_storm_of_refusals_is_one_within_an_hour(
    watch: MakeWatch, store: Store, clock: ManualClock
) -> None:
    looker = watch()
    store.record_refusal("A", "B", "10.0.0.1", "calling_ae_unknown", 500)
    assert looker.facts().refusals_last_h == 0, "what came before it began to look"
    store.record_refusal("A", "B", "10.0.0.1", "calling_ae_unknown", 60)
    clock.advance(H / 2)
    store.record_refusal("A", "B", "10.0.0.1", "tls_failed: x", 70)
    assert looker.facts().refusals_last_h == 130
    clock.advance(H)
    assert looker.facts().refusals_last_h <= 130
    clock.advance(1.1 * H)
    assert looker.facts().refusals_last_h == 0


def test_one_of_all_looks_and_another_takes_over(
    watch: MakeWatch, store: Store, clock: ManualClock
) -> None:
    first, second = watch(), watch()
    store.canary_end(
        store.canary_begin(STUDY_ROOT + "1", scheduled=True), Judgement(RunState.FAILED, "lost")
    )
    assert [turn.now.code for turn in first.turn()] == [AlarmCode.CANARY_LOST]
    assert second.turn() == []
    clock.advance(LEASE_S + 1)
    store.canary_end(
        store.canary_begin(STUDY_ROOT + "2", scheduled=True), Judgement(RunState.PASSED, "")
    )
    clock.advance(SETTLE_S)
    assert [turn.change for turn in second.turn()] == [Change.END]
    assert first.turn() == []


def test_a_process_that_goes_without_a_word_is_missed(
    watch: MakeWatch, store: Store, clock: ManualClock
) -> None:
    rows = [ProcessRow(role, role, "", 1, "1", clock.now_s(), clock.now_s()) for role in NEEDED]

    def beat(*roles: str) -> None:
        for row in rows:
            if row.role in roles:
                store.process_beat(row)

    looker = watch(alarms={"every_s": 1})
    beat(*NEEDED)
    assert looker.turn() == []
    for _ in range(4):
        clock.advance(PROCESS_MISSING_S / 2)
        beat("receiver", "delivery")
        told = looker.turn()
        if told:
            break
    assert [(t.now.code, t.now.subject) for t in told] == [
        (AlarmCode.PROCESS_MISSING, "worker on here")
    ]


def test_certificates_and_storage_are_looked_at(
    watch: MakeWatch, tmp_path: Path, store: Store
) -> None:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("node", days=(-1, 7))
    web = {"certificate": str(issued.certificate), "key": str(issued.key)}
    looker = watch(web=web)
    days = looker.facts().certificates
    assert set(days) == {"web"}
    (tmp_path / "data").rmdir()
    assert "does not answer" in looker.facts().storage


def test_what_is_told_goes_to_every_channel_once(
    watch: MakeWatch, store: Store, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("x")
    channels = {
        "webhook_url": "http://localhost:1/", "webhook_secret_file": str(tmp_path / "s"),
        "mail_to": ["a@b.example"], "mail_from": "c@b.example", "mail_host": "localhost",
    }  # fmt: skip
    looker = watch(alarms=channels)
    run = store.canary_begin(STUDY_ROOT + "1", scheduled=True)
    store.canary_end(run, Judgement(RunState.FAILED, "lost"))
    looker.look()
    looker.look()
    due = store.notices_due()
    assert sorted(one.channel for one in due) == ["mail", "webhook"]
    told = json.loads(due[0].body_json)
    assert (told["event"], told["code"], told["found"]) == ("begin", "canary_lost", "lost")


def test_a_pulse_beats_while_the_work_goes_on(store: Store, clock: ManualClock) -> None:
    progress = Progress(clock)
    pulse = Pulse(store, clock, "worker", goes_on=progress.goes_on)
    pulse.start()
    try:
        (row,) = store.processes()
        assert (row.role, row.host, row.age_s(clock.now_s())) == ("worker", "here", 0)
        clock.advance(STUCK_S)
        pulse._beat()
        assert store.processes()[0].age_s(clock.now_s()) == STUCK_S, "its work hangs"
        progress.turn()
        pulse._beat()
        assert store.processes()[0].age_s(clock.now_s()) == 0
    finally:
        pulse.stop()
    assert store.processes() == [], "it ended in order"


def test_a_lease_is_held_by_one_and_a_clock_that_was_set_back_frees_it(
    store: Store, clock: ManualClock
) -> None:
    assert store.lease("x", "one", 60) and store.lease("x", "one", 60)
    assert not store.lease("x", "two", 60)
    clock.advance(59)
    assert store.lease("x", "one", 60)
    clock.advance(59)
    assert not store.lease("x", "two", 60)
    clock.advance(2)
    assert store.lease("x", "two", 60) and not store.lease("x", "one", 60)
    clock.step_wall(-7200)
    assert store.lease("x", "one", 60)
