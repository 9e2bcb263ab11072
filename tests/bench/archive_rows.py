"""Fills a SQLite database with what a node holds after years, faster than by living them.

Each study has its images, one delivered revision, results that their destination has confirmed, a
timeline and audit records, with UIDs, paths and headers of the usual length.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.clock import ManualClock
from dicom_node.flow.spool import spool_path
from dicom_node.store.audit import GENESIS, record_hash
from dicom_node.store.store import Store

MR, SEG = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.66.4"
SYNTAX = "1.2.840.10008.1.2.1"
HEADER = '{"text": "' + "an element of a header that selection looks at; " * 33 + '"}'
KINDS = ("seg-lesions", "seg-gland", "key-images", "sr")
EVENTS = ("opened", "complete", "claim", "analysed", "all_delivered")
XML = "<AuditMessage>" + "what happened, to whom, by whom; " * 40 + "</AuditMessage>"
DAY_S = 86_400.0
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Filling:
    """So many studies, the last of them received at ``until_s``, a third of a day apart."""

    studies: int
    instances: int
    until_s: float
    name: str = "old"

    def received_s(self, number: int) -> float:
        return self.until_s - (self.studies - 1 - number) * DAY_S / 3

    def uid(self, number: int) -> str:
        digits = int(hashlib.sha256(f"{self.name}{number}".encode()).hexdigest()[:24], 16)
        return f"1.3.12.2.1107.5.2.30.{digits}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fill(path: Path, *fillings: Filling) -> None:
    """Make a database with all of them."""
    Store(f"sqlite:///{path}", clock=ManualClock(), create=True).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-400000")
    db.execute("BEGIN")
    last = 0
    for filling in fillings:
        for make in (_studies, _instances, _revisions, _results, _deliveries, _events):
            _insert(db, make.__name__[1:], make(filling, last))
        last += filling.studies
    _insert(db, "audit", _audit(db, last))
    _totals(db)
    db.execute("COMMIT")
    db.close()


def _insert(db: sqlite3.Connection, table: str, rows: Iterable[Row]) -> None:
    rows = iter(rows)
    first = next(rows)
    columns, values = ", ".join(first), ", ".join(f":{name}" for name in first)
    statement = f"INSERT INTO {table} ({columns}) VALUES ({values})"  # noqa: S608
    db.execute(statement, first)
    db.executemany(statement, rows)


def _studies(filling: Filling, last: int) -> Iterator[Row]:
    for number in range(filling.studies):
        yield {
            "id": last + number + 1, "study_uid": filling.uid(number),
            "first_received_at": filling.received_s(number),
            "last_image_at": filling.received_s(number), "change_no": 3, "evaluated_no": 3,
            "has_images": 1, "instances": filling.instances, "patient_id": f"P{number}",
            "issuer": "", "birth_date": "19500101",
        }  # fmt: skip


def _instances(filling: Filling, last: int) -> Iterator[Row]:
    for number in range(filling.studies):
        study, at_s = filling.uid(number), filling.received_s(number)
        for image in range(filling.instances):
            uid = f"{study}.{image // 40}.{image}"
            content = digest(uid)
            yield {
                "study_id": last + number + 1, "sop_instance_uid": uid, "sop_class_uid": MR,
                "series_uid": f"{study}.{image // 40}", "transfer_syntax_uid": SYNTAX,
                "role": "image", "header_json": HEADER, "dataset_digest": content,
                "path": spool_path(study, uid, SYNTAX, content), "size": 110_000,
                "received_at": at_s + image * 0.05, "patient_id": f"P{number}", "issuer": "",
                "birth_date": "19500101", "calling_ae": "PACS", "called_ae": "PROSTATE_AI",
                "address": "10.0.0.5",
            }  # fmt: skip


def _revisions(filling: Filling, last: int) -> Iterator[Row]:
    for number in range(filling.studies):
        at_s = filling.received_s(number) + 60
        yield {
            "id": last + number + 1, "study_id": last + number + 1, "number": 1,
            "state": "delivered", "plan": "analyse", "input_key": digest(f"key {number}"),
            "selection_json": HEADER, "through": 10**9, "attempts": 0, "node_deaths": 0,
            "claim_no": 1, "run_after": at_s, "outdated": 0, "content_time": at_s,
            "created_at": at_s, "changed_at": at_s, "manifest_due": 0,
            "result_folder": f"results/{digest(filling.uid(number))[:16]}-1",
        }  # fmt: skip


def _results(filling: Filling, last: int) -> Iterator[Row]:
    for number in range(filling.studies):
        folder = f"results/{digest(filling.uid(number))[:16]}-1"
        for place, kind in enumerate(KINDS):
            yield {
                "id": (last + number) * len(KINDS) + place + 1, "revision_id": last + number + 1,
                "kind": kind, "rank": int(kind == "sr"), "sop_class_uid": SEG,
                "sop_instance_uid": f"{filling.uid(number)}.9.{place}",
                "series_uid": f"{filling.uid(number)}.9", "path": f"{folder}/{kind}.dcm",
                "sha256": digest(kind), "size": 60_000,
                "created_at": filling.received_s(number) + 60,
            }  # fmt: skip


def _deliveries(filling: Filling, last: int) -> Iterator[Row]:
    for number in range(filling.studies):
        at_s = filling.received_s(number) + 90
        for place, kind in enumerate(KINDS):
            # every third destination says nothing of what it keeps: sent, for good
            kept = number % 3 > 0
            yield {
                "result_id": (last + number) * len(KINDS) + place + 1,
                "revision_id": last + number + 1, "peer": "pacs", "rank": int(kind == "sr"),
                "state": "verified" if kept else "sent", "attempts": 1, "claim_no": 1,
                "next_at": at_s, "created_at": at_s, "since": at_s, "sent_at": at_s,
                "confirmation": "kept" if kept else "not confirmed",
            }  # fmt: skip


def _events(filling: Filling, last: int) -> Iterator[Row]:
    for number in range(filling.studies):
        for event in EVENTS:
            yield {
                "study_id": last + number + 1, "revision": 1, "event": event,
                "at": filling.received_s(number) + 60, "detail": "by worker-0",
            }  # fmt: skip


def _audit(db: sqlite3.Connection, studies: int) -> Iterator[Row]:
    head = GENESIS
    for number in range(1, 4 * studies + 1):
        values = (float(number), "Instances received", "1.2.3", XML)
        fresh = record_hash(head, number, *values)
        yield {
            "id": number, "at": values[0], "event": values[1], "subject": values[2],
            "message": XML, "previous_hash": head, "hash": fresh,
        }  # fmt: skip
        head = fresh
    db.execute(
        "UPDATE audit_state SET head_id = ?, head_hash = ?, forwarded_id = ?",
        (4 * studies, head, 4 * studies),
    )


def _totals(db: sqlite3.Connection) -> None:
    for name, query in {
        "studies": "SELECT count(*) FROM studies",
        "instances": "SELECT count(*) FROM instances",
        "bytes": "SELECT sum(size) FROM instances",
        "results": "SELECT count(*) FROM results",
        "revision delivered": "SELECT count(*) FROM revisions",
        "delivery sent": "SELECT count(*) FROM deliveries WHERE state = 'sent'",
        "delivery verified": "SELECT count(*) FROM deliveries WHERE state = 'verified'",
    }.items():
        db.execute(f"UPDATE tallies SET n = ({query}) WHERE name = ?", (name,))  # noqa: S608
