"""Alarms: what counts as one, in which words it is told, when it begins and ends. Pure.

What was measured goes in as `Facts`, the settings as `Limits`; what is wrong comes out, and what is
to be told of it. Nothing here knows a patient: subjects are peers, scanners, processes, files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum

PROCESS_MISSING_S = 60.0
"""A process that was not seen for longer is missing; a restart takes less."""
SETTLE_S = 120.0
"""What was wrong must be right for so long before its alarm ends: what flutters is told once."""
DUTY_DAYS_LOOKED_AT = 60
"""Further back the hours of duty are not counted."""
SUBJECTS = 20
"""So many alarms of one code at once (G5)."""
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class AlarmCode(StrEnum):
    """What can be wrong."""

    NOTHING_RECEIVED = "nothing_received"
    STUDY_WAITS = "study_waits"
    STUDY_FAILED = "study_failed"
    DESTINATION_FAILING = "destination_failing"
    SENDERS_REFUSED = "senders_refused"
    DISK_LOW = "disk_low"
    STORAGE_UNHEALTHY = "storage_unhealthy"
    DRIFT = "drift"
    CANARY_LOST = "canary_lost"
    PROCESS_MISSING = "process_missing"
    CERTIFICATE_ENDS = "certificate_ends"
    CHANNEL_FAILING = "channel_failing"


class Severity(StrEnum):
    """How soon somebody should look."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True)
class AlarmText:
    """An alarm in plain words, and what to do."""

    severity: Severity
    words: str
    advice: str


