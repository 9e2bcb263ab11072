"""Messages about alarms: their words, and their way to people by webhook and mail.

They wait in the database until a channel takes them, so that none is lost with a process. Only one
process of all hosts sends at a time. No message holds data of a patient: it names codes, peers,
scanners, hosts, counts and times.
"""

from __future__ import annotations

import json
import logging
import platform
import random
import threading
import uuid
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.domain.alarm import ALARMS, Change, Turn
from dicom_node.domain.policy import backoff_s
from dicom_node.errors import NodeError
from dicom_node.net.notify import post, send_mail
from dicom_node.store.alarms import NoticeRow
from dicom_node.store.store import Store
from dicom_node.store.times import iso

log = logging.getLogger(__name__)

TICK_S = 2.0
GIVE_UP_S = 24 * 3600.0
LEASE = "messages"
LEASE_S = 120.0
"""Longer than one message may take on each channel."""
_TITLES = {
    Change.BEGIN: "ALARM", Change.REMIND: "STILL", Change.END: "ENDED", Change.SEEN: "SEEN",
}  # fmt: skip


def body_of(config: NodeConfig, turn: Turn, now_s: float) -> str:
    """Return the message about a change of an alarm, as JSON."""
    text = ALARMS[turn.now.code]
    began_s = now_s if turn.alarm is None else turn.alarm.began_at_s
    told = {
        "event": turn.change, "code": turn.now.code, "subject": turn.now.subject,
        "severity": text.severity, "words": text.words, "found": turn.now.found,
        "advice": text.advice, "began_at": iso(began_s),
    }  # fmt: skip
    return json.dumps(_headed(config, now_s) | told)


def trial_body(config: NodeConfig, now_s: float) -> str:
    """Return a message that says that it is a test."""
    told = {
        "event": "test", "code": "test", "subject": "", "severity": "warning",
        "words": "this is a test of the way that alarms take", "found": "",
        "advice": "nothing is wrong", "began_at": iso(now_s),
    }  # fmt: skip
    return json.dumps(_headed(config, now_s) | told)


def _headed(config: NodeConfig, now_s: float) -> dict[str, Any]:
    return {
        "message_id": uuid.uuid4().hex, "node": config.node.ae_title, "host": platform.node(),
        "at": iso(now_s),
    }  # fmt: skip


def mail_of(config: NodeConfig, body_json: str) -> EmailMessage:
    """Return the mail of a message."""
    told = json.loads(body_json)
    title = "TEST" if told["event"] == "test" else _TITLES[Change(told["event"])]
    about = f" ({told['subject']})" if told["subject"] else ""
    mail = EmailMessage()
    mail["From"] = config.alarms.mail_from
    mail["To"] = ", ".join(config.alarms.mail_to)
    mail["Subject"] = _line(f"[{told['node']}] {title}: {told['words']}{about}")
    mail["Date"] = format_datetime(datetime.fromisoformat(told["at"]).astimezone(UTC))
    mail["Message-ID"] = f"<{told['message_id']}@{config.alarms.mail_from.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence notes in answer
    lines = [
        f"{title}: {told['words']}{about}", *([told["found"]] if told["found"] else []), "",
        f"What to do: {told['advice']}.", "",
        f"Since {told['began_at']}, told at {told['at']}.",
        f"Node {told['node']} on {told['host']}, code {told['code']}.",
    ]  # fmt: skip
    mail.set_content("\n".join(lines) + "\n")
    return mail


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def send_by(config: NodeConfig, channel: str, body_json: str, now_s: float) -> None:
    """Send a message by a channel.

    Raises:
        NodeError: it was not taken, and why.
    """
    if channel == "webhook":
        post(config.alarms, body_json.encode(), now_s)
    else:
        send_mail(config.alarms, mail_of(config, body_json))


class Messenger:
    """Sends what is due. ``run`` goes on until told to stop."""

    def __init__(self, store: Store, config: NodeConfig, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._jitter = random.SystemRandom().random

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop`` is set."""
        while not stop.wait(TICK_S):
            try:
                self.send_due(stop)
            except Exception:  # nobody would start this thread again
                log.exception("messages wait")

    def send_due(self, stop: threading.Event | None = None) -> int:
        """Send what is due; returns how many were taken. A channel that fails rests."""
        taken, resting = 0, set()
        for notice in self._store.notices_due():
            if stop is not None and stop.is_set():
                break
            if notice.channel in resting:
                continue
            if not self._store.lease(LEASE, self._holder, LEASE_S):
                break
            if self._send(notice):
                taken += 1
            else:
                resting.add(notice.channel)
        return taken

    def _send(self, notice: NoticeRow) -> bool:
        now_s = self._clock.now_s()
        if notice.channel not in self._config.alarms.channels:
            self._store.notice_failed(notice.id, "this channel is not configured any more")
            return True
        try:
            send_by(self._config, notice.channel, notice.body_json, now_s)
        except Exception as error:  # of whatever kind: the other channels go on
            problem = error.message if isinstance(error, NodeError) else type(error).__name__
            log.warning("message not taken", extra={"channel": notice.channel, "problem": problem})
            if now_s - notice.created_at_s > GIVE_UP_S:
                self._store.notice_failed(notice.id, problem)
            else:
                wait_s = backoff_s(notice.attempts + 1, self._jitter())
                self._store.notice_later(notice.id, now_s + wait_s, problem)
            return False
        self._store.notice_sent(notice.id)
        return True
