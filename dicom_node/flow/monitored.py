"""Alarms, processes and canaries as plain values, for commands, console and API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dicom_node.domain.alarm import ALARMS, Severity
from dicom_node.domain.canary import CanaryRun
from dicom_node.domain.roles import ALIVE_S, ProcessRow
from dicom_node.store.alarms import AlarmRow
from dicom_node.store.times import iso


def alarm_json(row: AlarmRow) -> dict[str, Any]:
    """Return an alarm with its words and advice."""
    text = ALARMS[row.code]
    return {
        "id": row.id, "code": str(row.code), "subject": row.subject,
        "severity": str(text.severity), "words": text.words, "found": row.found,
        "advice": text.advice, "began_at": iso(row.began_at_s), "ended_at": iso(row.ended_at_s),
    }  # fmt: skip


def alarms_json(rows: Sequence[AlarmRow]) -> list[dict[str, Any]]:
    """Return alarms, the critical ones first, else in their order."""
    told = [alarm_json(row) for row in rows]
    return sorted(told, key=lambda one: one["severity"] != Severity.CRITICAL)


def processes_json(rows: Sequence[ProcessRow], now_s: float) -> list[dict[str, Any]]:
    """Return the processes: alive where they were seen lately."""
    return [
        {
            "role": row.role, "host": row.host, "pid": row.pid, "version": row.version,
            "started_at": iso(row.started_at_s), "seen_s": round(row.age_s(now_s), 1),
            "alive": row.age_s(now_s) <= ALIVE_S,
        }
        for row in rows
    ]  # fmt: skip


def canary_json(run: CanaryRun) -> dict[str, Any]:
    """Return a canary."""
    return run.as_dict() | {"started_at": iso(run.started_at_s), "ended_at": iso(run.ended_at_s)}
