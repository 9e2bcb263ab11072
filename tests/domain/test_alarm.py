"""The rules of the alarms: what is wrong, and when it begins, is told again and ends."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.alarm import (
    ALARMS,
    SETTLE_S,
    SUBJECTS,
    AlarmCode,
    Change,
    Duty,
    Facts,
    Limits,
    OpenAlarm,
    Raised,
    duty_of,
    raised,
    turns,
)

H = 3600.0
GIB = 2**30
WELL = Facts(
    nothing_received_s=H, study_waits_s=60.0, disk_free_bytes=100 * GIB, destinations={"pacs": 5.0},
    certificates={"tls": 200.0}, channels={"mail": 10.0}, refusals_last_h=3,
)  # fmt: skip
WRONG = [
    (AlarmCode.NOTHING_RECEIVED, "", {"nothing_received_s": 24 * H + 1}),
    (AlarmCode.STUDY_WAITS, "", {"study_waits_s": 2 * H + 1}),
    (AlarmCode.STUDY_FAILED, "", {"failed": 1}),
    (AlarmCode.STUDY_FAILED, "", {"held": 1}),
    (AlarmCode.DESTINATION_FAILING, "pacs", {"destinations": {"pacs": H + 1, "other": H}}),
    (AlarmCode.SENDERS_REFUSED, "", {"refusals_last_h": 101}),
    (AlarmCode.DISK_LOW, "", {"disk_free_bytes": 5 * GIB - 1}),
    (AlarmCode.STORAGE_UNHEALTHY, "", {"storage": "the disk is read-only"}),
    (AlarmCode.DRIFT, "MR1", {"drifting": {"MR1": "t2w spacing"}}),
    (AlarmCode.CANARY_LOST, "", {"canary": "it was not received"}),
    (AlarmCode.PROCESS_MISSING, "worker", {"missing": ["worker"]}),
    (AlarmCode.CERTIFICATE_ENDS, "tls", {"certificates": {"tls": 29.0, "web": 31.0}}),
    (AlarmCode.CERTIFICATE_ENDS, "web", {"certificates": {"web": -1.0}}),
    (AlarmCode.CHANNEL_FAILING, "webhook", {"channels": {"webhook": H + 1, "mail": H}}),
]


def test_a_node_that_is_well_raises_nothing() -> None:
    assert raised(WELL, Limits()) == raised(Facts(), Limits()) == []


@pytest.mark.parametrize(("code", "subject", "change"), WRONG)
def test_each_rule_raises_its_alarm_alone(
    code: AlarmCode, subject: str, change: dict[str, object]
) -> None:
    (found,) = raised(replace(WELL, **change), Limits())  # type: ignore[arg-type]
    assert (found.code, found.subject) == (code, subject)


def test_every_alarm_has_a_rule_words_and_advice() -> None:
    assert {code for code, _, _ in WRONG} == set(AlarmCode) == set(ALARMS)
    assert all(text.words and text.advice for text in ALARMS.values())


def test_a_limit_of_zero_turns_a_rule_off() -> None:
    off = Limits(**{field.name: 0 for field in fields(Limits)})
    facts = Facts(
        nothing_received_s=1e9, study_waits_s=1e9, failed=5, refusals_last_h=10**6,
        disk_free_bytes=1, destinations={"pacs": 1e9}, certificates={"tls": -5.0},
    )  # fmt: skip
    assert raised(facts, off) == []


def test_G5_the_alarms_of_a_code_are_bounded() -> None:
    many = Facts(drifting={f"MR{n}": "x" for n in range(1000)})
    assert len(raised(many, Limits())) == SUBJECTS


MONDAY = datetime(2026, 11, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        (timedelta(hours=8), timedelta(hours=9), 1),
        (timedelta(hours=6), timedelta(hours=8), 1),
        (timedelta(hours=18), timedelta(days=1, hours=8), 2),  # over a night
        (timedelta(days=4, hours=18), timedelta(days=7, hours=8), 2),  # over a weekend
        (timedelta(days=5), timedelta(days=7), 0),
        (timedelta(), timedelta(days=7), 60),
        (timedelta(hours=9), timedelta(hours=8), 0),  # a clock that was set back
    ],
)
def test_nights_and_weekends_do_not_count(since: timedelta, until: timedelta, hours: float) -> None:
    duty = duty_of("mon-fri", "07:00-19:00")
    assert duty.seconds(MONDAY + since, MONDAY + until) == hours * H


@given(
    st.floats(0, 40 * 86_400), st.floats(0, 40 * 86_400), st.frozensets(st.integers(0, 6)),
    st.integers(0, 23), st.integers(0, 23),
)  # fmt: skip
def test_duty_is_never_longer_than_the_time_and_adds_up(
    first_s: float, second_s: float, days: frozenset[int], begins: int, ends: int
) -> None:
    duty = Duty(days, time(begins), time(ends))
    middle = MONDAY + timedelta(seconds=first_s)
    last = middle + timedelta(seconds=second_s)
    one, two = duty.seconds(MONDAY, middle), duty.seconds(middle, last)
    assert 0 <= one <= first_s + 1e-3 and 0 <= two <= second_s + 1e-3
    if first_s + second_s < 59 * 86_400:
        assert duty.seconds(MONDAY, last) == pytest.approx(one + two, abs=1e-3)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ("mon-fri", {0, 1, 2, 3, 4}), ("sat-mon", {5, 6, 0}), ("Tue, sun", {1, 6}),
        ("mon-sun", set(range(7))),
    ],
)  # fmt: skip
def test_days_are_read(days: str, expected: set[int]) -> None:
    assert duty_of(days, "00:00-00:00").days == expected


@pytest.mark.parametrize(
    ("days", "hours"), [("someday", "07:00-19:00"), ("mon", "7"), ("mon", "07:00-25:00"), ("", "")]
)
def test_wrong_hours_are_refused(days: str, hours: str) -> None:
    with pytest.raises(ValueError, match=r"no (days|hours)"):
        duty_of(days, hours)


DISK = Raised(AlarmCode.DISK_LOW, found="1 GiB free")


def open_alarm(seen_s: float, told_s: float) -> OpenAlarm:
    return OpenAlarm(7, AlarmCode.DISK_LOW, "", "2 GiB free", 0.0, seen_s, told_s)


def test_an_alarm_is_told_when_it_begins_again_later_and_when_it_ended() -> None:
    limits = Limits(remind_h=24)
    assert [t.change for t in turns([], [DISK], 0.0, limits)] == [Change.BEGIN]
    assert [t.change for t in turns([open_alarm(0, 0)], [DISK], H, limits)] == [Change.SEEN]
    assert [t.change for t in turns([open_alarm(0, 0)], [DISK], 24 * H, limits)] == [Change.REMIND]
    assert turns([open_alarm(0, 0)], [], SETTLE_S - 1, limits) == []
    (ended,) = turns([open_alarm(0, 0)], [], SETTLE_S, limits)
    assert (ended.change, ended.now.found) == (Change.END, "2 GiB free")


@given(st.lists(st.booleans(), max_size=60), st.sampled_from([15.0, 30.0, 119.0, 121.0]))
def test_begin_and_end_alternate_whatever_flutters(looks: list[bool], every_s: float) -> None:
    going_on: list[OpenAlarm] = []
    told: list[Change] = []
    for number, wrong in enumerate(looks):
        now_s = number * every_s
        for turn in turns(going_on, [DISK] if wrong else [], now_s, Limits(remind_h=0)):
            if turn.change.is_told:
                told.append(turn.change)
            going_on = [] if turn.change is Change.END else [
                OpenAlarm(1, DISK.code, "", DISK.found, 0.0, now_s, now_s)
            ]  # fmt: skip
    assert told == [Change.BEGIN, Change.END] * (len(told) // 2) + [Change.BEGIN] * (len(told) % 2)
