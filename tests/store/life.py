"""The life of studies through the public methods of the store, for tests that watch it.

Every method that a running node calls is called at least once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from dicom_node.clock import ManualClock
from dicom_node.domain.account import Role
from dicom_node.domain.alarm import SETTLE_S, AlarmCode, Limits, Raised
from dicom_node.domain.annotation import AnnotationState
from dicom_node.domain.audit import APPLICATION, AuditEvent, AuditMessage, Participant
from dicom_node.domain.canary import STUDY_ROOT, Judgement, RunState
from dicom_node.domain.confirmation import FIRST_CHECK_S, Verdict
from dicom_node.domain.drift import Scanner
from dicom_node.domain.identity import Difference, Identity
from dicom_node.domain.policy import PlanKind
from dicom_node.domain.reasons import Reason
from dicom_node.domain.retention import DAY_S, Rules, Sort
from dicom_node.domain.roles import ProcessRow
from dicom_node.domain.states import RevisionState
from dicom_node.errors import NodeError
from dicom_node.store.console_rows import StudyQuery
from dicom_node.store.observation_rows import Observation
from dicom_node.store.retention_rows import RetentionRules
from dicom_node.store.rows import (
    AnnotationOutcome,
    Claim,
    Destination,
    IngestOutcome,
    InstanceRow,
    Plan,
    ResultRow,
    ShadowRow,
    StudyToEvaluate,
)
from dicom_node.store.schema import conflicts, deliveries, instances, results, revisions, studies
from dicom_node.store.store import Store

PACS = Destination("pacs", ("sr", "seg-lesions"))
OBJECTS = (("seg-lesions", "1.2.840.10008.5.1.4.1.1.66.4"), ("sr", "1.2.840.10008.5.1.4.1.1.88.34"))
DIGEST = "d" * 64
RULES = RetentionRules(Rules(dict.fromkeys(Sort, 30.0), 365.0, 3.0), frozenset())
SEEN = Observation(Scanner("NORTH"), {"outcome": "analysed"}, "a" * 64)
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def image(
    study: str, number: int, received_at_s: float, digest: str = "a", patient: str = "P1"
) -> InstanceRow:
    """A row as the receive path makes it; paths are as long as those of the spool."""
    uid = f"{study}.1.{number}"
    return InstanceRow(
        study_uid=study, series_uid=f"{study}.1", sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid=uid, transfer_syntax_uid="1.2.840.10008.1.2.1", role="image",
        identity=Identity(patient),
        header_json=f'{{"demographics_digest": "{digest}"}}', dataset_digest=digest * 64,
        path=f"spool/{study}/{number}.{digest}.dcm", size=100_000, received_at_s=received_at_s,
    )  # fmt: skip


def made(study: str, number: int = 1) -> list[ResultRow]:
    """Result objects of a revision."""
    return [
        ResultRow(kind, sop_class, f"{study}.9.{number}.{place}", f"{study}.8",
                  f"results/{study}-{number}/{kind}.dcm", DIGEST, 50_000)
        for place, (kind, sop_class) in enumerate(OBJECTS)
    ]  # fmt: skip


def due_study(store: Store, study: str) -> StudyToEvaluate:
    """What the evaluation is told of a study that is due."""
    due = store.studies_to_evaluate(store._clock.now_s(), 10)
    return next(one for one in due if one.study_uid == study)


def plan(store: Store, study: str, key: str = "key", kind: PlanKind = PlanKind.ANALYSE) -> None:
    """Make a study ready as the evaluation does."""
    due = due_study(store, study)
    through = max(row.id for row in store.headers_of(study))
    report = kind is PlanKind.REPORT
    assert store.set_plan(
        due,
        Plan(
            kind, key, "{}", through, RevisionState.NOT_ANALYSABLE if report else None,
            Reason.NO_T2W if report else None, "no T2W" if report else "",
        ),
    )  # fmt: skip


def claim(store: Store) -> Claim:
    """Take the next revision."""
    taken = store.claim_ready("worker-0")
    assert taken is not None
    return taken


def record(clock: ManualClock) -> AuditMessage:
    """An audit message."""
    who = [Participant("1", APPLICATION)]
    return AuditMessage(AuditEvent.APPLICATION_START, clock.now_s(), who)


def live(store: Store, clock: ManualClock) -> Iterator[str]:
    """Drive the store through everything a node does; yields what was just done."""
    yield from _start(store)
    yield from _receive(store, clock)
    yield from _analyse(store, clock)
    yield from _deliver(store, clock)
    yield from _confirm(store, clock)
    yield from _trouble(store, clock)
    yield from _revise(store, clock)
    yield from _look(store, clock)
    yield from _shadow(store)
    yield from _annotate(store, clock)
    yield from _watch(store)
    yield from _monitor(store, clock)
    yield from _console(store, clock)
    yield from _retain(store, clock)


def _retain(store: Store, clock: ManualClock) -> Iterator[str]:
    store.add_instances([image("1.2.60", number, clock.now_s()) for number in (1, 2)])
    clock.advance(20)
    plan(store, "1.2.60")
    store.finish_analysed(claim(store), made("1.2.60"), [PACS])
    while claims := store.claim_deliveries("pacs", "d"):
        for one in claims:
            store.delivery_sent(one)
    store.end_checks("pacs", "off")
    clock.advance(400 * DAY_S)
    assert store.lease("retention", "here", 60)
    assert not store.lease("retention", "there", 60)
    before_s = clock.now_s() - DAY_S
    page = store.retention_page(images=True, before_s=before_s, after=None, limit=2)
    store.retention_page(images=True, before_s=before_s, after=page[-1], limit=50)
    store.stored_bytes()
    store.studies_in_work()
    for one in [*page, *store.retention_page(images=True, before_s=before_s, after=page[-1],
                                             limit=50)]:  # fmt: skip
        (kept,) = store.kept([one.study_id], frozenset())
        store.kept([one.study_id], frozenset(), files=False)
        if kept.study_uid == "1.2.60":
            assert store.remove_due(one.study_id, RULES, pressed=True) is not None
            yield "remove"
    store.retention_page(images=False, before_s=before_s, after=None, limit=50)
    for study_id in store.studies_with_removals():
        while store.delete_removed(study_id, lambda _: None):
            pass
    (shown,) = store.studies_show("1.2.60")
    assert shown["images_removed_at"] and shown["results_removed_at"]
    yield "delete"
    paths = {row.path for row in store.headers_of("1.2.60")}
    assert store.removed_paths(sorted(paths)) == paths
    with pytest.raises(NodeError, match="removed on"):
        store.send_again("1.2.60")
    store.note_late_image("1.2.60", "send all of them")
    back = store.add_instance(image("1.2.60", 1, clock.now_s()))
    assert back is IngestOutcome.RESTORED
    assert len(store.removed_paths(sorted(paths))) == 1
    yield "send again what was removed"
    store.end_lease("retention", "here")


def _monitor(store: Store, clock: ManualClock) -> Iterator[str]:
    row = ProcessRow("p" * 32, "worker", "", 7, "1", clock.now_s(), clock.now_s(), {"port": 1})
    seen = store.process_beat(store.process_beat(row))
    assert (seen.host, store.processes()) == (store.host_name(), [seen])
    store.process_gone(row.id)
    assert store.lease("watch", "one", 60) and not store.lease("watch", "two", 60)
    yield "beat"
    wrong = [Raised(AlarmCode.DISK_LOW, found="1 GiB free")]
    assert store.alarms_turn(wrong, Limits(), ["mail"], lambda _: "{}")
    assert len(store.alarms(5, going_on=True)) == len(store.alarms_open()) == 1
    store.notice_add("webhook", "{}")
    store.notice_add("webhook", "{}")
    first, second, third = store.notices_due()
    store.notice_sent(first.id)
    store.notice_failed(second.id, "no answer")
    store.notice_later(third.id, clock.now_s() + 5, "no answer")
    assert set(store.notices_waiting_s()) == {"webhook"}
    clock.advance(SETTLE_S)
    assert store.alarms_turn([], Limits(), [], lambda _: "{}")
    yield "alarm"
    run = store.canary_begin(STUDY_ROOT + "7", scheduled=True)
    assert store.canary_going_on() == run
    store.add_instances([image(run.study_uid, 1, clock.now_s())])
    assert store.canary_seen(run.study_uid).state is RevisionState.RECEIVING
    store.canary_end(run, Judgement(RunState.FAILED, "not back"))
    assert store.canary_last() == store.canary_runs(5)[0]
    assert store.canary_last(RunState.PASSED) is None
    assert store.set_up_s() is not None and store.oldest_waiting_s() is not None
    store.ended_badly(0.0)
    store.oldest_deliveries_s(["pacs"])
    store.analysed_in(7.0)
    counted_now = store.counters()
    assert counted_now["analysis le", "10"] == 1 and counted_now["refused", "unknown"] == 1
    store.throughput(0.0)
    yield "watch over"


def _start(store: Store) -> Iterator[str]:
    store.installation_id()
    store.last_boot_s()
    store.paths_since(0.5)
    boot = store.start_boot()
    store.recover_after_node_death(boot)
    store.recover_deliveries()
    store.recover_worker("worker-0")
    yield "start"


def _console(store: Store, clock: ManualClock) -> Iterator[str]:
    store.account_add("ann", Role.ADMIN, "c" * 64, clock.now_s() + 60)
    assert store.account_of_code("c" * 64) is not None
    assert store.account_password("ann", "hash", "c" * 64)
    assert store.accounts() == [store.account("ann")]
    store.session_begin("ann", "s" * 64, "10.0.0.9", clock.now_s() - 3600)
    clock.advance(40)
    assert store.session("s" * 64, 600, 3600) is not None
    store.session_end("s" * 64)
    store.token_add("monitor", Role.VIEWER, "t" * 64, "ann", None)
    assert store.token("t" * 64) is not None
    store.tokens()
    yield "accounts"
    (refused,) = store.refusals()
    store.refusal(refused["id"])
    store.refusal_forget(refused["id"])
    pages = [StudyQuery(limit=2), StudyQuery("1.2.1", limit=1), StudyQuery("9.9"), StudyQuery("P1")]
    pages += [StudyQuery(state=state, limit=1) for state in RevisionState]
    for query in pages:
        found = store.study_page(query)
        while found.after:
            found = store.study_page(replace(query, after=found.after))
    store.senders_seen(["PACS", "NOBODY"])
    store.throughput(clock.now_s() - 3600)
    store.destination_counts(["pacs"])
    store.revision_files("1.2.1", 1)
    store.annotations_latest(10)
    store.annotations_latest(10, 5)
    yield "look from the console"
    finish_deliveries(store)
    for study in ("1.2.3", "1.2.7", "1.2.1"):
        with contextlib.suppress(NodeError):
            store.send_again(study)
        with contextlib.suppress(NodeError):
            store.send_again(study, "pacs")
    yield "send again"


def finish_deliveries(store: Store) -> None:
    """Let the destination take what waits for it."""
    while claims := store.claim_deliveries("pacs", "d"):
        for one in claims:
            store.delivery_sent(one)


def _shadow(store: Store) -> Iterator[str]:
    store.releases()
    store.rules()
    store.work_waits()
    run = ShadowRow("1.2.1", 1, "a" * 64, "b" * 64, "{}")
    store.shadow_add(run)
    store.shadow_add(run)
    store.shadow_list(run.active_sha256, run.shadow_sha256)
    yield "shadow"


def _watch(store: Store) -> Iterator[str]:
    (row,) = store.scanners()
    assert store.scanner(row.id) == row
    assert store.scanner_of("1.2.1") == row
    assert store.running_release(row) == SEEN.release_sha256
    for release in (None, SEEN.release_sha256):
        assert len(store.observed(row, 1, 5, release)[0]) == 1
    assert len(store.annotated(row, 1, 5, SEEN.release_sha256)[0]) == 1
    assert store.set_alarms(row, {"snr_t2w"})
    store.restart_reference(row)
    yield "watch"


def _annotate(store: Store, clock: ManualClock) -> Iterator[str]:
    edited = replace(image("1.2.1", 90, clock.now_s()), role="other", sop_class_uid=SEG)
    store.add_instances([edited])
    (due,) = store.annotations_due()
    store.begin_annotation(due.id)
    store.settle_annotation(due, AnnotationOutcome(AnnotationState.USED, revision=1))
    assert store.annotations_of("1.2.1")
    assert store.sent_revisions("1.2.1")
    yield "annotate"


def _receive(store: Store, clock: ManualClock) -> Iterator[str]:
    rows = [image("1.2.1", number, clock.now_s()) for number in range(5)]
    store.known_paths([row.path for row in rows])
    store.add_instances(rows)
    store.known_result("1.2.1.9.1.0")
    store.record_own_object("1.2.1", "9.9", "PACS")
    store.add_instances([image("1.2.8", 0, clock.now_s())])
    store.add_instances(
        [image(study, 0, clock.now_s(), "b") for study in ("1.2.1", "1.2.8")],
    )
    yield "receive"
    for copy in store.conflicts_to_judge():
        store.begin_judging(copy.id)
        store.judge(copy, Difference.DEMOGRAPHICS, "(x)")
        assert store.adopt_demographics(copy.study_uid) is (copy.study_uid == "1.2.8")
    store.hold_study("1.2.8", Reason.INTERNAL_ERROR)
    store.conflicts_of("1.2.1")
    yield "judge"


def _analyse(store: Store, clock: ManualClock) -> Iterator[str]:
    clock.advance(20)
    due = due_study(store, "1.2.1")
    store.headers_of("1.2.1")
    store.wait_until(due, clock.now_s() + 5, "waits", new_revision=False, outdates=False)
    clock.advance(6)
    due = due_study(store, "1.2.1")
    store.nothing_new(due)
    store.add_instances([image("1.2.1", 6, clock.now_s())])
    clock.advance(20)
    plan(store, "1.2.1")
    taken = claim(store)
    store.headers_of("1.2.1", through=taken.through)
    store.heartbeat(taken)
    store.fail_attempt(taken, Reason.INTERNAL_ERROR, "boom")
    clock.advance(5)
    taken = claim(store)
    store.release(taken)
    taken = claim(store)
    yield "claim"
    store.finish_analysed(replace(taken, seen=SEEN), made("1.2.1"), [PACS])
    for row in store.manifests_due():
        store.manifest_written(row)
    yield "finish"


def _deliver(store: Store, clock: ManualClock) -> Iterator[str]:
    store.acceptances("pacs", "PACS@h:1")
    store.learn("pacs", "PACS@h:1", [OBJECTS[0][1]], ())
    store.refused_by("pacs", "PACS@h:1")
    store.adapt_deliveries(PACS)
    store.adapt_deliveries(Destination("pacs", PACS.kinds, frozenset({"1.2.9"})))
    assert store.peers_with_deliveries() == ["pacs"]
    first, second = store.claim_deliveries("pacs", "d")
    store.delivery_heartbeat([first, second])
    store.delivery_retry_later(first, clock.now_s() + 5, "busy")
    store.delivery_retry_later(second, clock.now_s() + 5, "busy", counts=False)
    store.postpone_peer("pacs", clock.now_s() + 9, "rests")
    store.reap_stale_deliveries()
    store.expire_deliveries(72 * 3600)
    clock.advance(10)
    for one in store.claim_deliveries("pacs", "d"):
        store.delivery_sent(one)
    store.patient_of("1.2.1")
    yield "deliver"


def _confirm(store: Store, clock: ManualClock) -> Iterator[str]:
    clock.advance(FIRST_CHECK_S)
    assert store.peers_with_checks() == ["pacs"]
    rows = store.claim_checks("pacs", 300)
    store.ask_at(rows[0], clock.now_s() + 1, "later")
    store.open_commitment("1.7", "pacs", rows, 3600)
    store.count_checks(rows, "requested")
    kept = {rows[0].sop_instance_uid}
    assert store.commitment_answered("1.7", ["pacs"], kept, {rows[1].sop_instance_uid: 0x0112})
    assert store.commitment_lost("1.7") == 1
    (again,) = store.claim_deliveries("pacs", "d")
    store.delivery_sent(again)
    clock.advance(FIRST_CHECK_S)
    (row,) = store.claim_checks("pacs", 300)
    store.judge_sent(row, Verdict.ASK_AGAIN, "later")
    store.open_commitment("1.8", "pacs", [row], 3600)
    store.drop_commitment("1.8")
    store.end_checks("pacs", "off")
    yield "confirm"
    store.add_pledge("pacs", "1.9", [("1.2", "1.2.1.1.1")])
    store.held("1.2.1.1.1")
    clock.advance(60)
    (asked,) = store.claim_pledges(600)
    store.pledge_retry(asked, clock.now_s(), "busy")
    (asked,) = store.claim_pledges(600)
    store.pledge_answered(asked)
    store.add_pledge("pacs", "1.10", [("1.2", "1.2.1.1.1")])
    clock.advance(60)
    (asked,) = store.claim_pledges(600)
    store.pledge_failed(asked, "no port")
    yield "pledge"


def _trouble(store: Store, clock: ManualClock) -> Iterator[str]:
    store.record_refusal("A", "B", "10.0.0.1", "unknown")
    store.refusals()
    yield "refuse"
    store.audit_append([record(clock)], "NODE@host")
    store.audit_position()
    store.audit_list(0, 10)
    store.audit_forwarded(1)
    store.audit_backlog()
    store.audit_head()
    store.audit_last("start")
    yield "audit"
    store.reap_stale()
    store.pull_back_times(1800.0, 3600.0)
    yield "keep house"


def _revise(store: Store, clock: ManualClock) -> Iterator[str]:
    store.add_instances([image("1.2.1", 7, clock.now_s())])
    clock.advance(20)
    plan(store, "1.2.1", "other")
    store.finish_analysed(claim(store), made("1.2.1", 2), [PACS])
    store.drop_peer_deliveries("pacs")
    store.retry("1.2.1")
    store.add_instances([image("1.2.2", 1, clock.now_s()), image("1.2.3", 1, clock.now_s())])
    store.hold_study("1.2.2", Reason.IDENTITY_CONFLICT)
    clock.advance(20)
    plan(store, "1.2.3", kind=PlanKind.REPORT)
    taken = claim(store)
    store.finish_reported(
        taken, RevisionState.NOT_ANALYSABLE, Reason.NO_T2W, "m", made("1.2.3")[1:], [PACS]
    )
    store.add_instances([image("1.2.4", 1, clock.now_s())])
    clock.advance(20)
    due = due_study(store, "1.2.4")
    store.close_silently(due, Reason.NOT_PROSTATE, "key")
    with contextlib.suppress(NodeError):
        store.retry("1.2.5")
    store.add_instances([image("1.2.6", 1, clock.now_s())])
    clock.advance(20)
    plan(store, "1.2.6")
    silent = (RevisionState.HELD, Reason.OUTPUT_GATE, "m")
    store.finish_silent(claim(store), *silent)
    yield "revise"
    store.add_instances([image("1.2.7", 1, clock.now_s())])
    clock.advance(20)
    plan(store, "1.2.7")
    store.finish_analysed(claim(store), made("1.2.7"), [PACS])
    claims = store.claim_deliveries("pacs", "d")
    while claims[0].study_uid != "1.2.7":  # what was sent again comes first
        for one in claims:
            store.delivery_sent(one)
        claims = store.claim_deliveries("pacs", "d")
    seg, sr = claims
    refuses = Destination("pacs", PACS.kinds, frozenset({seg.result.sop_class_uid}))
    store.replace_refused(seg, refuses)
    store.delivery_failed(sr, "refused")
    store.adapt_deliveries(Destination("pacs", PACS.kinds, frozenset({OBJECTS[1][1]})))
    yield "replace"


def _look(store: Store, clock: ManualClock) -> Iterator[str]:
    store.find_instance("1.2.1", "1.2.1.1.1")
    store.studies_list(50)
    store.studies_show("1.2.1")
    store.timeline("1.2.1")
    store.delivery_details("1.2.1")
    store.status()
    store.peers()
    yield "look"


def counted(store: Store) -> dict[str, Any]:
    """What the status would say if it counted."""

    def count(db: Connection, table: Any) -> int:
        return int(db.execute(select(func.count()).select_from(table)).scalar_one())

    def kept(db: Connection, what: Any) -> int:
        found = select(what).select_from(instances).where(instances.c.removed_at.is_(None))
        return int(db.execute(found).scalar_one() or 0)

    def by_state(db: Connection, table: Any) -> dict[str, int]:
        rows = db.execute(select(table.c.state, func.count()).group_by(table.c.state))
        return {row[0]: row[1] for row in rows}

    with store._engine.connect() as db:
        return {
            "held": {
                "studies": count(db, studies), "instances": kept(db, func.count()),
                "copies_aside": count(db, conflicts), "results": count(db, results),
                "bytes": kept(db, func.sum(instances.c.size)),
            },
            "revisions": by_state(db, revisions),
            "deliveries": by_state(db, deliveries),
        }  # fmt: skip


def told(store: Store) -> dict[str, Any]:
    status = store.status()
    return {
        "held": status["held"],
        "revisions": {name: n for name, n in status["revisions"].items() if n},
        "deliveries": {name: n for name, n in status["deliveries"].items() if n},
    }