ALARMS: Mapping[AlarmCode, AlarmText] = {
    AlarmCode.NOTHING_RECEIVED: AlarmText(
        Severity.WARNING, "nothing was received",
        "see the routing rule of the PACS, echo the node from there, look for refused senders",
    ),
    AlarmCode.STUDY_WAITS: AlarmText(
        Severity.CRITICAL, "a study waits for too long",
        "see dicom-node studies list and the log of the worker",
    ),
    AlarmCode.STUDY_FAILED: AlarmText(
        Severity.WARNING, "studies failed or are held",
        "see their reasons in dicom-node studies list, mend them, then studies retry",
    ),
    AlarmCode.DESTINATION_FAILING: AlarmText(
        Severity.CRITICAL, "results do not reach a destination",
        "run dicom-node peers echo with its name; results are kept and sent until give_up_h",
    ),
    AlarmCode.SENDERS_REFUSED: AlarmText(
        Severity.WARNING, "many association requests were refused",
        "see the refused senders in the console: allow them, or find out who tries",
    ),
    AlarmCode.DISK_LOW: AlarmText(
        Severity.WARNING, "the disk runs full",
        "free some space or enlarge the disk; when it is full nothing more is received",
    ),
    AlarmCode.STORAGE_UNHEALTHY: AlarmText(
        Severity.CRITICAL, "nothing can be stored",
        "see dicom-node doctor; senders are told to try again",
    ),
    AlarmCode.DRIFT: AlarmText(
        Severity.WARNING, "a scanner sends other images, or gets other results, than before",
        "see dicom-node models drift; ask what was changed at the scanner",
    ),
    AlarmCode.CANARY_LOST: AlarmText(
        Severity.CRITICAL, "the test study did not come back",
        "see dicom-node canary list: what stopped it stops studies of patients too",
    ),
    AlarmCode.PROCESS_MISSING: AlarmText(
        Severity.CRITICAL, "a process of the node is missing",
        "see its log, and that the node runs on that host",
    ),
    AlarmCode.CERTIFICATE_ENDS: AlarmText(
        Severity.WARNING, "a certificate ends soon",
        "have a new one made, put it in place, restart the node",
    ),
    AlarmCode.CHANNEL_FAILING: AlarmText(
        Severity.WARNING, "alarms cannot be told",
        "run dicom-node alarms test and see what it says of this channel",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Duty:
    """The hours in which images are expected: days (0 is Monday), begin and end of each."""

    days: frozenset[int] = frozenset(range(5))
    begins: time = time(7)
    ends: time = time(19)

    def seconds(self, since: datetime, until: datetime) -> float:
        """Seconds of duty between two times of one time zone."""
        first = max(since, until - timedelta(days=DUTY_DAYS_LOOKED_AT))
        day, total_s = first.date(), 0.0
        while day <= until.date():
            if day.weekday() in self.days:
                begins = datetime.combine(day, self.begins, first.tzinfo)
                ends = datetime.combine(day, self.ends, first.tzinfo)
                if self.ends <= self.begins:  # to the end of the day
                    ends = datetime.combine(day + timedelta(days=1), time(0), first.tzinfo)
                shared = min(ends, until) - max(begins, first)
                total_s += max(0.0, shared.total_seconds())
            day += timedelta(days=1)
        return total_s


def duty_of(days: str, hours: str) -> Duty:
    """Read hours of duty, as ``mon-fri`` (or ``mon,wed,sat``) and ``07:00-19:00``.

    Raises:
        ValueError: they are something else.
    """
    try:
        begins, ends = (time.fromisoformat(part.strip()) for part in hours.split("-"))
    except ValueError:
        raise ValueError(f"'{hours}' are no hours such as 07:00-19:00") from None
    return Duty(frozenset(_days(days)), begins, ends)


def _days(text: str) -> Iterator[int]:
    for part in text.lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in _WEEK or (last and last not in _WEEK):
            raise ValueError(f"'{text}' are no days such as mon-fri or mon,wed,sat")
        begin, end = _WEEK.index(first), _WEEK.index(last or first)
        yield from (day % 7 for day in range(begin, end + 1 + 7 * (end < begin)))


@dataclass(frozen=True)
class Limits:
    """From where on something is an alarm; 0 turns a rule off."""

    nothing_received_h: float = 24
    study_waits_h: float = 2
    study_failed_h: float = 24
    destination_h: float = 1
    refusals_per_h: int = 100
    disk_free_gib: float = 5
    certificate_days: float = 30
    remind_h: float = 24


@dataclass(frozen=True)
class Facts:
    """What was measured. Ages in seconds; None: there is nothing to measure.

    ``nothing_received_s`` counts hours of duty alone. ``destinations``: age of the oldest object
    that waits for a peer. ``drifting``: scanners and their figures in alarm. ``canary``: why the
    last test study failed, empty where it came back. ``missing``: processes. ``certificates``:
    days that each is still valid. ``channels``: age of the oldest message that a channel did not
    take.
    """

    nothing_received_s: float | None = None
    study_waits_s: float | None = None
    failed: int = 0
    held: int = 0
    refusals_last_h: int = 0
    disk_free_bytes: int | None = None
    storage: str = ""
    canary: str = ""
    destinations: Mapping[str, float] = field(default_factory=dict)
    drifting: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    certificates: Mapping[str, float] = field(default_factory=dict)
    channels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Raised:
    """Something that is wrong now. ``subject``: what it is about, where a code has several."""

    code: AlarmCode
    subject: str = ""
    found: str = ""


def raised(facts: Facts, limits: Limits) -> list[Raised]:
    """Return what is wrong now."""
    rules = (
        _received(facts, limits), _studies(facts, limits), _destinations(facts, limits),
        _disk(facts, limits), _told(facts, limits),
    )  # fmt: skip
    found: list[Raised] = []
    for one in (one for rule in rules for one in rule):
        if sum(other.code is one.code for other in found) < SUBJECTS:
            found.append(one)
    return found


def _received(facts: Facts, limits: Limits) -> Iterator[Raised]:
    silent_s = facts.nothing_received_s
    if _over(silent_s, 3600 * limits.nothing_received_h):
        yield Raised(
            AlarmCode.NOTHING_RECEIVED, found=f"for {_hours(silent_s)} of the hours of duty"
        )
    if limits.refusals_per_h and facts.refusals_last_h > limits.refusals_per_h:
        yield Raised(
            AlarmCode.SENDERS_REFUSED, found=f"{facts.refusals_last_h} times within an hour"
        )


def _studies(facts: Facts, limits: Limits) -> Iterator[Raised]:
    if _over(facts.study_waits_s, 3600 * limits.study_waits_h):
        yield Raised(
            AlarmCode.STUDY_WAITS, found=f"the oldest waits for {_hours(facts.study_waits_s)}"
        )
    if limits.study_failed_h and facts.failed + facts.held:
        yield Raised(
            AlarmCode.STUDY_FAILED,
            found=f"{facts.failed} failed and {facts.held} held "
            f"in the last {limits.study_failed_h:g} h",
        )


def _destinations(facts: Facts, limits: Limits) -> Iterator[Raised]:
    for peer, waits_s in sorted(facts.destinations.items(), key=lambda one: -one[1]):
        if _over(waits_s, 3600 * limits.destination_h):
            found = f"the oldest object waits for {_hours(waits_s)}"
            yield Raised(AlarmCode.DESTINATION_FAILING, peer, found)


def _disk(facts: Facts, limits: Limits) -> Iterator[Raised]:
    if facts.storage:
        yield Raised(AlarmCode.STORAGE_UNHEALTHY, found=facts.storage)
    free = facts.disk_free_bytes
    if free is not None and free < limits.disk_free_gib * 2**30:
        yield Raised(AlarmCode.DISK_LOW, found=f"{free / 2**30:.1f} GiB free")
    for name, days in sorted(facts.certificates.items()):
        if limits.certificate_days and days < limits.certificate_days:
            found = f"in {days:.0f} days" if days >= 0 else f"{-days:.0f} days ago"
            yield Raised(AlarmCode.CERTIFICATE_ENDS, name, found)


def _told(facts: Facts, limits: Limits) -> Iterator[Raised]:
    if facts.canary:
        yield Raised(AlarmCode.CANARY_LOST, found=facts.canary)
    for scanner, figures in sorted(facts.drifting.items()):
        yield Raised(AlarmCode.DRIFT, scanner, figures)
    for process in facts.missing:
        yield Raised(AlarmCode.PROCESS_MISSING, process)
    for channel, waits_s in sorted(facts.channels.items()):
        if waits_s > 3600:
            yield Raised(
                AlarmCode.CHANNEL_FAILING, channel, f"the oldest message waits {_hours(waits_s)}"
            )


def _over(measured_s: float | None, limit_s: float) -> bool:
    return limit_s > 0 and measured_s is not None and measured_s > limit_s


def _hours(seconds: float | None) -> str:
    return f"{(seconds or 0) / 3600:.1f} h"


@dataclass(frozen=True)
class OpenAlarm:
    """An alarm that goes on. Times in seconds since 1970-01-01 UTC."""

    id: int
    code: AlarmCode
    subject: str
    found: str
    began_at_s: float
    seen_at_s: float
    told_at_s: float


class Change(StrEnum):
    """What happens to an alarm."""

    BEGIN = "begin"
    SEEN = "seen"
    REMIND = "remind"
    END = "end"

    @property
    def is_told(self) -> bool:
        """Whether people are told of it."""
        return self is not Change.SEEN


@dataclass(frozen=True)
class Turn:
    """A change, of something that is wrong or of an alarm that goes on, or of both."""

    change: Change
    now: Raised
    alarm: OpenAlarm | None = None


def turns(
    going_on: Sequence[OpenAlarm], wrong: Sequence[Raised], now_s: float, limits: Limits
) -> list[Turn]:
    """Compare what is wrong with the alarms that go on.

    An alarm is told when it begins, again every ``remind_h`` while it lasts, and when it ended.
    """
    before = {(one.code, one.subject): one for one in going_on}
    found: list[Turn] = []
    for one in wrong:
        alarm = before.pop((one.code, one.subject), None)
        if alarm is None:
            found.append(Turn(Change.BEGIN, one))
        elif limits.remind_h and now_s - alarm.told_at_s >= 3600 * limits.remind_h:
            found.append(Turn(Change.REMIND, one, alarm))
        else:
            found.append(Turn(Change.SEEN, one, alarm))
    over = [alarm for alarm in before.values() if now_s - alarm.seen_at_s >= SETTLE_S]
    ended = (Raised(alarm.code, alarm.subject, alarm.found) for alarm in over)
    found += [Turn(Change.END, one, alarm) for one, alarm in zip(ended, over, strict=True)]
    return found
