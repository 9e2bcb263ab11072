"""Alarms, and the messages about them on their way to people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from dicom_node.domain.alarm import (
    AlarmCode,
    Change,
    Limits,
    OpenAlarm,
    Raised,
    Turn,
    turns,
)
from dicom_node.store.base import Database
from dicom_node.store.monitor_schema import alarms, notices

KEPT_ALARMS = 1000
"""So many ended alarms are kept (G5)."""
KEPT_NOTICES = 500
"""So many messages are kept, or wait, for each channel (G5)."""
_TEXT = 255


@dataclass(frozen=True)
class AlarmRow:
    """An alarm. ``ended_at_s`` None: it goes on."""

    id: int
    code: AlarmCode
    subject: str
    found: str
    began_at_s: float
    ended_at_s: float | None


@dataclass(frozen=True)
class NoticeRow:
    """A message for a channel."""

    id: int
    channel: str
    body_json: str
    attempts: int
    created_at_s: float


class AlarmStore(Database):
    """Transactions about alarms."""

    def alarms_turn(
        self, wrong: Sequence[Raised], limits: Limits, channels: Sequence[str],
        tell: Callable[[Turn], str],
    ) -> list[Turn]:  # fmt: skip
        """Begin, go on with and end alarms by what is wrong now; returns what people are told.

        ``tell`` writes the message about a change; each channel gets it.
        """
        now_s = self._clock.now_s()
        wrong = [Raised(one.code, one.subject[:_TEXT], one.found[:_TEXT]) for one in wrong]
        if not wrong and not self.alarms_open():
            return []
        with self._write() as db:
            found = turns(_open(db), wrong, now_s, limits)
            for turn in found:
                _change(db, turn, now_s)
                if turn.change.is_told:
                    for channel in channels:
                        _add_notice(db, channel, tell(turn), now_s)
            _prune(db)
        return [turn for turn in found if turn.change.is_told]

    def alarms_open(self) -> list[OpenAlarm]:
        """Return the alarms that go on, oldest first."""
        with self._read() as db:
            return _open(db)

    def alarms(self, limit: int = 100, *, going_on: bool = False) -> list[AlarmRow]:
        """Return alarms: those that go on first, then the latest."""
        query = select(alarms).order_by(alarms.c.ended_at.is_not(None), alarms.c.id.desc())
        if going_on:
            query = query.where(alarms.c.ended_at.is_(None))
        with self._read() as db:
            return [
                AlarmRow(
                    row.id, AlarmCode(row.code), row.subject, row.found, row.began_at, row.ended_at
                )
                for row in db.execute(query.limit(limit))
            ]

    def notice_add(self, channel: str, body_json: str) -> int:
        """Queue a message; returns its number."""
        with self._write() as db:
            return _add_notice(db, channel, body_json, self._clock.now_s())

    def notices_due(self, limit: int = 20) -> list[NoticeRow]:
        """Return messages that are to be sent now, oldest first."""
        now_s = self._clock.now_s()
        query = select(notices).where(notices.c.state == "pending", notices.c.next_at <= now_s)
        with self._read() as db:
            rows = db.execute(query.order_by(notices.c.id).limit(limit))
            return [
                NoticeRow(row.id, row.channel, row.body_json, row.attempts, row.created_at)
                for row in rows
            ]

    def notice_sent(self, notice_id: int) -> None:
        """Note that a channel took a message."""
        self._settle_notice(notice_id, state="sent", problem=None)

    def notice_failed(self, notice_id: int, problem: str) -> None:
        """Give a message up."""
        self._settle_notice(notice_id, state="failed", problem=problem[:_TEXT])

    def notice_later(self, notice_id: int, next_at_s: float, problem: str) -> None:
        """Try a message again at a time."""
        self._settle_notice(
            notice_id, next_at=next_at_s, problem=problem[:_TEXT],
            attempts=notices.c.attempts + 1,
        )  # fmt: skip

    def notices_waiting_s(self) -> Mapping[str, float]:
        """Age of the oldest message that waits, by channel."""
        now_s = self._clock.now_s()
        query = select(notices.c.channel, func.min(notices.c.created_at))
        waiting = query.where(notices.c.state == "pending").group_by(notices.c.channel)
        with self._read() as db:
            return {row[0]: max(0.0, now_s - row[1]) for row in db.execute(waiting)}

    def _settle_notice(self, notice_id: int, **values: Any) -> None:
        with self._write() as db:
            db.execute(update(notices).where(notices.c.id == notice_id).values(**values))


def _open(db: Connection) -> list[OpenAlarm]:
    query = select(alarms).where(alarms.c.ended_at.is_(None)).order_by(alarms.c.id)
    return [_alarm(row) for row in db.execute(query)]


def _alarm(row: Row[Any]) -> OpenAlarm:
    return OpenAlarm(
        row.id, AlarmCode(row.code), row.subject, row.found, row.began_at, row.seen_at, row.told_at
    )


def _change(db: Connection, turn: Turn, now_s: float) -> None:
    if turn.alarm is None:
        db.execute(
            insert(alarms).values(
                code=turn.now.code, subject=turn.now.subject, found=turn.now.found,
                began_at=now_s, seen_at=now_s, told_at=now_s,
            )
        )  # fmt: skip
        return
    values: dict[str, Any] = {"seen_at": now_s, "found": turn.now.found}
    if turn.change is Change.END:
        values = {"ended_at": now_s}
    elif turn.change is Change.REMIND:
        values["told_at"] = now_s
    db.execute(update(alarms).where(alarms.c.id == turn.alarm.id).values(**values))


def _add_notice(db: Connection, channel: str, body_json: str, now_s: float) -> int:
    made = db.execute(
        insert(notices).values(
            channel=channel, body_json=body_json, state="pending", created_at=now_s, next_at=now_s
        )
    ).inserted_primary_key
    if made is None:
        raise RuntimeError("the database gave no key")
    mine = select(notices.c.id).where(notices.c.channel == channel)
    last = db.execute(mine.order_by(notices.c.id.desc()).offset(KEPT_NOTICES).limit(1)).scalar()
    if last is not None:
        db.execute(delete(notices).where(notices.c.channel == channel, notices.c.id <= last))
    return int(made[0])


def _prune(db: Connection) -> None:
    over = select(alarms.c.id).where(alarms.c.ended_at.is_not(None))
    last = db.execute(over.order_by(alarms.c.id.desc()).offset(KEPT_ALARMS).limit(1)).scalar()
    if last is not None:
        db.execute(delete(alarms).where(alarms.c.ended_at.is_not(None), alarms.c.id <= last))
