"""One study as a person reads it: its stages, what was chosen and why, findings, what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.domain.reasons import REASONS, Reason
from dicom_node.domain.states import RevisionState
from dicom_node.web.console import Console

_ROLES = {"t2w": "T2W", "adc": "ADC", "high_b": "high b-value", "dce": "DCE"}
_RETRIED = {RevisionState.FAILED, RevisionState.NOT_ANALYSABLE}
_ARRIVED = ("sent", "verified")
_UNFINISHED = {"receiving", "ready", "running", "analysed"}

HAPPENED = {
    "opened": "a revision began", "complete": "the needed images are all there",
    "report_due": "nothing more came in time", "not_ours": "no business of this node",
    "inputs_changed": "other images came", "conflict": "held",
    "resolved": "the conflict is resolved", "claim": "the analysis began",
    "node_died": "the node stopped in between", "attempt_failed": "an attempt failed",
    "not_analysable": "not analysable", "given_up": "given up",
    "newer_inputs": "superseded by newer images", "all_delivered": "every destination has it",
    "delivery_failed": "a delivery failed", "delivery_lost": "a destination lost it",
    "no_destination": "nobody receives results", "retry": "looked at anew",
    "deliver_again": "sent again", "images_removed": "images removed by retention",
    "results_removed": "results removed by retention", "images_back": "removed images came again",
    "late_image": "a late image changes nothing",
    "came_with_other_bytes": "came again with other bytes",
}  # fmt: skip
"""Events of a timeline in plain words."""


@dataclass(frozen=True)
class Stage:
    """A step on the way of a study. ``state``: done, now, bad or open."""

    name: str
    state: str
    at: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Picked:
    """A series that was looked at. ``role`` empty: it was left out; ``why``: the reason."""

    role: str
    description: str
    series_uid: str
    why: str = ""


@dataclass(frozen=True)
class RevisionView:
    """A revision with everything a person asks of it."""

    row: Mapping[str, Any]
    advice: str
    stages: tuple[Stage, ...]
    picked: tuple[Picked, ...]
    notes: tuple[str, ...]
    result: Mapping[str, Any] | None
    pictures: tuple[str, ...]
    deliveries: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class StudyView:
    """A study: its revisions, the latest first, and its whole timeline."""

    study_uid: str
    revisions: tuple[RevisionView, ...]
    events: tuple[Mapping[str, Any], ...]
    retry: str
    resend: bool
    moving: bool
    removed: tuple[tuple[str, str], ...]
    """What retention removed, and when."""


def study_view(console: Console, study_uid: str) -> StudyView | None:
    """Return a study; None where the node does not hold it."""
    store = console.store
    rows = store.studies_show(study_uid)
    if not rows:
        return None
    events = tuple(store.timeline(study_uid))
    deliveries = store.delivery_details(study_uid)
    described = _descriptions(console, study_uid)
    revisions = tuple(_revision(console, row, events, deliveries, described) for row in rows)
    newest = rows[0]
    return StudyView(
        study_uid, revisions, events, _retry(newest), _resend(newest),
        newest["state"] in _UNFINISHED, _removed(newest),
    )  # fmt: skip


def _removed(row: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    times = ((what, row[f"{what}_removed_at"]) for what in ("images", "results"))
    return tuple((what, at) for what, at in times if at)


def _retry(row: Mapping[str, Any]) -> str:
    """Return the word of the button that starts a study anew; empty: there is nothing to start."""
    if row["images_removed_at"] and row["reason"] != Reason.DELIVERY_FAILED:
        return ""
    if row["state"] == RevisionState.HELD:
        return "Release"
    failed = any(one["state"] == "failed" for made in row["results"] for one in made["deliveries"])
    return "Retry" if row["state"] in _RETRIED or failed else ""


def _resend(row: Mapping[str, Any]) -> bool:
    if row["results_removed_at"]:
        return False
    states = [one["state"] for made in row["results"] for one in made["deliveries"]]
    return any(state in _ARRIVED for state in states) and row["state"] not in (
        RevisionState.HELD, RevisionState.SUPERSEDED,
    )  # fmt: skip


def _descriptions(console: Console, study_uid: str) -> dict[str, str]:
    """Return the Series Description of each series."""
    found: dict[str, str] = {}
    for row in console.store.headers_of(study_uid):
        if row.series_uid not in found:
            found[row.series_uid] = json.loads(row.header_json).get("series_description") or ""
    return found


def _revision(
    console: Console, row: Mapping[str, Any], events: Sequence[Mapping[str, Any]],
    deliveries: Sequence[Mapping[str, Any]], described: Mapping[str, str],
) -> RevisionView:  # fmt: skip
    number = row["revision"]
    files = console.store.revision_files(events_uid(row), number)
    selection = json.loads(files.selection_json) if files else {}
    result = _result(console, files.folder) if files and files.folder else None
    mine = tuple(one for one in deliveries if one["revision"] == number)
    reason = row["reason"]
    return RevisionView(
        row=row,
        advice=REASONS[Reason(reason)].advice if reason in set(Reason) else "",
        stages=_stages(row, [one for one in events if one["revision"] == number], mine, result),
        picked=_picked(selection, described),
        notes=tuple(selection.get("notes", ())),
        result=result,
        pictures=tuple(uid for uid, _ in files.pictures) if files else (),
        deliveries=mine,
    )


def events_uid(row: Mapping[str, Any]) -> str:
    """Return the study of a row."""
    return str(row["study_uid"])


def _result(console: Console, folder: str) -> Mapping[str, Any] | None:
    """Read what the analysis wrote; None where there is none, or it cannot be read."""
    try:
        found: Mapping[str, Any] = json.loads(
            (console.config.node.data_dir / folder / "result.json").read_bytes()
        )
    except (OSError, ValueError):
        return None
    return found


def _picked(selection: Mapping[str, Any], described: Mapping[str, str]) -> tuple[Picked, ...]:
    chosen = [
        Picked(_ROLES[role], described.get(uid, ""), uid)
        for role, uid in selection.get("inputs", {}).items()
        if uid and role in _ROLES
    ]
    left_out = [
        Picked("", one.get("description", ""), one.get("series_uid", ""), one.get("reason", ""))
        for one in selection.get("rejected", ())
    ]
    return (*chosen, *left_out)


def _stages(
    row: Mapping[str, Any], events: Sequence[Mapping[str, Any]],
    deliveries: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None,
) -> tuple[Stage, ...]:  # fmt: skip
    """Return the way of a revision: what is done, where it stands, what is still open."""
    at = {one["event"]: one["at"] for one in events}
    state = row["state"]
    ended = at.get("analysed") or at.get("not_analysable") or at.get("given_up")
    timings = result["timings_s"] if result else {}
    spent = sum(timings.get(part, 0.0) for part in ("read", "load", "prepare", "infer"))
    without = state in ("not_analysable", "failed") and "analysed" not in at
    words = "without a result" if without else f"{spent:.1f} s" if timings else ""
    stages = [
        Stage("received", "done", row["received_at"], f"{row['instances']} images"),
        _completeness(at, state),
        _stage("analysed", ended, state in ("ready", "running"), without, words),
    ]
    if row["results"]:
        coded = timings.get("encode")
        detail = f"{len(row['results'])} objects" + (f", {coded:.1f} s" if coded else "")
        stages.append(Stage("encoded", "done", ended, detail))
    return (*stages, *_arrival(deliveries))


def _completeness(at: Mapping[str, str], state: str) -> Stage:
    if "complete" in at:
        return _stage("complete", at["complete"], state == "receiving", False)
    if "report_due" in at:
        return Stage("complete", "bad", at["report_due"], "images missing")
    return _stage("complete", None, state == "receiving", state == "held")


def _stage(name: str, at: str | None, now: bool, bad: bool, detail: str = "") -> Stage:
    if now:
        return Stage(name, "now", None, "")
    return Stage(name, "bad" if bad else "done" if at is not None else "open", at, detail)


def _arrival(deliveries: Sequence[Mapping[str, Any]]) -> tuple[Stage, ...]:
    if not deliveries:
        return ()
    total = len(deliveries)
    sent = [one for one in deliveries if one["state"] in _ARRIVED]
    failed = sum(one["state"] == "failed" for one in deliveries)
    kept = sum(one["state"] == "verified" for one in deliveries)
    last = max((one["sent_at"] for one in sent if one["sent_at"]), default=None)
    state = "bad" if failed else "done" if len(sent) == total else "now"
    delivered = Stage("delivered", state, last, f"{len(sent)} of {total}")
    if kept == total:
        return (delivered, Stage("verified", "done", None, f"{kept} of {total}"))
    words = f"{kept} of {total}" if kept else "not confirmed"
    return (delivered, Stage("verified", "open", None, words if sent else ""))
